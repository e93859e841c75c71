/// Sealed aggregates on their way out, shard by shard: which of them make the next call, and when.
///
/// A full or failing shard holds back its own queue only. Within a shard aggregates leave in the order they came. What
/// comes back from the spool has a line of its own behind each shard's: it takes what the live records leave.
public struct Batcher {
    public struct Limits: Sendable {
        /// Bytes of a call: data and partition keys.
        public var callBytes = 1 << 20
        public var callRecords = 500
        /// From a record's receipt to its call's start.
        public var linger: Duration = .milliseconds(100)
        /// The part of a shard's own limits to use; nil: all that it takes.
        public var shardShare: Double? = 1
        /// The part of a shard's burst that the backlog leaves for live records, so that they find room at once.
        public var liveReserve = 0.1
        /// Whether `takeAdded` tells what was queued: for whoever copies it.
        public var notesAdded = false

        public init() {}
    }

    /// Aggregates in order.
    private struct Line {
        private var waiting: [SealedAggregate] = []
        private var taken = 0
        private(set) var bytes = 0

        var head: SealedAggregate? { taken < waiting.count ? waiting[taken] : nil }
        var isEmpty: Bool { taken == waiting.count }
        var count: Int { waiting.count - taken }
        var all: ArraySlice<SealedAggregate> { waiting[taken...] }

        mutating func append(_ aggregate: SealedAggregate) {
            waiting.append(aggregate)
            bytes += aggregate.size
        }

        mutating func putBack(_ aggregates: [SealedAggregate]) {
            waiting.replaceSubrange(0..<taken, with: aggregates)
            taken = 0
            bytes += aggregates.reduce(0) { $0 + $1.size }
        }

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

        mutating func keep(_ isKept: (SealedAggregate) -> Bool) {
            waiting = waiting[taken...].filter(isKept)
            taken = 0
            bytes = waiting.reduce(0) { $0 + $1.size }
        }
    }

    private struct Queue {
        var live = Line()
        var backlog = Line()
        var heldUntil: ContinuousClock.Instant?
        var byteBucket: TokenBucket?
        var recordBucket: TokenBucket?
        /// The part of the buckets that the backlog leaves alone.
        var reserve = 0.0
        var backoff = Backoff()

        var isEmpty: Bool { live.isEmpty && backlog.isEmpty }

        /// When the head of a line may go; nil: now, or there is none.
        mutating func blockedUntil(isBacklog: Bool, now: ContinuousClock.Instant) -> ContinuousClock.Instant? {
            guard let head = isBacklog ? backlog.head : live.head else { return nil }
            if let heldUntil, heldUntil > now { return heldUntil }
            heldUntil = nil
            let spared = isBacklog ? reserve : 0
            let bytes = byteBucket.map { Double(head.size) + spared * $0.burst } ?? 0
            let records = recordBucket.map { 1 + spared * $0.burst } ?? 0
            let wait = max(
                byteBucket?.wait(for: bytes, now: now) ?? .zero,
                recordBucket?.wait(for: records, now: now) ?? .zero
            )
            return wait > .zero ? now + wait : nil
        }

        mutating func takeHead(isBacklog: Bool) -> SealedAggregate {
            let head = isBacklog ? backlog.takeHead() : live.takeHead()
            byteBucket?.take(Double(head.size))
            recordBucket?.take(1)
            return head
        }
    }

    private let limits: Limits
    public private(set) var map: ShardMap
    private var queues: [Queue]
    /// Indices of the shards with something to send, in turn.
    private var active: [Int] = []
    /// When a call of backlog alone may start: full calls are cheaper than many small ones.
    private var backlogAfter: ContinuousClock.Instant

    private var added: [SealedAggregate] = []

    /// Live aggregates and bytes that wait.
    public private(set) var count = 0
    public private(set) var bytes = 0
    /// Bytes that came back from the spool and wait.
    public private(set) var backlogBytes = 0

