import Bytes
import Kinesis

// Concurrency: belongs to its lane's thread.

/// What is arranged by the shard map: aggregates that are being filled, and those that wait for a call.
final class Staging {
    private(set) var aggregator: Aggregator
    /// Kinesis records that aggregators before this one have sealed and nobody has counted.
    private var sealed = 0
    var batcher: Batcher
    private let pool: BufferPool
    private var output: Configuration.Output
    /// Shards that an earlier map held: calls that were under way may still name them.
    private var closed: [ShardID: ClosedRange<HashKey>] = [:]

    init(
        _ map: ShardMap,
        for output: Configuration.Output,
        pool: BufferPool,
        seed: UInt64,
        now: Instant
    ) {
        (self.output, self.pool) = (output, pool)
        aggregator = Self.aggregator(map, output, pool, seed)
        batcher = Batcher(Self.limits(output), map: map, now: now)
    }

    var map: ShardMap { batcher.map }

    /// Memory for a shard that nothing is sent to: its writer, its queue, its entry in the map.
    static let bytesPerShard = 1024

    private static func aggregator(
        _ map: ShardMap,
        _ output: Configuration.Output,
        _ pool: BufferPool,
        _ seed: UInt64
    ) -> Aggregator {
        var limits = Aggregator.Limits()
        limits.size = output.aggregateMaxSize
        limits.records = output.aggregate ? output.aggregateMaxRecords : 1
        limits.compression = output.compression
        let placement: Aggregator.Placement =
            switch output.partitionKey {
            case .spread: .spread
            case .random: .random
            case .source, .host, .literal: .key
            case .field(let pointer): .field(pointer)
            }
        return Aggregator(placement, limits, map: map, pool: pool, seed: seed)
    }

    private static func limits(_ output: Configuration.Output) -> Batcher.Limits {
        var limits = Batcher.Limits()
        limits.callBytes = output.callMaxSize
        limits.callRecords = output.callMaxRecords
        limits.linger = output.linger
        limits.notesAdded = output.spool.when == .always
        limits.isOrdered = output.ordered
        limits.shardShare = output.rateLimit == 0 ? nil : Double(output.rateLimit) / 100
        return limits
    }

    // MARK: sealing

    /// Takes from a ring: `body` has the aggregator and where full aggregates go.
    func fill<Result>(_ body: (inout Aggregator, inout Batcher) -> Result) -> Result { body(&aggregator, &batcher) }

    func sealAll() { aggregator.sealAll(into: &batcher) }

    /// Seals what was opened a linger ago.
    func sealDue(now: Instant) {
        aggregator.sealDue(before: now - batcher.linger, into: &batcher)
    }

    /// Seals what a call that leaves now may take along.
    func sealAlong(now: Instant) { aggregator.sealAlong(into: &batcher, now: now) }

    func sealLargest(_ bytes: Int) { aggregator.sealLargest(bytes, into: &batcher) }

    /// How many Kinesis records were sealed since the last call.
    func takeSealed() -> Int {
        defer { sealed = 0 }
        return sealed + aggregator.takeSealed()
    }

    // MARK: the map

    /// Goes over to another map, or other settings: what is open or waiting is arranged anew.
    ///
    /// - Returns: aggregates that were taken apart, and what became of each.
    func rearrange(
        by map: ShardMap,
        for output: Configuration.Output,
        seed: UInt64,
        now: Instant
    ) -> [Regrouped] {
        sealAll()
        // A stream that is resharded every day must not fill the memory with what no call names any more.
        if closed.count > 2 * map.count + 1000 { closed = [:] }
        for shard in self.map.shards where map.index(of: shard.id) == nil { closed[shard.id] = shard.range }
        let waiting: [SealedAggregate]
        if output.stream == self.output.stream {
            waiting = batcher.adopt(map, Self.limits(output), now: now)
        } else {
            // What was learned of another stream says nothing about this one.
            waiting = batcher.takeAll()
            batcher = Batcher(Self.limits(output), map: map, now: now)
        }
        self.output = output
        sealed += aggregator.takeSealed()
        aggregator = Self.aggregator(map, output, pool, seed)
        return place(waiting)
    }

    /// An aggregate that no single shard could take, and the pieces that were made of it.
    struct Regrouped {
        var aggregate: SealedAggregate
        var pieces: [SealedAggregate]

        /// Whether the pieces' records lie nowhere but in memory.
        var isWithoutCopy: Bool {
            pieces.contains(where: \.isPiece) && !aggregate.isPiece && !aggregate.origin.hasCopy
        }
    }

    /// Queues aggregates by the present map; those that no single shard holds are taken apart.
    func place(_ aggregates: [SealedAggregate]) -> [Regrouped] {
        var regrouped: [Regrouped] = []
        for aggregate in aggregates {
            if let shard = map.index(ofAll: aggregate.hashes) {
                batcher.add(aggregate, to: shard)
            } else {
                regrouped.append(regroup(aggregate))
            }
        }
        return regrouped
    }

    /// Makes aggregates by the present map out of one, and queues them.
    ///
    /// - Parameter inFront: before what waits, as what was sent already.
    func regroup(_ aggregate: SealedAggregate, inFront: Bool = false) -> Regrouped {
        let pieces = aggregator.regroup(aggregate, pool: pool)
        if inFront {
            for (shard, pieces) in Dictionary(grouping: pieces, by: \.shard) {
                batcher.putBack(pieces.map(\.aggregate), to: shard)
            }
        } else {
            for (piece, shard) in pieces { batcher.add(piece, to: shard) }
        }
        return Regrouped(aggregate: aggregate, pieces: pieces.map(\.aggregate))
    }

    /// Puts aggregates back in front of their shards' lines; those that may go elsewhere do when their shard refused them.
    ///
    /// - Returns: aggregates that were placed anew, and what became of each.
    func putBack(
        _ aggregates: [SealedAggregate],
        because refusal: Batcher.Refusal,
        random: inout SplitMix64,
        now: Instant
    ) -> [Regrouped] {
        let (moved, homeless) = aggregator.putBack(
            aggregates,
            because: refusal,
            into: &batcher,
            pool: pool,
            random: &random,
            now: now
        )
        return moved.map { Regrouped(aggregate: $0.before, pieces: [$0.after]) }
            + homeless.reversed().map { regroup($0, inFront: true) }
    }

    /// Notes shards that are closed by now: what they took is where their readers find it.
    func learn(_ shards: [Shard]) {
        for shard in shards where map.index(of: shard.id) == nil { closed[shard.id] = shard.range }
    }

    /// Forgets them: another stream's may have their names.
    func forgetClosed() { closed = [:] }

    func verdict(on result: PutRecords.Result, of aggregate: SealedAggregate, mapIsFresh: Bool) -> Delivery.Verdict {
        Delivery.verdict(on: result, of: aggregate.hashes, by: map, closed: closed, mapIsFresh: mapIsFresh)
    }

    /// What is known of each shard.
    func shardReports(now: Instant) -> [ShardReport] { map.shards.indices.map { batcher.report(on: $0, now: now) } }

    /// Notes that the aggregate's shard took it.
    func succeeded(_ aggregate: SealedAggregate, now: Instant) {
        batcher.succeeded(map.index(of: aggregate.hashes.lowerBound), bytes: aggregate.size, now: now)
    }
}
