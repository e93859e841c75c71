import Bytes
import Kinesis
import Testing

@testable import LocalKinesis

/// A moment that tests move by hand.
let noon = Moment(milliseconds: 1_780_000_000_000, instant: .now)

extension Store {
    /// A store with one stream, `s`.
    static func with(shards: Int, _ change: (inout Rules) -> Void = { _ in }) throws -> Store {
        var rules = Rules()
        change(&rules)
        var store = Store(rules)
        try store.create(StreamPlan(name: "s", shards: shards), now: noon)
        return store
    }

    /// Stores one record of `size` bytes, key included, at `hash`, in a body of its own.
    @discardableResult
    mutating func put(_ size: Int = 10, at hash: UInt128 = 0, now: Moment = noon) throws -> PutResult {
        let body = [UInt8](repeating: 7, count: size - 1)
        let record = NewRecord(partitionKey: "k", hash: HashKey(hash), data: 0..<size - 1)
        return try put([record], of: body, into: "s", now: now)[0]
    }

    /// Everything that a reader gets who begins at `start`.
    mutating func readAll(_ start: Start, shard: UInt64 = 0, now: Moment = noon) throws -> ReadResult {
        let iterator = try iterator(start, shard: ShardID(number: shard), stream: "s", now: now)
        return try read(iterator, limit: 10_000, now: now)
    }
}

extension Store.PutResult {
    var shard: UInt64? { if case .stored(let shard, _) = self { shard.number } else { nil } }
    var number: SequenceNumber? { if case .stored(_, let number) = self { number } else { nil } }
}

@Suite struct RoutingTests {
    @Test func `shards divide the hash keys as the service divides them`() {
        // The ranges that AWS gives a stream of three shards.
        let ranges = StoredStream.ranges(3).map { "\($0.lowerBound)-\($0.upperBound)" }
        #expect(
            ranges == [
                "0-113427455640312821154458202477256070484",
                "113427455640312821154458202477256070485-226854911280625642308916404954512140969",
                "226854911280625642308916404954512140970-340282366920938463463374607431768211455",
            ]
        )
        #expect(StoredStream.ranges(1) == [.lowest ... .highest])
        #expect(StoredStream.ranges(2)[0].upperBound == HashKey(UInt128.max / 2))
    }

    @Test(arguments: [1, 2, 3, 7, 1000])
    func `both ends of a range belong to its shard`(count: Int) throws {
        var store = try Store.with(shards: count)
        for (number, range) in StoredStream.ranges(count).enumerated() {
            #expect(try store.put(at: range.lowerBound.value).shard == UInt64(number))
            #expect(try store.put(at: range.upperBound.value).shard == UInt64(number))
        }
    }

    @Test func `numbers of a shard grow even when the clock is set back`() throws {
        var store = try Store.with(shards: 1)
        let first = try #require(try store.put().number)
        let earlier = Moment(milliseconds: noon.milliseconds - 60_000, instant: noon.instant)
        let second = try #require(try store.put(now: earlier).number)
        #expect(second.index == first.index + 1)
        #expect(second.time == first.time)
        #expect(second.description > first.description)
    }
}

@Suite struct SequenceNumberTests {
    @Test func `has 56 digits, begins with 49, and is read as it was written`() throws {
        for index in [0, 1, 77, UInt64(UInt32.max), .max] {
            let number = SequenceNumber(created: 1_780_000_000, shard: 4711, index: index, time: 1_780_000_123)
            let text = number.description
            #expect(text.utf8.count == 56)
            #expect(text.hasPrefix("49"))
            #expect(SequenceNumber(text) == number)
        }
    }

    @Test func `takes a number of the real service apart`() throws {
        let number = try #require(SequenceNumber("49592949124142737608129152630877400786080442094840709122"))
        #expect(number.shard == 0)
        // February to March 2019, when the number was written down in public.
        #expect((1_548_000_000..<1_556_000_000).contains(number.created))
        #expect(number.time >= number.created)
        #expect(number.time < number.created + 86_400)
    }

    @Test(arguments: ["", "0", "49", String(repeating: "9", count: 56), String(repeating: "4", count: 56), "4x"])
    func `what no shard can have given is none`(text: String) {
        #expect(SequenceNumber(text) == nil)
    }
}

