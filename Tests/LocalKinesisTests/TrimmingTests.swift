import Kinesis
import Testing

@testable import LocalKinesis

@Suite struct TrimmingTests {
    @Test func `records older than the retention go, and a reader continues at the trim horizon`() throws {
        var store = try Store.with(shards: 1) { $0.retention = .seconds(3600) }
        for minute in 0..<10 { try store.put(now: noon + .seconds(minute * 60)) }
        let iterator = try store.iterator(.trimHorizon, shard: ShardID(number: 0), stream: "s", now: noon)
        let result = try store.read(iterator, limit: 100, now: noon + .seconds(3600 + 5 * 60))
        #expect(result.records.map(\.sequenceNumber.index) == [6, 7, 8, 9, 10])
        #expect(store.figures.recordsExpired == 5)
        #expect(store.figures.recordsTrimmed == 0)
    }

    @Test func `under the memory limit the oldest records go first, whatever their shard`() throws {
        var store = try Store.with(shards: 2) { $0.memoryLimit = 1 << 20 }
        for count in 0..<3000 { try store.put(1000, at: 0, now: noon + .milliseconds(count)) }
        // A full shard's new records are worth more than another's old ones.
        for count in 0..<5 { try store.put(1000, at: .max, now: noon + .milliseconds(3000 + count)) }
        #expect(store.figures.bytesHeld <= 1 << 20)
        #expect(try store.stream("s", now: noon).shards[1].count == 5)
        for count in 0..<3000 { try store.put(1000, at: .max, now: noon + .milliseconds(4000 + count)) }
        #expect(try store.stream("s", now: noon).shards[0].count == 0)
        #expect(try store.stream("s", now: noon).shards[1].count > 500)
    }

    @Test func `under the memory limit a reader continues at the trim horizon`() throws {
        var store = try Store.with(shards: 1) { $0.memoryLimit = 1 << 20 }
        for _ in 0..<3000 { try store.put(1000, at: 0) }
        #expect(store.figures.bytesHeld <= 1 << 20)
        let shard = try store.stream("s", now: noon).shards[0]
        #expect(shard.horizon > 1)
        #expect(shard.next == 3001)
        #expect(store.figures.recordsTrimmed == Int(shard.horizon) - 1)
        let records = try store.readAll(.trimHorizon).records
        #expect(records.first?.sequenceNumber.index == shard.horizon)
        #expect(records.last?.sequenceNumber.index == 3000)
    }

    @Test func `equally full shards lose alike`() throws {
        var store = try Store.with(shards: 4) { $0.memoryLimit = 1 << 20 }
        let starts = StoredStream.ranges(4).map(\.lowerBound.value)
        for count in 0..<4000 { try store.put(1000, at: starts[count % 4], now: noon + .milliseconds(count)) }
        let counts = try store.stream("s", now: noon).shards.map(\.count)
        // What goes at once is a part of the limit.
        #expect(counts.max()! - counts.min()! <= 1000 / 64)
        #expect(store.figures.bytesHeld <= 1 << 20)
    }

    @Test func `a body is held as long as one of its records, and then no longer`() throws {
        var store = try Store.with(shards: 2) { $0.memoryLimit = 64 << 10 }
        // Each body has one large record and one tiny one, in two shards: trimming the full shard frees nothing at first.
        for _ in 0..<100 {
            let records = [
                Store.NewRecord(partitionKey: "k", hash: .lowest, data: 0..<8000),
                Store.NewRecord(partitionKey: "k", hash: .highest, data: 8000..<8001),
            ]
            _ = try store.put(records, of: .init(repeating: 1, count: 8001), into: "s", now: noon)
            #expect(store.figures.bytesHeld <= 64 << 10)
        }
        try store.delete("s")
        #expect(store.figures.bytesHeld == 0)
    }

    @Test func `one call is kept whatever the limit`() throws {
        var store = try Store.with(shards: 1) { $0.memoryLimit = 1 }
        try store.put(100)
        try store.put(200)
        #expect(try store.readAll(.trimHorizon).records.map(\.data.count) == [199])
    }

    @Test func `what is trimmed while half a shard is gone keeps its order and places`() throws {
        var shard = StoredShard(id: ShardID(number: 0), range: .lowest ... .highest, limited: false, now: noon)
        var removed: UInt64 = 0
        for step in 0..<2000 as Range<UInt64> {
            _ = shard.append(StoredRecord(arrival: Int64(step), partitionKey: "k", body: 0, data: 0..<1))
            if step % 3 != 0, shard.removeOldest() != nil { removed += 1 }
            #expect(shard.horizon == removed + 1)
            #expect(shard.position(at: Int64(step)) == step + 1)
        }
        #expect(shard.count == 2000 - Int(removed))
        #expect(shard.oldestArrival == Int64(removed))
    }
}

@Suite struct ThrottlingTests {
    @Test func `a shard takes 1,000 records at once, and as many each second`() throws {
        var store = try Store.with(shards: 2) { $0.enforceShardLimits = true }
        for _ in 0..<1000 { #expect(try store.put().shard == 0) }
        guard case .refused(let refusal) = try store.put() else {
            Issue.record("the 1,001st was stored")
            return
        }
        #expect(refusal.code == "ProvisionedThroughputExceededException")
        #expect(
            refusal.message == "Rate exceeded for shard shardId-000000000000 in stream s under account 000000000000."
        )
        #expect(try store.put(at: .max).shard == 1)
        #expect(try store.put(now: noon + .milliseconds(1)).shard == 0)
        #expect(try store.put(now: noon + .milliseconds(1)).shard == nil)
        #expect(store.figures.recordsThrottled == 2)
        #expect(store.figures.recordsStored == 1002)
    }