    public init(_ limits: Limits, map: ShardMap, now: ContinuousClock.Instant) {
        (self.limits, self.map, backlogAfter) = (limits, map, now)
        queues = map.shards.map { _ in
            var queue = Queue()
            if let share = limits.shardShare {
                let bytes = share * Double(Kinesis.Limits.shardBytesPerSecond)
                let records = share * Double(Kinesis.Limits.shardRecordsPerSecond)
                queue.byteBucket = TokenBucket(rate: bytes, burst: bytes, now: now)
                queue.recordBucket = TokenBucket(rate: records, burst: records, now: now)
                queue.reserve = limits.liveReserve
            }
            return queue
        }
    }

    /// Queues `aggregate` behind those of the shard with `index` in the map.
    public mutating func add(_ aggregate: SealedAggregate, to index: Int) {
        if queues[index].isEmpty { active.append(index) }
        if aggregate.isBacklog {
            queues[index].backlog.append(aggregate)
            backlogBytes += aggregate.size
        } else {
            queues[index].live.append(aggregate)
            count += 1
            bytes += aggregate.size
            if limits.notesAdded, !aggregate.origin.hasCopy, !aggregate.isPiece { added.append(aggregate) }
        }
    }

    /// Live aggregates that were queued since the last call and have no copy.
    public mutating func takeAdded() -> [SealedAggregate] {
        var taken: [SealedAggregate] = []
        swap(&taken, &added)
        return taken.filter { !$0.origin.hasCopy }
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
        let live = aggregates.filter { !$0.isBacklog }
        let backlog = aggregates.filter(\.isBacklog)
        queues[index].live.putBack(live)
        queues[index].backlog.putBack(backlog)
        count += live.count
        bytes += live.reduce(0) { $0 + $1.size }
        backlogBytes += backlog.reduce(0) { $0 + $1.size }
        if let chance { queues[index].heldUntil = now + queues[index].backoff.next(chance: chance) }
    }

    /// Notes that the shard with `index` took a record: its failures count anew.
    public mutating func succeeded(_ index: Int) { queues[index].backoff.reset() }

    /// The live bytes that wait for the shard with `index`, and whether it is held back.
    public func load(of index: Int, now: ContinuousClock.Instant) -> (bytes: Int, isHeld: Bool) {
        (queues[index].live.bytes, (queues[index].heldUntil ?? now) > now)
    }

    /// Takes the aggregates of the next call; empty when none is due.
    ///
    /// A call is due when it is full, or when its oldest record has waited for the linger. What room the live records
    /// leave in a call is the backlog's.
    /// - Parameters:
    ///   - flush: whatever may go is due.
    ///   - backlogAlone: whether a call may start for the backlog's sake.
    public mutating func next(
        now: ContinuousClock.Instant,
        flush: Bool,
        backlogAlone: Bool = true
    ) -> [SealedAggregate] {
        var (readyBytes, readyCount, isDue) = (0, 0, flush)
        var ready: [Int] = []
        for index in active where !queues[index].live.isEmpty {
            guard queues[index].blockedUntil(isBacklog: false, now: now) == nil else { continue }
            let line = queues[index].live
            ready.append(index)
            readyBytes += line.bytes
            readyCount += line.count
            if let head = line.head, head.firstReceipt + limits.linger <= now { isDue = true }
        }
        isDue = isDue || readyBytes >= limits.callBytes || readyCount >= limits.callRecords
        var call: [SealedAggregate] = []
        var size = 0
        if isDue { fill(&call, &size, from: ready, isBacklog: false, now) }
        count -= call.count
        bytes -= size

        let live = size
        if backlogBytes > 0, !call.isEmpty || (backlogAlone && (flush || backlogAfter <= now)) {
            fill(&call, &size, from: active.filter { !queues[$0].backlog.isEmpty }, isBacklog: true, now)
            backlogBytes -= size - live
            // Behind a full call there may be enough for another; else tokens gather for a linger.
            let isFull = backlogBytes > 0 && size > limits.callBytes / 2
            if size > live { backlogAfter = isFull ? now : now + limits.linger }
        }
        guard !call.isEmpty else { return [] }
        active.removeAll { queues[$0].isEmpty }
        // The next call begins with another shard, so that none is always last.
        if active.count > 1 { active.append(active.removeFirst()) }
        return call
    }