@Suite struct ReadingTests {
    @Test func `the five ways to begin find their records`() throws {
        var store = try Store.with(shards: 1)
        var numbers: [SequenceNumber] = []
        for second in 0..<5 {
            numbers.append(try #require(try store.put(now: noon + .seconds(second)).number))
        }
        let now = noon + .seconds(10)
        func found(_ start: Store.Start) throws -> [UInt64] {
            try store.readAll(start, now: now).records.map(\.sequenceNumber.index)
        }
        #expect(try found(.trimHorizon) == [1, 2, 3, 4, 5])
        #expect(try found(.latest) == [])
        #expect(try found(.at(numbers[2], text: "")) == [3, 4, 5])
        #expect(try found(.after(numbers[2], text: "")) == [4, 5])
        #expect(try found(.time(noon.milliseconds + 3000)) == [4, 5])
        #expect(try found(.time(noon.milliseconds + 2500)) == [4, 5])
        #expect(try found(.time(0)) == [1, 2, 3, 4, 5])
        #expect(try found(.time(noon.milliseconds + 5000)) == [])
    }

    @Test func `a shard's own starting number comes before its first record`() throws {
        var store = try Store.with(shards: 2)
        try store.put(at: .max)
        let start = try store.stream("s", now: noon).shards[1].startingSequenceNumber
        #expect(try store.readAll(.after(start, text: ""), shard: 1).records.count == 1)
        #expect(try store.readAll(.at(start, text: ""), shard: 1).records.count == 1)
    }

    @Test func `LATEST sees what comes after it`() throws {
        var store = try Store.with(shards: 1)
        try store.put()
        let iterator = try store.iterator(.latest, shard: ShardID(number: 0), stream: "s", now: noon)
        try store.put(20)
        let result = try store.read(iterator, limit: 10, now: noon)
        #expect(result.records.map(\.data.count) == [19])
        #expect(result.millisecondsBehind == 0)
    }

    @Test func `a reader that has not seen all is behind, by the age of what is next`() throws {
        var store = try Store.with(shards: 1)
        for second in 0..<3 { try store.put(now: noon + .seconds(second)) }
        let iterator = try store.iterator(.trimHorizon, shard: ShardID(number: 0), stream: "s", now: noon)
        let first = try store.read(iterator, limit: 2, now: noon + .seconds(10))
        #expect(first.records.count == 2)
        #expect(first.millisecondsBehind == 8000)
        let second = try store.read(#require(first.next), limit: 2, now: noon + .seconds(10))
        #expect(second.records.count == 1)
        #expect(second.millisecondsBehind == 0)
    }

    @Test func `one answer holds 10 MiB, and one record at least`() throws {
        var store = try Store.with(shards: 1)
        for _ in 0..<12 { try store.put(1 << 20) }
        #expect(try store.readAll(.trimHorizon).records.count == 10)
        try store.create(StreamPlan(name: "large", shards: 1, recordBytes: 10 << 20), now: noon)
        let record = Store.NewRecord(partitionKey: "k", hash: .lowest, data: 0..<10 << 20 - 1)
        _ = try store.put([record], of: .init(repeating: 0, count: 10 << 20), into: "large", now: noon)
        let iterator = try store.iterator(.trimHorizon, shard: ShardID(number: 0), stream: "large", now: noon)
        #expect(try store.read(iterator, limit: 10, now: noon).records.count == 1)
    }

    @Test func `numbers of another shard or stream are refused`() throws {
        var store = try Store.with(shards: 2)
        let number = try #require(try store.put().number)
        #expect(throws: Refusal.self) { try store.readAll(.at(number, text: ""), shard: 1) }
        try store.delete("s")
        try store.create(StreamPlan(name: "s", shards: 2), now: noon + .seconds(5))
        #expect(throws: Refusal.self) { try store.readAll(.at(number, text: "")) }
        #expect(throws: Refusal.self) { try store.readAll(.latest, shard: 2) }
    }

    @Test func `an iterator of a deleted stream begins anew in its namesake`() throws {
        var store = try Store.with(shards: 1)
        for _ in 0..<5 { try store.put() }
        let old = try store.iterator(.latest, shard: ShardID(number: 0), stream: "s", now: noon)
        try store.delete("s")
        #expect(throws: Refusal.self) { try store.read(old, limit: 1, now: noon) }
        try store.create(StreamPlan(name: "s", shards: 1), now: noon + .seconds(5))
        try store.put(now: noon + .seconds(6))
        #expect(try store.read(old, limit: 10, now: noon + .seconds(6)).records.count == 1)
    }

    @Test func `a time to come is no place to begin`() throws {
        var store = try Store.with(shards: 1)
        #expect(throws: Refusal.self) { try store.readAll(.time(noon.milliseconds + 1)) }
    }

    @Test func `an iterator's text says what it was made of`() throws {
        let iterator = ShardIterator(
            stream: "a.b_c-1",
            shard: ShardID(number: 77),
            created: 5,
            position: .max,
            issued: noon.milliseconds
        )
        #expect(ShardIterator(text: iterator.text) == iterator)
        #expect(ShardIterator(text: "") == nil)
        #expect(ShardIterator(text: "AAAA") == nil)
        #expect(ShardIterator(text: OpaqueText.encode(["iterator", "\(Int64.min)", "0", "0", "0", "s"])) == nil)
        #expect(ShardIterator(text: "not base64") == nil)
        #expect(iterator.text.utf8.count <= 512)
    }
}