    @Test(arguments: [(5, 1000), (2000, 1 << 20)])
    func `a shard that is offered more takes its rate to the last record`(size: Int, perSecond: Int) throws {
        var store = try Store.with(shards: 1) { $0.enforceShardLimits = true }
        var stored = 0
        // Ten seconds, and the one that it takes at once.
        for millisecond in 0...10_000 {
            for _ in 0..<2 {
                let result = try store.put(size, now: noon + .milliseconds(millisecond))
                if result.shard != nil { stored += 1 }
            }
        }
        #expect(stored == 11 * perSecond / (perSecond == 1000 ? 1 : size))
    }

    @Test func `one shard can be limited by itself, to nothing too`() throws {
        var store = try Store.with(shards: 3)
        try store.limit(ShardID(number: 0), of: "s", to: 0, now: noon)
        try store.limit(ShardID(number: 2), of: "s", to: 10, now: noon)
        let last = UInt128.max
        for _ in 0..<100 {
            #expect(try store.put(at: 0).shard == nil)
            #expect(try store.put(at: last / 2).shard == 1)
            #expect(try store.put(at: last).shard == 2)
        }
        #expect(try store.put(at: last).shard == nil)
        #expect(try store.put(at: last, now: noon + .milliseconds(10)).shard == 2)
        #expect(try store.put(at: 0, now: noon + .seconds(3600)).shard == nil)
        try store.limit(ShardID(number: 0), of: "s", to: 100, now: noon)
        #expect(try store.put(at: 0).shard == 0)
        #expect(throws: Refusal.self) { try store.limit(ShardID(number: 3), of: "s", to: 1, now: noon) }
        #expect(throws: Refusal.self) { try store.limit(ShardID(number: 0), of: "t", to: 1, now: noon) }
    }

    @Test func `a record above a second's bytes goes when a second's are there, and holds back what follows`() throws {
        var store = try Store.with(shards: 1) { $0.enforceShardLimits = true }
        try store.change(.recordBytes(10 << 20))
        #expect(try store.put(10 << 20).shard == 0)
        #expect(try store.put(10, now: noon + .milliseconds(8_990)).shard == nil)
        #expect(try store.put(10, now: noon + .milliseconds(9_001)).shard == 0)
    }

    @Test func `a shard takes 1 MiB at once, and refuses record by record`() throws {
        var store = try Store.with(shards: 1) { $0.enforceShardLimits = true }
        let half = Store.NewRecord(partitionKey: "k", hash: .lowest, data: 0..<1 << 19)
        let small = Store.NewRecord(partitionKey: "k", hash: .lowest, data: 0..<10)
        let body = [UInt8](repeating: 0, count: 1 << 19)
        let results = try store.put([half, half, small], of: body, into: "s", now: noon)
        // The keys count too: two halves and two keys are more than 1 MiB.
        #expect(results.map(\.shard) == [0, nil, 0])
        #expect(try store.readAll(.trimHorizon).records.count == 2)
    }

    @Test func `a call of refused records leaves nothing behind`() throws {
        var store = try Store.with(shards: 1) { $0.enforceShardLimits = true }
        try store.put(1 << 20)
        let held = store.figures.bytesHeld
        #expect(try store.put(1000).shard == nil)
        #expect(store.figures.bytesHeld == held)
    }

    @Test func `a shard is read five times a second`() throws {
        var store = try Store.with(shards: 1) { $0.enforceShardLimits = true }
        for _ in 0..<5 { _ = try store.readAll(.trimHorizon) }
        #expect(throws: Refusal.self) { try store.readAll(.trimHorizon) }
        _ = try store.readAll(.trimHorizon, now: noon + .milliseconds(200))
    }

    @Test func `without limits nothing is throttled`() throws {
        var store = try Store.with(shards: 1)
        for _ in 0..<2000 { #expect(try store.put().shard == 0) }
        for _ in 0..<20 { _ = try store.readAll(.latest) }
    }
}

@Suite struct BodiesTests {
    @Test func `the memory of a large body that is gone takes the next of about its size`() {
        var bodies = Bodies(mostSpare: 1 << 20)
        let id = bodies.add([UInt8](repeating: 1, count: 100_000))
        bodies.endAdding(id)
        #expect(bodies.held == 0)
        #expect(bodies.takeSpare(atLeast: 10_000) == nil)
        #expect(bodies.takeSpare(atLeast: 200_000) == nil)
        let spare = bodies.takeSpare(atLeast: 90_000)
        #expect(spare == [])
        #expect((spare?.capacity ?? 0) >= 100_000)
        #expect(bodies.takeSpare(atLeast: 90_000) == nil)
    }

    @Test func `spares are few`() {
        var bodies = Bodies(mostSpare: 250_000)
        for id in (0..<3).map({ _ in bodies.add([UInt8](repeating: 1, count: 100_000)) }) { bodies.endAdding(id) }
        #expect(bodies.takeSpare(atLeast: 90_000) != nil)
        #expect(bodies.takeSpare(atLeast: 90_000) != nil)
        #expect(bodies.takeSpare(atLeast: 90_000) == nil)
    }
}
