internal import Bytes
internal import Kinesis

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
    /// Calls of UpdateShardCount and of UpdateStreamMode within 24 hours.
    private static let resizesADay = 10
    private static let modeSwitchesADay = 2

    /// Begins `change`, if the service would: until `delay` has passed the stream is UPDATING, and as it was.
    ///
    /// - Parameter account: its name, and whether it is held to the limits of a day.
    mutating func begin(
        _ change: StreamChange,
        for delay: Duration,
        of account: (name: String, isLimited: Bool),
        now: Moment
    ) throws(Refusal) {
        let stream = "stream \(name) under account \(account.name)"
        switch change {
        case .split(let id, let hash):
            try checkProvisioned(stream)
            try checkSplit(id, at: hash, stream)
        case .merge(let one, let other):
            try checkProvisioned(stream)
            try checkMerge(one, other, stream)
        case .count(let count):
            try checkProvisioned(stream)
            try checkCount(count)
            if account.isLimited { try Self.checkDay(resizes, Self.resizesADay, "UpdateShardCount", stream, now) }
        case .mode:
            if account.isLimited {
                try Self.checkDay(modeSwitches, Self.modeSwitchesADay, "UpdateStreamMode", stream, now)
            }
        case .recordBytes: break
        }
        let status = status(at: now)
        if status != .active {
            throw Refusal(
                "ResourceInUseException",
                "S\(stream.dropFirst()) not ACTIVE, instead in state \(status.rawValue)"
            )
        }
        if case .count = change { resizes.append(now.milliseconds) }
        if case .mode = change { modeSwitches.append(now.milliseconds) }
        pending = (change, now.instant + delay)
        settle(now: now)
    }

    private func checkProvisioned(_ stream: String) throws(Refusal) {
        if isOnDemand {
            throw Refusal("ValidationException", "Request is invalid. S\(stream.dropFirst()) is in On-Demand mode.")
        }
    }

    private func shard(_ id: ShardID, _ stream: String) throws(Refusal) -> StoredShard {
        guard let place = place(of: id) else {
            throw Refusal("ResourceNotFoundException", "Could not find shard \(id) in \(stream).")
        }
        return shards[place]
    }

    private func checkOpen(_ shard: StoredShard, _ stream: String) throws(Refusal) {
        if !shard.isOpen {
            throw .invalidArgument(
                "Shard \(shard.id) in \(stream) has already been merged or split, and thus is not eligible for merging or "
                    + "splitting."
            )
        }
    }

    private func checkSplit(_ id: ShardID, at hash: HashKey, _ stream: String) throws(Refusal) {
        let shard = try shard(id, stream)
        let (low, high) = (shard.range.lowerBound, shard.range.upperBound)
        if hash.value <= low.value || hash.value - low.value <= 1 || hash >= high {
            throw .invalidArgument(
                "NewStartingHashKey \(hash) used in SplitShard() on shard \(id) in \(stream) is not both greater than "
                    + "one plus the shard's StartingHashKey \(low) and less than the shard's EndingHashKey \(high)."
            )
        }
        try checkOpen(shard, stream)
    }

    private func checkMerge(_ one: ShardID, _ other: ShardID, _ stream: String) throws(Refusal) {
        let shards = (try shard(one, stream), try shard(other, stream))
        try checkOpen(shards.0, stream)
        try checkOpen(shards.1, stream)
        let ranges = (shards.0.range, shards.1.range)
        func meet(_ low: ClosedRange<HashKey>, _ high: ClosedRange<HashKey>) -> Bool {
            low.upperBound < high.lowerBound && low.upperBound.value + 1 == high.lowerBound.value
        }
        guard meet(ranges.0, ranges.1) || meet(ranges.1, ranges.0) else {
            throw .invalidArgument(
                "Shards \(one) and \(other) in \(stream) are not an adjacent pair of shards eligible for merging"
            )
        }
    }

    /// Source: the API reference of UpdateShardCount.
    private func checkCount(_ count: Int) throws(Refusal) {
        let open = openShards
        let rule: String
        if count > Store.accountShards {
            rule = "Target shard count or number of open shards cannot be greater than \(Store.accountShards)"
        } else if count > open * 2 {
            rule = "UpdateShardCount cannot scale up over double your current open shard count"
        } else if count * 2 < open {
            rule = "UpdateShardCount cannot scale down below half your current open shard count"
        } else {
            return
        }
        throw Refusal(
            "LimitExceededException",
            "\(rule). Current open shard count: \(open), Target shard count: \(count)"
        )
    }

    /// Throws if `calls`, all so far, are `most` within the last 24 hours.
    private static func checkDay(
        _ calls: [Int64],
        _ most: Int,
        _ call: String,
        _ stream: String,
        _ now: Moment
    ) throws(Refusal) {
        if calls.count(where: { $0 > now.milliseconds - 86_400_000 }) >= most {
            throw Refusal(
                "LimitExceededException",
                "\(call) was called \(most) times within 24 hours for \(stream), which is the limit."
            )
        }
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
