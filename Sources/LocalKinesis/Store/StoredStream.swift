internal import Kinesis

/// A stream: its shards and its settings.
struct StoredStream: Sendable {
    let name: String
    let isOnDemand: Bool
    /// Bytes of a record at most: data and partition key.
    let recordBytes: Int
    /// Milliseconds since 1970.
    let created: Int64
    /// Until then it is CREATING.
    let activeFrom: ContinuousClock.Instant
    /// In the order of their numbers, so that a shard's number is its place.
    var shards: [StoredShard]
    /// Where records go.
    private let map: ShardMap

    init(_ plan: StreamPlan, limited: Bool, activeAfter delay: Duration, now: Moment) {
        (name, isOnDemand, recordBytes) = (plan.name, plan.isOnDemand, plan.recordBytes)
        created = now.milliseconds
        activeFrom = now.instant + delay
        let ranges = Self.ranges(plan.shards)
        shards = ranges.enumerated().map { number, range in
            StoredShard(id: ShardID(number: UInt64(number)), range: range, limited: limited, now: now)
        }
        do {
            map = try ShardMap(shards.map { Shard(id: $0.id, range: $0.range) })
        } catch {
            preconditionFailure("equal ranges hold every hash key once: \(error)")
        }
    }

    /// The ranges of `count` new shards, as the service divides them: equal, and the last takes the remainder.
    static func ranges(_ count: Int) -> [ClosedRange<HashKey>] {
        // 2^128 / count without 2^128, which does not fit.
        let step = count == 1 ? UInt128.max : UInt128.max / UInt128(count) + (count.nonzeroBitCount == 1 ? 1 : 0)
        return (0..<count).map { number in
            let start = UInt128(number) * step
            return HashKey(start)...(number == count - 1 ? .highest : HashKey(start + step - 1))
        }
    }

    func isActive(at now: Moment) -> Bool { now.instant >= activeFrom }

    /// The place in `shards` of the one that takes `hash`: both ends of a range belong to it.
    func place(of hash: HashKey) -> Int { Int(map[hash].id.number) }

    /// The place of the shard named `id`.
    func place(of id: ShardID) -> Int? { id.number < UInt64(shards.count) ? Int(id.number) : nil }
}

/// What a stream shall be.
struct StreamPlan: Sendable {
    var name: String
    var shards: Int
    var isOnDemand = false
    var recordBytes = Limits.recordBytes
}
