internal import Kinesis

/// A stream: its shards and its settings.
struct StoredStream: Sendable {
    enum Status: String, Sendable {
        case creating = "CREATING"
        case active = "ACTIVE"
        case updating = "UPDATING"
    }

    let name: String
    private(set) var isOnDemand: Bool
    /// Bytes of a record at most: data and partition key.
    private(set) var recordBytes: Int
    /// Milliseconds since 1970.
    let created: Int64
    /// Until then it is CREATING.
    let activeFrom: ContinuousClock.Instant
    /// In the order of their numbers, so that a shard's number is its place; closed ones too.
    var shards: [StoredShard]
    /// When UpdateShardCount and UpdateStreamMode were last called, in milliseconds since 1970.
    var resizes: [Int64] = []
    var modeSwitches: [Int64] = []
    /// What the stream is UPDATING for, and when that is done.
    private var pending: (change: StreamChange, due: ContinuousClock.Instant)?
    /// Where records go.
    private var map: ShardMap
    private let limited: Bool

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

    private static func map(of shards: [StoredShard]) -> ShardMap {
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

/// What a call changes about a stream.
enum StreamChange: Equatable, Sendable {
    case split(ShardID, at: HashKey)
    case merge(ShardID, ShardID)
    /// To so many open shards of equal ranges.
    case count(Int)
    case mode(onDemand: Bool)
    case recordBytes(Int)
}

extension StoredStream {
    /// Begins `change`, which was found possible: until `delay` has passed the stream is UPDATING, and as it was.
    mutating func begin(_ change: StreamChange, for delay: Duration, now: Moment) {
        pending = (change, now.instant + delay)
        settle(now: now)
    }

    /// Finishes the change whose time has come.
    mutating func settle(now: Moment) {
        guard let (change, due) = pending, now.instant >= due else { return }
        pending = nil
        switch change {
        case .split(let shard, let hash): split(Int(shard.number), at: hash, now: now)
        case .merge(let one, let other): merge(Int(one.number), Int(other.number), now: now)
        case .count(let count): resize(to: count, now: now)
        case .mode(let onDemand): isOnDemand = onDemand
        case .recordBytes(let bytes): recordBytes = bytes
        }
        map = Self.map(of: shards)
    }

    private mutating func split(_ place: Int, at hash: HashKey, now: Moment) {
        let range = shards[place].range
        replace([place], by: [range.lowerBound...HashKey(hash.value - 1), hash...range.upperBound], now: now)
    }

    private mutating func merge(_ one: Int, _ other: Int, now: Moment) {
        let ranges = (shards[one].range, shards[other].range)
        let low = min(ranges.0.lowerBound, ranges.1.lowerBound)
        replace([one, other], by: [low...max(ranges.0.upperBound, ranges.1.upperBound)], now: now)
    }

    private mutating func replace(_ parents: [Int], by ranges: [ClosedRange<HashKey>], now: Moment) {
        let ids = ranges.indices.map { ShardID(number: UInt64(shards.count + $0)) }
        let end = parents.reduce(now.milliseconds) { max($0, shards[$1].opened) }
        for place in parents { shards[place].close(for: ids, at: end) }
        let closed = parents.map { shards[$0] }
        for (id, range) in zip(ids, ranges) {
            shards.append(StoredShard(id: id, range: range, of: closed, limited: limited, now: now))
        }
    }

    /// Splits at every border that shall be, then merges over every one that shall not: as the service, by way of shards
    /// that live for a moment only.
    private mutating func resize(to count: Int, now: Moment) {
        let ranges = Self.ranges(count)
        var next = 0
        for shard in map.shards {
            var place = Int(shard.id.number)
            while next < count, ranges[next].lowerBound <= shard.range.lowerBound { next += 1 }
            while next < count, ranges[next].lowerBound <= shard.range.upperBound {
                split(place, at: ranges[next].lowerBound, now: now)
                place = shards.count - 1
                next += 1
            }
        }
        let pieces = shards.filter(\.isOpen).sorted { $0.range.lowerBound < $1.range.lowerBound }.map(\.id.number)
        next = 0
        for range in ranges {
            var place = Int(pieces[next])
            next += 1
            while shards[place].range.upperBound < range.upperBound {
                merge(place, Int(pieces[next]), now: now)
                place = shards.count - 1
                next += 1
            }
        }
    }
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
