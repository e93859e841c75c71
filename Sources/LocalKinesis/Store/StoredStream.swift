import Bytes
internal import Kinesis

/// A stream: its shards and its settings.
struct StoredStream: Sendable {
    enum Status: String, Sendable {
        case creating = "CREATING"
        case active = "ACTIVE"
        case updating = "UPDATING"
    }

    let name: String
    var isOnDemand: Bool
    /// Bytes of a record at most: data and partition key.
    var recordBytes: Int
    /// Milliseconds since 1970.
    let created: Int64
    /// Until then it is CREATING.
    let activeFrom: Instant
    /// In the order of their numbers, so that a shard's number is its place; closed ones too.
    var shards: [StoredShard]
    /// When UpdateShardCount and UpdateStreamMode were last called, in milliseconds since 1970.
    var resizes: [Int64] = []
    var modeSwitches: [Int64] = []
    /// What the stream is UPDATING for, and when that is done.
    var pending: (change: StreamChange, due: Instant)?
    /// Where records go.
    var map: ShardMap
    let limited: Bool

    init(_ plan: StreamPlan, limited: Bool, activeAfter delay: Duration, now: Moment) {
        (name, isOnDemand, recordBytes, self.limited) = (plan.name, plan.isOnDemand, plan.recordBytes, limited)
        created = now.milliseconds
        activeFrom = now.instant + delay
        let ranges = Self.ranges(plan.shards)
        shards = ranges.enumerated().map { number, range in
            StoredShard(id: ShardID(number: UInt64(number)), range: range, limited: limited, now: now)
        }
        map = Self.map(of: shards)
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

    static func map(of shards: [StoredShard]) -> ShardMap {
        do {
            return try ShardMap(shards.map { Shard(id: $0.id, range: $0.range, isOpen: $0.isOpen) })
        } catch {
            preconditionFailure("the open shards hold every hash key once: \(error)")
        }
    }

    func status(at now: Moment) -> Status {
        if now.instant < activeFrom { return .creating }
        return pending == nil ? .active : .updating
    }

    var openShards: Int { map.count }

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

/// Which shards a listing has.
enum ShardFilter: Equatable, Sendable {
    case all
    case open
    /// Those that took records at a time: milliseconds since 1970.
    case at(Int64)
    /// Those that took records at a time or later.
    case from(Int64)

    func passes(_ shard: StoredShard) -> Bool {
        switch self {
        case .all: true
        case .open: shard.isOpen
        case .at(let time): shard.opened <= time && shard.closed ?? .max >= time
        case .from(let time): shard.closed ?? .max >= time
        }
    }
}

extension StoredStream {
    /// The shards that `filter` passes and whose numbers are above that of `id`, without those whose records have all
    /// been too old since before `horizon`.
    func shards(_ filter: ShardFilter, after id: ShardID?, horizon: Int64) -> [StoredShard] {
        shards.filter { shard in
            id.map { $0 < shard.id } ?? true && filter.passes(shard) && !shard.isExpired(horizon: horizon)
        }
    }
}

extension StoredShard {
    /// Whether it closed before `horizon`: all it held is older than the retention.
    func isExpired(horizon: Int64) -> Bool { closed ?? .max < horizon }
}
