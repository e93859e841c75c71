import Bytes
import Kinesis

/// One agent: the lane's part between the ring and the call, made of the same types.
final class Member {
    let number: Int
    private var aggregator: Aggregator
    var batcher: Batcher
    private var random: SplitMix64
    private let pool: BufferPool
    private let scenario: Scenario
    private let start: Instant
    private let key: RecordKey?
    private var limits = Batcher.Limits()

    /// Bytes a second that are written for it to send; nil: more than it can ever take.
    let demand: Double?
    private var linesTaken = 0
    private(set) var inFlight = 0
    /// The one wake-up that counts.
    var generation = 0

    private static let mostInFlight = 24
    private static let memory = 16 << 20
    /// How often new lines are looked for.
    private static let tick: Int64 = 20_000_000
    private static let blockBytes = 128 << 10

    init(
        _ number: Int,
        _ scenario: Scenario,
        demand: Double?,
        map: ShardMap,
        pool: BufferPool,
        start: Instant
    ) {
        (self.number, self.scenario, self.demand, self.pool, self.start) = (number, scenario, demand, pool, start)
        random = SplitMix64(seed: scenario.seed &* 0x1_0000_0001 &+ UInt64(number))
        if scenario.limiter == .none { limits.shardShare = nil }
        batcher = Batcher(limits, map: map, now: start)
        aggregator = Self.aggregator(scenario.placement, map, pool, random.next())
        let md5 = MD5()
        key =
            scenario.placement == .fixed
            ? RecordKey(partitionKey: Array("\(scenario.seed) agent \(number)".utf8), md5) : nil
    }

    private static func aggregator(
        _ placement: Scenario.Placement,
        _ map: ShardMap,
        _ pool: BufferPool,
        _ seed: UInt64
    ) -> Aggregator {
        let placement: Aggregator.Placement =
            switch placement {
            case .spread: .spread
            case .random: .random
            case .fixed: .key
            }
        return Aggregator(placement, .init(), map: map, pool: pool, seed: seed)
    }

    private func instant(_ time: Int64) -> Instant { start + .nanoseconds(time) }

    private func linesWaiting(_ time: Int64) -> Int {
        guard let demand else { return Self.blockBytes / scenario.lineBytes }
        return Int(demand * Double(time) / 1e9 / Double(scenario.lineBytes)) - linesTaken
    }

    /// When the first line of an aggregate was written, in nanoseconds.
    func written(_ aggregate: SealedAggregate) -> Int64? {
        demand.map { Int64(Double(aggregate.origin.runs[0].first) / $0 * 1e9) }
    }

    /// The lane's loop once: takes lines, seals what is due, starts calls.
    func run(_ time: Int64, block: Span<UInt8>, start call: ([SealedAggregate]) -> Void) {
        let now = instant(time)
        var waiting = linesWaiting(time)
        while waiting > 0, !batcher.isSupplied(now: now), batcher.bytes < Self.memory {
            let lines = min(waiting, Self.blockBytes / scenario.lineBytes)
            aggregator.take(
                lines: block.extracting(0..<lines * scenario.lineBytes),
                under: key,
                source: 1,
                position: UInt64(linesTaken * scenario.lineBytes),
                receipt: now,
                into: &batcher
            )
            linesTaken += lines
            waiting -= lines
        }
        aggregator.sealDue(before: now - batcher.linger, into: &batcher)
        // A lane with a spool.
        _ = batcher.takeExcess(above: Self.memory / 2, now: now) { _ in true }
        while inFlight < Self.mostInFlight {
            let records = batcher.next(now: now, flush: false)
            guard !records.isEmpty else { return }
            inFlight += 1
            call(records)
        }
    }

    /// When the loop has something to do again, in nanoseconds.
    func wakes(_ time: Int64) -> Int64 {
        let now = instant(time)
        var wake = time + Self.tick
        if linesWaiting(time) > 0, batcher.isSupplied(now: now) || batcher.bytes >= Self.memory {
            wake = time + 1_000_000_000
        }
        func atMost(_ instant: Instant) {
            let (seconds, attoseconds) = (instant - start).components
            // Rounded up, so that what is due is due then.
            wake = min(wake, max(time + 1, seconds * 1_000_000_000 + attoseconds / 1_000_000_000 + 1))
        }
        if let oldest = aggregator.oldestReceipt { atMost(oldest + batcher.linger) }
        if inFlight < Self.mostInFlight, let due = batcher.nextDue(now: now, flush: false) { atMost(due) }
        return wake
    }

    /// The answer to a call.
    func take(_ records: [SealedAggregate], accepted: [Bool], _ time: Int64) {
        let now = instant(time)
        inFlight -= 1
        var refused: [SealedAggregate] = []
        for (aggregate, isAccepted) in zip(records, accepted) {
            if isAccepted {
                batcher.succeeded(
                    batcher.map.index(of: aggregate.hashes.lowerBound),
                    bytes: aggregate.size,
                    now: now
                )
            } else {
                refused.append(aggregate)
            }
        }
        guard !refused.isEmpty else { return }
        let (_, homeless) = aggregator.putBack(
            refused,
            because: .throttled,
            into: &batcher,
            pool: pool,
            random: &random,
            now: now
        )
        place(homeless)
    }

    private func place(_ aggregates: [SealedAggregate]) {
        for aggregate in aggregates {
            if let shard = batcher.map.index(ofAll: aggregate.hashes) {
                batcher.add(aggregate, to: shard)
            } else {
                for (piece, shard) in aggregator.regroup(aggregate, pool: pool) { batcher.add(piece, to: shard) }
            }
        }
    }

    func adopt(_ map: ShardMap, _ time: Int64) {
        aggregator.sealAll(into: &batcher)
        let waiting = batcher.adopt(map, limits, now: instant(time))
        aggregator = Self.aggregator(scenario.placement, map, pool, random.next())
        place(waiting)
    }
}
