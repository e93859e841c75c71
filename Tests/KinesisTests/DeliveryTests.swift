import Bytes
import Kinesis
import Seeded
import Testing

/// Kinesis as it is, whatever the agent believes: shards that split and merge, and what a KCL reader gets out of them.
private struct Service {
    private(set) var open: [Shard]
    private var ranges: [ShardID: ClosedRange<HashKey>] = [:]
    private var nextID: UInt64
    /// How often a reader was given each line.
    private(set) var delivered: [[UInt8]: Int] = [:]
    private(set) var dropped = 0
    init(shards: Int, _ random: inout Random) {
        open = [Shard(id: ShardID(number: 0), range: .lowest ... .highest)]
        nextID = 1
        while open.count < shards { split(&random) }
        note()
    }

    private mutating func note() { for shard in open { ranges[shard.id] = shard.range } }

    private mutating func id() -> ShardID {
        defer { nextID += 1 }
        return ShardID(number: nextID)
    }

    mutating func split(_ random: inout Random) {
        let at = random.below(open.count)
        let range = open[at].range
        let width = range.upperBound.value - range.lowerBound.value
        guard width > 1 else { return }
        let cut = range.lowerBound.value + UInt128(random.next()) % width
        open.replaceSubrange(
            at...at,
            with: [
                Shard(id: id(), range: range.lowerBound...HashKey(cut)),
                Shard(id: id(), range: HashKey(cut + 1)...range.upperBound),
            ]
        )
        note()
    }

    mutating func merge(_ random: inout Random) {
        guard open.count > 1 else { return }
        let at = random.below(open.count - 1)
        let range = open[at].range.lowerBound...open[at + 1].range.upperBound
        open.replaceSubrange(at...(at + 1), with: [Shard(id: id(), range: range)])
        note()
    }

    mutating func put(_ aggregate: SealedAggregate) -> PutRecords.Result {
        let md5 = MD5()
        let key = aggregate.key.partitionKey
        let hash = aggregate.key.explicitHashKey ?? HashKey(partitionKey: key.span, md5)
        let shard = open.first { $0.range.contains(hash) }!
        let data = aggregate.withData { Array($0) }
        guard aggregate.recordCount > 1, let users = Deaggregator().userRecords(of: data.span) else {
            delivered[data, default: 0] += 1
            return .stored(in: shard.id)
        }
        if users.allSatisfy({ shard.range.contains($0.hashKey(md5)) }) {
            for user in users { delivered[user.data, default: 0] += 1 }
        } else {
            dropped += 1
        }
        return .stored(in: shard.id)
    }
}

/// The lane's decisions without its threads and sockets.
private final class Sender {
    let pool = BufferPool(mostKept: 0)
    let placement: Aggregator.Placement
    var aggregator: Aggregator
    var batcher: Batcher
    var closed: [ShardID: ClosedRange<HashKey>] = [:]
    var waiting: [(SealedAggregate, PutRecords.Result)] = []
    var settled: [Bool] = []
    var random: Random
    var chance: SplitMix64
    /// Aggregates that went to another shard than the one that refused them.
    var moved = 0

    init(_ placement: Aggregator.Placement, _ map: ShardMap, _ random: Random, now: Instant) {
        (self.placement, self.random) = (placement, random)
        aggregator = Self.aggregator(placement, map, pool)
        batcher = Batcher(Self.limits, map: map, now: now)
        chance = SplitMix64(seed: random.seed)
    }

    static func aggregator(_ placement: Aggregator.Placement, _ map: ShardMap, _ pool: BufferPool) -> Aggregator {
        var sizes = Aggregator.Limits()
        sizes.size = 600
        return Aggregator(placement, sizes, map: map, pool: pool, seed: 1)
    }

    static var limits: Batcher.Limits {
        var limits = Batcher.Limits()
        limits.callRecords = 6
        limits.shardShare = nil
        return limits
    }

    func settle(_ aggregate: SealedAggregate) {
        aggregate.origin.unsettled -= 1
        #expect(aggregate.origin.unsettled >= 0, random.note)
        guard aggregate.origin.unsettled == 0 else { return }
        for run in aggregate.origin.runs {
            for position in run.first..<run.end {
                #expect(!settled[Int(position)], random.note)
                settled[Int(position)] = true
            }
        }
    }

