import Kinesis
import Seeded
import Testing

@testable import LocalKinesis

extension Store {
    /// The shards of `s` that `filter` passes.
    mutating func shards(_ filter: ShardFilter = .all, now: Moment = noon) throws -> [StoredShard] {
        try stream("s", now: now).shards(filter, after: nil, horizon: horizon(at: now))
    }

    mutating func change(_ change: StreamChange, now: Moment = noon) throws {
        _ = try self.change("s", change, now: now)
    }
}

extension StoredShard {
    fileprivate var number: UInt64 { id.number }
}

/// Whether the ranges of `shards` hold every hash key once.
private func divideAll(_ shards: [StoredShard]) -> Bool {
    (try? ShardMap(shards.map { Shard(id: $0.id, range: $0.range) })) != nil
}

@Suite struct ReshardTests {
    private let middle = UInt128.max / 2 + 1

    @Test func `a split's children take what their parent took, each its part`() throws {
        var store = try Store.with(shards: 1)
        let before = try #require(try store.put().number)
        try store.change(.split(ShardID(number: 0), at: HashKey(middle)))
        #expect(try store.put(at: 0).shard == 1)
        #expect(try store.put(at: middle - 1).shard == 1)
        #expect(try store.put(at: middle).shard == 2)
        #expect(try store.put(at: .max).shard == 2)
        let shards = try store.shards()
        #expect(shards.map(\.isOpen) == [false, true, true])
        #expect(shards.map { $0.parents.map(\.number) } == [[], [0], [0]])
        #expect(shards[0].count == 1)
        let end = try #require(shards[0].endingSequenceNumber)
        #expect(end.description > before.description)
        for child in shards[1...] { #expect(child.startingSequenceNumber.description > end.description) }
    }

    @Test(arguments: [false, true])
    func `a merge's child has both parents, in the order they were named`(turned: Bool) throws {
        var store = try Store.with(shards: 3)
        let (one, other) = turned ? (2, 1) : (1, 2) as (UInt64, UInt64)
        try store.change(.merge(ShardID(number: one), ShardID(number: other)))
        let child = try store.shards()[3]
        #expect(child.parents.map(\.number) == [one, other])
        #expect(child.range.upperBound == .highest)
        #expect(try store.put(at: .max).shard == 3)
        #expect(try store.put(at: child.range.lowerBound.value).shard == 3)
        #expect(try store.put(at: child.range.lowerBound.value - 1).shard == 0)
    }

    @Test func `a closed shard is read to its end, which names its children`() throws {
        var store = try Store.with(shards: 1)
        for _ in 0..<3 { try store.put() }
        let waiting = try store.iterator(.latest, shard: ShardID(number: 0), stream: "s", now: noon)
        #expect(try store.read(waiting, limit: 10, now: noon).next != nil)
        try store.change(.split(ShardID(number: 0), at: HashKey(middle)))
        try store.put()
        let start = try store.iterator(.trimHorizon, shard: ShardID(number: 0), stream: "s", now: noon)
        let first = try store.read(start, limit: 2, now: noon)
        #expect(first.records.count == 2)
        #expect(first.children.isEmpty)
        let second = try store.read(try #require(first.next), limit: 2, now: noon)
        #expect(second.records.count == 1)
        for end in [second, try store.read(waiting, limit: 10, now: noon)] {
            #expect(end.next == nil)
            #expect(end.children.map(\.number) == [1, 2])
            #expect(end.millisecondsBehind == 0)
        }
        #expect(try store.readAll(.trimHorizon, shard: 1).records.count == 1)
        let ending = try #require(try store.shards()[0].endingSequenceNumber)
        #expect(try store.readAll(.at(ending, text: "")).next == nil)
        #expect(try store.readAll(.after(ending, text: "")).next == nil)
    }

    @Test func `a stream is as it was until it is ACTIVE again`() throws {
        var store = try Store.with(shards: 1) { $0.updateDelay = .seconds(30) }
        try store.change(.split(ShardID(number: 0), at: HashKey(middle)))
        let during = noon + .seconds(29)
        #expect(try store.stream("s", now: during).status(at: during) == .updating)
        #expect(try store.put(now: during).shard == 0)
        let refusal = #expect(throws: Refusal.self) { try store.change(.recordBytes(2 << 20), now: during) }
        #expect(refusal?.code == "ResourceInUseException")
        #expect(
            refusal?.message == "Stream s under account 000000000000 not ACTIVE, instead in state UPDATING"
        )
        let after = noon + .seconds(30)
        #expect(try store.put(now: after).shard == 1)
        #expect(try store.stream("s", now: after).status(at: after) == .active)
        #expect(try store.shards(now: after)[0].closed == after.milliseconds)
    }

    @Test func `what cannot be split or merged is told apart`() throws {
        var store = try Store.with(shards: 3)
        func code(_ change: StreamChange) -> String? {
            do { _ = try store.change("s", change, now: noon) } catch { return error.code }
            return nil
        }
        func id(_ number: UInt64) -> ShardID { ShardID(number: number) }
        let range = try store.shards()[1].range
        #expect(code(.split(id(9), at: HashKey(5))) == "ResourceNotFoundException")
        for wrong in [0, range.lowerBound.value, range.lowerBound.value + 1, range.upperBound.value, .max] {
            #expect(code(.split(id(1), at: HashKey(wrong))) == "InvalidArgumentException")
        }
        #expect(code(.merge(id(0), id(9))) == "ResourceNotFoundException")
        #expect(code(.merge(id(0), id(2))) == "InvalidArgumentException")
        #expect(code(.merge(id(2), id(0))) == "InvalidArgumentException")
        #expect(code(.merge(id(1), id(1))) == "InvalidArgumentException")
        #expect(code(.split(id(1), at: HashKey(range.lowerBound.value + 2))) == nil)
        #expect(code(.split(id(1), at: HashKey(range.lowerBound.value + 2))) == "InvalidArgumentException")
        #expect(code(.merge(id(0), id(1))) == "InvalidArgumentException")
        #expect(code(.mode(onDemand: true)) == nil)
        #expect(code(.merge(id(0), id(3))) == "ValidationException")
        #expect(code(.split(id(0), at: HashKey(5))) == "ValidationException")
        #expect(code(.count(5)) == "ValidationException")
    }

    @Test(arguments: [(4, 8), (8, 4), (4, 6), (6, 4), (3, 5), (5, 3), (1, 2), (2, 1), (7, 7), (1000, 1999)])
    func `UpdateShardCount divides the hash keys equally, by splits and merges`(from: Int, to: Int) throws {
        var store = try Store.with(shards: from)
        try store.change(.count(to))
        let open = try store.shards(.open).sorted { $0.range.lowerBound < $1.range.lowerBound }
        #expect(open.map(\.range) == StoredStream.ranges(to))
        let shards = try store.shards()
        if to == from { #expect(shards.count == from) }
        if to == from * 2 { #expect(shards.count == from + to) }
        for shard in shards where !shard.parents.isEmpty {
            let parents = shard.parents.map { shards[Int($0.number)] }
            #expect(parents.allSatisfy { $0.children.contains(shard.id) })
            if parents.count == 1 {
                #expect(parents[0].range.contains(shard.range.lowerBound))
                #expect(parents[0].range.contains(shard.range.upperBound))
            } else {
                #expect(Set(parents.map(\.range.lowerBound)).contains(shard.range.lowerBound))
                #expect(Set(parents.map(\.range.upperBound)).contains(shard.range.upperBound))
            }
        }
    }

    @Test func `UpdateShardCount keeps to the service's limits`() throws {
        var store = try Store.with(shards: 4)
        func code(_ count: Int) -> String? {
            do { _ = try store.change("s", .count(count), now: noon) } catch { return error.code }
            return nil
        }
        #expect(code(9) == "LimitExceededException")
        #expect(code(1) == "LimitExceededException")
        #expect(code(20_000) == "LimitExceededException")
        try store.create(StreamPlan(name: "other", shards: 9993), now: noon)
        #expect(code(8) == "LimitExceededException")
        #expect(code(7) == nil)
        #expect(code(3) == "LimitExceededException")
        #expect(code(4) == nil)
    }

    @Test func `where limits are enforced a stream is resized ten times a day`() throws {
        var store = try Store.with(shards: 2) { $0.enforceShardLimits = true }
        for call in 0..<10 { try store.change(.count(call % 2 == 0 ? 3 : 2)) }
        let refusal = #expect(throws: Refusal.self) { try store.change(.count(3)) }
        #expect(refusal?.code == "LimitExceededException")
        try store.change(.count(3), now: noon + .seconds(86_400))
    }

    @Test func `a closed shard is listed until its records are too old`() throws {
        var store = try Store.with(shards: 1) { $0.retention = .seconds(60) }
        try store.change(.split(ShardID(number: 0), at: HashKey(middle)))
        let (before, after) = (noon + .seconds(60), noon + .milliseconds(60_001))
        #expect(try store.shards(now: before).map(\.number) == [0, 1, 2])
        #expect(try store.shards(now: after).map(\.number) == [1, 2])
        _ = try store.iterator(.trimHorizon, shard: ShardID(number: 0), stream: "s", now: before)
        #expect(throws: Refusal.self) {
            try store.iterator(.trimHorizon, shard: ShardID(number: 0), stream: "s", now: after)
        }
    }

    @Test func `a larger limit lets larger records in`() throws {
        var store = try Store.with(shards: 1) { $0.updateDelay = .seconds(1) }
        #expect(throws: Refusal.self) { try store.put(1 << 20 + 1) }
        try store.change(.recordBytes(2 << 20))
        #expect(throws: Refusal.self) { try store.put(2 << 20) }
        #expect(try store.put(2 << 20, now: noon + .seconds(1)).shard == 0)
        #expect(throws: Refusal.self) { try store.put(2 << 20 + 1, now: noon + .seconds(1)) }
    }

    /// Reshards at random while records come, and reads everything as the KCL does: children after their parents.
    @Test func `through any reshards every record is read once, from the shard that held its hash key`() throws {
        var random = Random()
        for _ in 0..<20 { try reshardAtRandom(&random) }
    }

    private func reshardAtRandom(_ random: inout Random) throws {
        var store = try Store.with(shards: Int.random(in: 1...4, using: &random))
        var now = noon
        var stored: [String: UInt64] = [:]
        for _ in 0..<200 {
            now = now + .milliseconds(Int.random(in: 0...2, using: &random))
            if Int.random(in: 0..<4, using: &random) > 0 {
                let hash = UInt128.random(in: .min ... .max, using: &random)
                let result = try store.put(at: hash, now: now)
                let shard = try #require(result.shard)
                let range = try store.shards(now: now)[Int(shard)].range
                #expect(range.contains(HashKey(hash)), random.note)
                stored[try #require(result.number).description] = shard
                continue
            }
            let open = try store.shards(.open, now: now).sorted { $0.range.lowerBound < $1.range.lowerBound }
            let place = Int.random(in: 0..<open.count, using: &random)
            let range = open[place].range
            switch Int.random(in: 0..<3, using: &random) {
            case 0 where range.upperBound.value - range.lowerBound.value > 3:
                let bounds = range.lowerBound.value + 2...range.upperBound.value - 1
                try store.change(.split(open[place].id, at: HashKey(.random(in: bounds, using: &random))), now: now)
            case 1 where place + 1 < open.count:
                try store.change(.merge(open[place].id, open[place + 1].id), now: now)
            case 2:
                let counts = (open.count + 1) / 2...min(open.count * 2, 40)
                try store.change(.count(.random(in: counts, using: &random)), now: now)
            default: continue
            }
            #expect(divideAll(try store.shards(.open, now: now)), random.note)
            // At every time so far exactly one shard took each hash key.
            let time = Int64.random(in: noon.milliseconds...now.milliseconds, using: &random)
            #expect(divideAll(try store.shards(.at(time), now: now)), random.note)
        }
        var read: [String: UInt64] = [:]
        var waiting = try store.shards(.at(noon.milliseconds), now: now).map(\.id)
        var seen: Set<ShardID> = []
        while let id = waiting.popLast() {
            guard seen.insert(id).inserted else { continue }
            let result = try store.readAll(.trimHorizon, shard: id.number, now: now)
            for record in result.records {
                #expect(read.updateValue(id.number, forKey: record.sequenceNumber.description) == nil, random.note)
            }
            waiting += result.children.map(\.id)
        }
        #expect(read == stored, random.note)
        #expect(seen.count == (try store.shards(now: now).count), random.note)
    }
}
