import Bytes

/// What waits for a shard, and what the shard's own limits leave.
struct ShardQueue {
    var live = AggregateLine()
    var backlog = AggregateLine()
    var byteBucket: TokenBucket?
    var recordBucket: TokenBucket?
    var tally = ShardReport.Tally()
    /// Aggregates under way that hold keys of this shard, where the order counts.
    var underWay = 0

    var isEmpty: Bool { live.isEmpty && backlog.isEmpty }

    func hasHead(isBacklog: Bool) -> Bool { isBacklog ? !backlog.isEmpty : !live.isEmpty }

    /// How long until the shard's own limits allow the head of a line to go, and leave a part of the burst; nil: now.
    mutating func wait(isBacklog: Bool, sparing spared: Double, now: Instant) -> Duration? {
        guard byteBucket != nil, let head = isBacklog ? backlog.head : live.head else { return nil }
        let bytes = byteBucket!.wait(for: Double(head.size) + spared * byteBucket!.burst, now: now)
        let records = recordBucket!.wait(for: 1 + spared * recordBucket!.burst, now: now)
        guard let bytes else { return records }
        return max(bytes, records ?? .zero)
    }

    /// Whether the shard takes everything live that waits now, and so many bytes more.
    mutating func takesAll(with size: Int, now: Instant) -> Bool {
        guard byteBucket != nil else { return true }
        let (bytes, records) = (Double(live.bytes + size), Double(live.count + 1))
        // A bucket that is full would do for more.
        guard bytes <= byteBucket!.burst, records <= recordBucket!.burst else { return false }
        return byteBucket!.wait(for: bytes, now: now) == nil && recordBucket!.wait(for: records, now: now) == nil
    }

    mutating func takeHead(isBacklog: Bool) -> SealedAggregate {
        let head = isBacklog ? backlog.takeHead() : live.takeHead()
        let cost = cost(of: head.size)
        byteBucket?.take(cost)
        recordBucket?.take(1)
        return head
    }

    /// What a record costs of the shard's bytes.
    ///
    /// One above the burst goes when the bucket is full, and so does the shard's own: that must be there first, though
    /// records are a different time on their way.
    private func cost(of size: Int) -> Double {
        guard let byteBucket, Double(size) > byteBucket.burst else { return Double(size) }
        return Double(size) * (1 + Batcher.spared)
    }
}