    private mutating func fill(
        _ call: inout [SealedAggregate],
        _ size: inout Int,
        from ready: [Int],
        isBacklog: Bool,
        _ now: ContinuousClock.Instant
    ) {
        var progress = true
        while progress, call.count < limits.callRecords {
            progress = false
            for index in ready where call.count < limits.callRecords {
                let head = isBacklog ? queues[index].backlog.head : queues[index].live.head
                guard let head, call.isEmpty || size + head.size <= limits.callBytes else { continue }
                guard queues[index].blockedUntil(isBacklog: isBacklog, now: now) == nil else { continue }
                call.append(queues[index].takeHead(isBacklog: isBacklog))
                size += head.size
                progress = true
            }
        }
    }

    /// When `next` may have something that it has not now; nil: not before something is added.
    public mutating func nextDue(
        now: ContinuousClock.Instant,
        flush: Bool,
        backlogAlone: Bool = true
    ) -> ContinuousClock.Instant? {
        var due: ContinuousClock.Instant?
        var ready: [(at: ContinuousClock.Instant, index: Int)] = []
        let mayFill = bytes >= limits.callBytes || count >= limits.callRecords
        for index in active {
            if backlogAlone, !queues[index].backlog.isEmpty {
                let free = queues[index].blockedUntil(isBacklog: true, now: now) ?? now
                let when = flush ? free : max(free, backlogAfter)
                due = min(due ?? when, when)
            }
            guard let head = queues[index].live.head else { continue }
            let free = queues[index].blockedUntil(isBacklog: false, now: now) ?? now
            let when = flush ? free : max(free, head.firstReceipt + limits.linger)
            due = min(due ?? when, when)
            if mayFill, !flush { ready.append((free, index)) }
        }
        guard let due, !ready.isEmpty else { return due }
        // Full calls do not wait for the linger, only until enough shards are free.
        var (readyBytes, readyCount) = (0, 0)
        for (at, index) in ready.sorted(by: { $0.at < $1.at }) {
            if at >= due { break }
            readyBytes += queues[index].live.bytes
            readyCount += queues[index].live.count
            if readyBytes >= limits.callBytes || readyCount >= limits.callRecords { return at }
        }
        return due
    }

    /// Takes everything that waits, in order, to queue it by another map.
    public mutating func takeAll() -> [SealedAggregate] {
        var all: [SealedAggregate] = []
        for index in active {
            all += queues[index].live.all + queues[index].backlog.all
            queues[index].live = Line()
            queues[index].backlog = Line()
        }
        active.removeAll()
        (count, bytes, backlogBytes) = (0, 0, 0)
        return all
    }

    /// Takes live aggregates that `mayGo`, the oldest first, until no more than `most` bytes of live ones wait: for the
    /// spool.
    public mutating func takeOldest(above most: Int, where mayGo: (SealedAggregate) -> Bool) -> [SealedAggregate] {
        guard bytes > most else { return [] }
        let all = active.flatMap { queues[$0].live.all }.sorted { $0.firstReceipt < $1.firstReceipt }
        var taken: [SealedAggregate] = []
        var left = bytes
        for aggregate in all where left > most && mayGo(aggregate) {
            taken.append(aggregate)
            left -= aggregate.size
        }
        let going = Set(taken.map { ObjectIdentifier($0) })
        for index in active { queues[index].live.keep { !going.contains(ObjectIdentifier($0)) } }
        active.removeAll { queues[$0].isEmpty }
        count -= taken.count
        bytes = left
        return taken
    }
}