    func place(_ aggregates: [SealedAggregate]) {
        for aggregate in aggregates {
            guard let shard = batcher.map.index(ofAll: aggregate.hashes) else {
                for (piece, shard) in aggregator.regroup(aggregate, pool: pool) { batcher.add(piece, to: shard) }
                continue
            }
            batcher.add(aggregate, to: shard)
        }
    }

    func putBack(_ aggregates: [SealedAggregate], because refusal: Batcher.Refusal, _ now: Instant) {
        let (moved, homeless) = aggregator.putBack(
            aggregates,
            because: refusal,
            into: &batcher,
            pool: pool,
            random: &chance,
            now: now
        )
        self.moved += moved.count
        place(homeless)
    }

    func take(_ results: [(SealedAggregate, PutRecords.Result)], fresh: Bool, _ now: Instant) {
        for (aggregate, result) in results {
            switch Delivery.verdict(
                on: result,
                of: aggregate.hashes,
                by: batcher.map,
                closed: closed,
                mapIsFresh: fresh
            ) {
            case .settled: settle(aggregate)
            case .awaitMap: waiting.append((aggregate, result))
            case .regroup:
                for (piece, shard) in aggregator.regroup(aggregate, pool: pool) { batcher.add(piece, to: shard) }
            case .retry(let isThrottled): putBack([aggregate], because: isThrottled ? .throttled : .failed, now)
            }
        }
    }

    func adopt(_ map: ShardMap, now: Instant) {
        aggregator.sealAll(into: &batcher)
        for shard in batcher.map.shards where map.index(of: shard.id) == nil { closed[shard.id] = shard.range }
        let queued = batcher.adopt(map, Self.limits, now: now)
        aggregator = Self.aggregator(placement, map, pool)
        place(queued)
        let before = waiting
        waiting = []
        take(before, fresh: true, now)
    }
}

@Suite struct DeliveryTests {
    static let placements: [(Aggregator.Placement, String)] = [
        (.spread, "spread"), (.random, "random"), (.key, "key"),
    ]

    @Test(arguments: placements.indices)
    func `whatever shards do and answers say, every line reaches a reader and settles once`(mode: Int) throws {
        let placement = Self.placements[mode].0
        var random = Random()
        let md5 = MD5()
        var moved = 0
        for _ in 0..<30 {
            var service = Service(shards: 1 + random.below(6), &random)
            var now = Instant.now
            let sender = Sender(placement, try ShardMap(service.open), random, now: now)
            var calls: [([SealedAggregate], [PutRecords.Result]?)] = []
            var lines: [[UInt8]] = []
            func step(flush: Bool, calm: Bool) throws {
                now += .milliseconds(random.below(60))
                sender.aggregator.sealDue(before: now - .milliseconds(100), into: &sender.batcher)
                if flush { sender.aggregator.sealAll(into: &sender.batcher) }
                if !calm, random.oneIn(8) { random.oneIn(2) ? service.split(&random) : service.merge(&random) }
                let call = sender.batcher.next(now: now, flush: flush)
                for aggregate in call {
                    // What leaves the queues lies in one shard by the map they were filled for.
                    #expect(sender.batcher.map.index(ofAll: aggregate.hashes) != nil, random.note)
                    let users =
                        aggregate.recordCount > 1 ? aggregate.withData { Deaggregator().userRecords(of: $0) } : []
                    for user in users ?? [] {
                        #expect(aggregate.hashes.contains(user.hashKey(md5)), random.note)
                    }
                    #expect((users ?? []).isEmpty || users?.count == aggregate.recordCount, random.note)
                }
                if !call.isEmpty {
                    // A call that fails as a whole may have been carried out.
                    let fails = !calm && random.oneIn(6)
                    let arrives = !fails || random.oneIn(2)
                    let results: [PutRecords.Result] = call.map {
                        if !calm, random.oneIn(5) {
                            let code =
                                random.oneIn(2) ? "InternalFailure" : "ProvisionedThroughputExceededException"
                            return .refused(ServiceError(code: code, message: ""))
                        }
                        return arrives ? service.put($0) : .refused(ServiceError(code: "none", message: ""))
                    }
                    calls.append((call, fails ? nil : results))
                }
                if !calls.isEmpty, calm || random.oneIn(2) {
                    let (sent, results) = calls.remove(at: random.below(calls.count))
                    if let results {
                        sender.take(Array(zip(sent, results)), fresh: false, now)
                    } else {
                        sender.putBack(sent, because: .unanswered, now)
                    }
                }
                if !sender.waiting.isEmpty, random.oneIn(3) { sender.adopt(try ShardMap(service.open), now: now) }
                if !calm, random.oneIn(20) { sender.adopt(try ShardMap(service.open), now: now) }
            }
            for _ in 0..<80 {
                var block: [UInt8] = []
                let start = sender.settled.count
                for _ in 0..<random.below(8) {
                    let line = Array("line \(lines.count) ".utf8) + [UInt8](repeating: 120, count: random.below(200))
                    lines.append(line)
                    block += line + (random.oneIn(5) ? [13, 10] : [10])
                }
                sender.settled += [Bool](repeating: false, count: block.count)
                let key = RecordKey(partitionKey: Array("key \(random.below(5))".utf8), md5)
                sender.aggregator.take(
                    lines: block.span,
                    under: placement == .key ? key : nil,
                    source: 1,
                    position: UInt64(start),
                    receipt: now,
                    into: &sender.batcher
                )
                try step(flush: false, calm: false)
            }
            var rounds = 0
            while sender.settled.contains(false), rounds < 5000 {
                try step(flush: true, calm: true)
                rounds += 1
            }
            #expect(!sender.settled.contains(false), random.note)
            #expect(lines.allSatisfy { service.delivered[$0] != nil }, random.note)
            moved += sender.moved
        }
        #expect(placement == .spread ? moved > 0 : moved == 0, random.note)
    }

