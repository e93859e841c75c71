/// Sealed aggregates on their way out, shard by shard: which of them make the next call, and when.
///
/// A full or failing shard holds back its own queue only. Within a shard aggregates leave in the order they came.
public struct Batcher {
    public struct Limits: Sendable {
        /// Bytes of a call: data and partition keys.
        public var callBytes = 1 << 20
        public var callRecords = 500
        /// From a record's receipt to its call's start.
        public var linger: Duration = .milliseconds(100)
        /// The part of a shard's own limits to use; nil: all that it takes.
        public var shardShare: Double? = 1

        public init() {}
    }

    private struct Queue {
        var waiting: [SealedAggregate] = []
        var taken = 0
        var bytes = 0
        var heldUntil: ContinuousClock.Instant?
        var byteBucket: TokenBucket?
        var recordBucket: TokenBucket?
        var backoff = Backoff()

        var head: SealedAggregate? { taken < waiting.count ? waiting[taken] : nil }
        var isEmpty: Bool { taken == waiting.count }

        mutating func takeHead() -> SealedAggregate {
            let head = waiting[taken]
            taken += 1
            bytes -= head.size
            if taken == waiting.count {
                waiting.removeAll(keepingCapacity: true)
                taken = 0
            } else if taken >= 64, taken * 2 >= waiting.count {
                waiting.removeFirst(taken)
                taken = 0
            }
            return head
        }

        /// When the head may go; nil: now.
        mutating func blockedUntil(now: ContinuousClock.Instant) -> ContinuousClock.Instant? {
            guard let head else { return nil }
            if let heldUntil, heldUntil > now { return heldUntil }
            heldUntil = nil
            let wait = max(
                byteBucket?.wait(for: Double(head.size), now: now) ?? .zero,
                recordBucket?.wait(for: 1, now: now) ?? .zero
            )
            return wait > .zero ? now + wait : nil
        }
    }

    private let limits: Limits
    public private(set) var map: ShardMap
    private var queues: [Queue]
    /// Indices of the shards with something to send, in turn.
    private var active: [Int] = []

    /// Aggregates and bytes that wait.
    public private(set) var count = 0
    public private(set) var bytes = 0

    public init(_ limits: Limits, map: ShardMap, now: ContinuousClock.Instant) {
        (self.limits, self.map) = (limits, map)
        queues = map.shards.map { _ in
            var queue = Queue()
            if let share = limits.shardShare {
                let bytes = share * Double(Kinesis.Limits.shardBytesPerSecond)
                let records = share * Double(Kinesis.Limits.shardRecordsPerSecond)
                queue.byteBucket = TokenBucket(rate: bytes, burst: bytes, now: now)
                queue.recordBucket = TokenBucket(rate: records, burst: records, now: now)
            }
            return queue
        }
    }

    /// Queues `aggregate` behind those of the shard with `index` in the map.
    public mutating func add(_ aggregate: SealedAggregate, to index: Int) {
        if queues[index].isEmpty { active.append(index) }
        queues[index].waiting.append(aggregate)
        queues[index].bytes += aggregate.size
        count += 1
        bytes += aggregate.size
    }

    /// Puts aggregates of one shard back in front, in the order they were in, and holds the shard for a while.
    ///
    /// - Parameter chance: evenly drawn from 0 to 1, for the wait; nil: the shard itself did nothing wrong.
    public mutating func putBack(
        _ aggregates: [SealedAggregate],
        to index: Int,
        chance: Double?,
        now: ContinuousClock.Instant
    ) {
        guard !aggregates.isEmpty else { return }
        if queues[index].isEmpty { active.append(index) }
        queues[index].waiting.replaceSubrange(0..<queues[index].taken, with: aggregates)
        queues[index].taken = 0
        let size = aggregates.reduce(0) { $0 + $1.size }
        queues[index].bytes += size
        count += aggregates.count
        bytes += size
        if let chance { queues[index].heldUntil = now + queues[index].backoff.next(chance: chance) }
    }

    /// Notes that the shard with `index` took a record: its failures count anew.
    public mutating func succeeded(_ index: Int) { queues[index].backoff.reset() }

    /// The bytes that wait for the shard with `index`, and whether it is held back.
    public func load(of index: Int, now: ContinuousClock.Instant) -> (bytes: Int, isHeld: Bool) {
        (queues[index].bytes, (queues[index].heldUntil ?? now) > now)
    }

    /// Takes the aggregates of the next call; empty when none is due.
    ///
    /// A call is due when it is full, or when its oldest record has waited for the linger.
    /// - Parameter flush: whatever may go is due.
    public mutating func next(now: ContinuousClock.Instant, flush: Bool) -> [SealedAggregate] {
        var (readyBytes, readyCount, isDue) = (0, 0, flush)
        var ready: [Int] = []
        for index in active where queues[index].blockedUntil(now: now) == nil {
            ready.append(index)
            readyBytes += queues[index].bytes
            readyCount += queues[index].waiting.count - queues[index].taken
            if let head = queues[index].head, head.firstReceipt + limits.linger <= now { isDue = true }
        }
        guard !ready.isEmpty, isDue || readyBytes >= limits.callBytes || readyCount >= limits.callRecords else {
            return []
        }
        var call: [SealedAggregate] = []
        var size = 0
        var progress = true
        while progress, call.count < limits.callRecords {
            progress = false
            for index in ready where call.count < limits.callRecords {
                guard let head = queues[index].head, call.isEmpty || size + head.size <= limits.callBytes,
                    queues[index].blockedUntil(now: now) == nil
                else { continue }
                queues[index].byteBucket?.take(Double(head.size))
                queues[index].recordBucket?.take(1)
                call.append(queues[index].takeHead())
                size += head.size
                progress = true
            }
        }
        count -= call.count
        bytes -= size
        active.removeAll { queues[$0].isEmpty }
        // The next call begins with another shard, so that none is always last.
        if active.count > 1 { active.append(active.removeFirst()) }
        return call
    }

    /// When `next` may have something that it has not now; nil: not before something is added.
    public mutating func nextDue(now: ContinuousClock.Instant, flush: Bool) -> ContinuousClock.Instant? {
        var due: ContinuousClock.Instant?
        var ready: [(at: ContinuousClock.Instant, index: Int)] = []
        let mayFill = bytes >= limits.callBytes || count >= limits.callRecords
        for index in active {
            guard let head = queues[index].head else { continue }
            let free = queues[index].blockedUntil(now: now) ?? now
            let when = flush ? free : max(free, head.firstReceipt + limits.linger)
            due = min(due ?? when, when)
            if mayFill, !flush { ready.append((free, index)) }
        }
        guard let due, !ready.isEmpty else { return due }
        // Full calls do not wait for the linger, only until enough shards are free.
        var (readyBytes, readyCount) = (0, 0)
        for (at, index) in ready.sorted(by: { $0.at < $1.at }) {
            if at >= due { break }
            readyBytes += queues[index].bytes
            readyCount += queues[index].waiting.count - queues[index].taken
            if readyBytes >= limits.callBytes || readyCount >= limits.callRecords { return at }
        }
        return due
    }

    /// Takes everything that waits, in order, to queue it by another map.
    public mutating func takeAll() -> [SealedAggregate] {
        var all: [SealedAggregate] = []
        for index in active { while !queues[index].isEmpty { all.append(queues[index].takeHead()) } }
        active.removeAll()
        (count, bytes) = (0, 0)
        return all
    }
}
