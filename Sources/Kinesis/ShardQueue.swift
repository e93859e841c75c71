/// What waits for a shard, and what the shard's own limits leave.
struct ShardQueue {
    var live = AggregateLine()
    var backlog = AggregateLine()
    var byteBucket: TokenBucket?
    var recordBucket: TokenBucket?
    /// Aggregates under way that hold keys of this shard, where the order counts.
    var underWay = 0

    var isEmpty: Bool { live.isEmpty && backlog.isEmpty }

    func hasHead(isBacklog: Bool) -> Bool { isBacklog ? !backlog.isEmpty : !live.isEmpty }

    /// How long until the shard's own limits allow the head of a line to go, and leave a part of the burst; nil: now.
    mutating func wait(isBacklog: Bool, sparing spared: Double, now: ContinuousClock.Instant) -> Duration? {
        guard byteBucket != nil, let head = isBacklog ? backlog.head : live.head else { return nil }
        let bytes = byteBucket!.wait(for: Double(head.size) + spared * byteBucket!.burst, now: now)
        let records = recordBucket!.wait(for: 1 + spared * recordBucket!.burst, now: now)
        guard let bytes else { return records }
        return max(bytes, records ?? .zero)
    }

    mutating func takeHead(isBacklog: Bool) -> SealedAggregate {
        let head = isBacklog ? backlog.takeHead() : live.takeHead()
        byteBucket?.take(Double(head.size))
        recordBucket?.take(1)
        return head
    }
}