    @Test func `a record that looks like an aggregate is never taken apart`() throws {
        let md5 = MD5()
        let now = Instant.now
        var inner = AggregateWriter(maxSize: 1000, pool: BufferPool(mostKept: 0))
        let run = Run(source: 1, first: 0, end: 1)
        for text in ["one", "two"] {
            let key = RecordKey(partitionKey: Array(text.utf8), md5)
            _ = inner.append(Array(text.utf8).span, under: key, from: run, receipt: now)
        }
        let data = inner.seal()!.withData { Array($0) }
        var outer = AggregateWriter(maxSize: 1000, pool: BufferPool(mostKept: 0))
        let key = RecordKey(partitionKey: [1], md5)
        _ = outer.append(data.span, under: key, from: run, receipt: now)
        let sealed = outer.seal()!
        let aggregator = Aggregator(
            .spread,
            .init(),
            map: try BatcherTests.map(4),
            pool: BufferPool(mostKept: 0),
            seed: 1
        )
        let pieces = aggregator.regroup(sealed, pool: BufferPool(mostKept: 0))
        #expect(pieces.count == 1)
        #expect(pieces[0].aggregate.withData { Array($0) } == data)
    }

    @Test func `a verdict follows from where the record was stored`() throws {
        let map = try BatcherTests.map(2)
        let (left, right) = (map.shards[0].range, map.shards[1].range)
        let both = left.lowerBound...right.upperBound
        let unknown = PutRecords.Result.stored(in: ShardID(number: 9))
        func verdict(_ result: PutRecords.Result, _ hashes: ClosedRange<HashKey>, fresh: Bool) -> Delivery.Verdict {
            Delivery.verdict(on: result, of: hashes, by: map, mapIsFresh: fresh)
        }
        #expect(verdict(.stored(in: map.shards[0].id), left, fresh: false) == .settled)
        #expect(verdict(.stored(in: map.shards[1].id), left, fresh: false) == .awaitMap)
        #expect(verdict(.stored(in: map.shards[1].id), left, fresh: true) == .regroup)
        #expect(verdict(.stored(in: map.shards[0].id), both, fresh: true) == .regroup)
        #expect(verdict(unknown, left, fresh: false) == .awaitMap)
        #expect(verdict(unknown, left, fresh: true) == .regroup)
        let closed = [ShardID(number: 9): both]
        #expect(Delivery.verdict(on: unknown, of: left, by: map, closed: closed, mapIsFresh: false) == .settled)
        let slow = ServiceError(code: "ProvisionedThroughputExceededException", message: "")
        #expect(verdict(.refused(slow), left, fresh: false) == .retry(throttled: true))
        #expect(
            verdict(.refused(.init(code: "InternalFailure", message: "")), left, fresh: false)
                == .retry(throttled: false)
        )
    }
}
