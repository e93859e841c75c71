public import Bytes

/// Sealed aggregates on their way out, shard by shard: which of them make the next call, and when.
///
/// A full or refusing shard holds back its own queue only; what the agent may send as a whole is the pacer's. Within a
/// shard aggregates leave in the order they came. What comes back from the spool has a line of its own behind each
/// shard's: it takes what the live records leave.
public struct Batcher {
    public struct Limits: Sendable {
        /// Bytes of a call: data and partition keys.
        public var callBytes = 1 << 20
        public var callRecords = 500
        /// From a record's receipt to its call's start.
        public var linger: Duration = .milliseconds(100)
        /// The part of a shard's own limits to use; nil: no pacing at all.
        public var shardShare: Double? = 1
        /// The part of a shard's burst that the backlog leaves for live records, so that they find room at once.
        public var liveReserve = 0.1
        /// Whether `takeAdded` tells what was queued: for whoever copies it.
        public var notesAdded = false
        /// Whether the records of a shard arrive in the order they came: one aggregate of it is under way at a time, since
        /// of several in a call one may be refused and the next be stored.
        public var isOrdered = false

        public init() {}
    }

    /// Why an aggregate comes back.
    public enum Refusal: Sendable {
        /// The shard has more than it can take.
        case throttled
        /// The shard failed.
        case failed
        /// The call failed: the shard did nothing wrong.
        case unanswered
    }

    private var limits: Limits
    public private(set) var map: ShardMap
    public private(set) var pacer: Pacer
    private var queues: [ShardQueue]
    /// Indices of the shards with something to send, in turn.
    private var active: [Int] = []
    /// When a call of backlog alone may start: full calls are cheaper than many small ones.
    private var backlogAfter: Instant

    private var added: [SealedAggregate] = []
    /// The hash keys of what is under way, where the order counts.
    private var underWay: [ObjectIdentifier: ClosedRange<HashKey>] = [:]
    /// Whether live records wait, because older ones come from the spool.
    public var holdsLive = false

    /// Live aggregates and bytes that wait.
    public private(set) var count = 0
    public private(set) var bytes = 0
    /// Bytes that came back from the spool and wait.
    public private(set) var backlogBytes = 0

    public init(_ limits: Limits, map: ShardMap, now: Instant) {
        (self.limits, self.map, backlogAfter) = (limits, map, now)
        pacer = Pacer(shards: map.count, Self.pacing(limits), now: now)
        queues = map.shards.map { _ in Self.queue(limits, now) }
    }

    private static func pacing(_ limits: Limits) -> Pacer.Limits {
        .init(shardShare: limits.shardShare, linger: limits.linger)
    }

    /// The part of a shard's burst that is never used: by so much records may overtake each other on their way.
    static let spared = 0.05

    private static func queue(_ limits: Limits, _ now: Instant) -> ShardQueue {
        var queue = ShardQueue()
        if let share = limits.shardShare {
            let bytes = share * Double(Kinesis.Limits.shardBytesPerSecond)
            let records = share * Double(Kinesis.Limits.shardRecordsPerSecond)
            queue.byteBucket = TokenBucket(rate: bytes, burst: bytes * (1 - spared), now: now)
            queue.recordBucket = TokenBucket(rate: records, burst: records * (1 - spared), now: now)
        }
        return queue
    }

    /// Goes over to another map, or other limits: shards that are still there keep what is known of them.
    ///
    /// A new one begins without a burst: it has its rate from the start, and what the service may grant it besides is for
    /// nobody to count on, because the whole fleet finds it at the same moment.
    /// - Returns: everything that waited, in order, to be queued by the new map.
    public mutating func adopt(
        _ map: ShardMap,
        _ limits: Limits,
        now: Instant
    ) -> [SealedAggregate] {
        let waiting = takeAll()
        let earlier = map.shards.map { self.map.index(of: $0.id) }
        queues = earlier.map { index in
            var queue = Self.queue(limits, now)
            queue.byteBucket?.takeOver(index.map { queues[$0].byteBucket } ?? nil, now: now)
            queue.recordBucket?.takeOver(index.map { queues[$0].recordBucket } ?? nil, now: now)
            if let index { queue.tally = queues[index].tally }
            return queue
        }
        pacer.adopt(earlier, Self.pacing(limits))
        (self.map, self.limits) = (map, limits)
        for hashes in underWay.values { note(hashes, 1) }
        return waiting
    }

    /// Bytes of a call from now on.
    public mutating func limitCalls(to bytes: Int) { limits.callBytes = bytes }

    // MARK: order

    /// Counts what is under way at every shard that may get later records of the same keys.
    private mutating func note(_ hashes: ClosedRange<HashKey>, _ change: Int) {
        let last = map.index(of: hashes.upperBound)
        for index in map.index(of: hashes.lowerBound)...last { queues[index].underWay += change }
    }

    /// Notes that it is decided what becomes of an aggregate that was sent: later ones of its keys may go.
    public mutating func decided(_ aggregate: SealedAggregate) {
        // Whatever the limits say by now: those that were sent in order still hold up their shards.
        guard !underWay.isEmpty, let hashes = underWay.removeValue(forKey: ObjectIdentifier(aggregate)) else { return }
        note(hashes, -1)
    }

    // MARK: queues

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

    /// Puts aggregates of one shard back in front, in the order they were in.
    public mutating func putBack(_ aggregates: [SealedAggregate], to index: Int) {
        guard !aggregates.isEmpty else { return }
        if queues[index].isEmpty { active.append(index) }
        let live = aggregates.filter { !$0.isBacklog }
        let backlog = aggregates.filter(\.isBacklog)
        queues[index].live.putBack(live)
        queues[index].backlog.putBack(backlog)
        count += live.count
        bytes += live.reduce(0) { $0 + $1.size }
        backlogBytes += backlog.reduce(0) { $0 + $1.size }
    }

    /// Notes that the shard with `index` took a record of so many bytes.
    public mutating func succeeded(_ index: Int, bytes: Int, now: Instant) {
        queues[index].tally.records += 1
        queues[index].tally.bytes += bytes
        pacer.succeeded(index, now: now)
    }

    /// Notes that the shard with `index` did not take `aggregate`, which is put back by `putBack`.
    ///
    /// - Parameter chance: evenly drawn from 0 to 1.
    public mutating func refused(
        _ aggregate: SealedAggregate,
        by index: Int,
        because refusal: Refusal,
        chance: Double,
        now: Instant
    ) {
        switch refusal {
        case .throttled:
            queues[index].tally.throttled += 1
            pacer.throttled(index, bytes: aggregate.size, chance: chance, now: now)
        case .failed:
            queues[index].tally.failed += 1
            pacer.failed(index, chance: chance, now: now)
        case .unanswered: break
        }
    }

    /// How much room a shard has; the least is the best.
    struct Room: Comparable {
        /// It cools down until then.
        var heldUntil: Instant?
        var refusals: Int
        /// Whole aggregates that wait for it.
        var waiting: Int

        static func < (left: Self, right: Self) -> Bool {
            if left.heldUntil != right.heldUntil {
                guard let leftHeld = left.heldUntil else { return true }
                guard let rightHeld = right.heldUntil else { return false }
                return leftHeld < rightHeld
            }
            return (left.refusals, left.waiting) < (right.refusals, right.waiting)
        }
    }

    func room(of index: Int, now: Instant) -> Room {
        Room(
            heldUntil: pacer.heldUntil(index, now: now),
            refusals: pacer.refusals(of: index, now: now),
            waiting: queues[index].live.count
        )
    }

    /// What is known of the shard with `index`, for people to look at.
    public func report(on index: Int, now: Instant) -> ShardReport {
        ShardReport(
            shard: map.shards[index],
            tally: queues[index].tally,
            bytesQueued: queues[index].live.bytes + queues[index].backlog.bytes,
            coolsFor: pacer.heldUntil(index, now: now).map { $0 - now }
        )
    }

    /// Bytes a second that may go: what the stream's other senders leave, within what its shards take; nil without pacing.
    public var rate: Double? {
        limits.shardShare.map { min(pacer.rate, $0 * Double(map.count * Kinesis.Limits.shardBytesPerSecond)) }
    }

    /// The receipt of the oldest live record that waits.
    public var oldestReceipt: Instant? { active.compactMap { queues[$0].live.head?.firstReceipt }.min() }

    /// How long a record may wait until its call starts.
    public var linger: Duration { pacer.linger }

    /// Whether enough waits to be sent for some time: more taken in now would only wait here.
    ///
    /// What waits for a shard that cools down, or more than a shard takes soon, counts for nothing, so that such a shard
    /// does not keep records from the others; memory is the caller's to watch.
    public func isSupplied(now: Instant) -> Bool {
        var enough = 4 * limits.callBytes
        let most = soon(now)
        if limits.shardShare != nil {
            let aggregate = pacer.aggregateSize(most: Self.usualAggregate, now: now)
            enough = min(enough, max(2 * aggregate, Int(pacer.rate / 4)))
        }
        guard bytes >= min(enough, most) else { return false }
        var (ready, isFull) = (0, true)
        for index in queues.indices where pacer.heldUntil(index, now: now) == nil {
            let waiting = queues[index].live.bytes
            ready += min(waiting, most)
            isFull = isFull && waiting >= most
            if ready >= enough { return true }
        }
        // None has room for more.
        return isFull && bytes >= enough
    }

    private static let usualAggregate = 50 << 10

    /// Bytes that a shard takes soon.
    private func soon(_ now: Instant) -> Int {
        guard let share = limits.shardShare else { return .max }
        return max(2 * Self.usualAggregate, Int(share * Double(Kinesis.Limits.shardBytesPerSecond) / 4))
    }

    /// When the head of a line may go; nil: now, or there is none.
    private mutating func blockedUntil(
        _ index: Int,
        isBacklog: Bool,
        now: Instant
    ) -> Instant? {
        guard queues[index].hasHead(isBacklog: isBacklog) else { return nil }
        // The answer that ends this comes by itself.
        if queues[index].underWay > 0 || holdsLive && !isBacklog { return now + .seconds(60) }
        if let held = pacer.heldUntil(index, now: now) { return held }
        let wait = queues[index].wait(isBacklog: isBacklog, sparing: isBacklog ? limits.liveReserve : 0, now: now)
        return wait.map { now + $0 }
    }

    /// Whether a call leaves now because its oldest record has waited for the linger, and has room for an aggregate of so
    /// many bytes to the shard with `index`.
    ///
    /// Never under pressure: there a small aggregate costs the stream as much as a large one.
    public mutating func takesAlong(_ size: Int, to index: Int, now: Instant) -> Bool {
        guard count > 0, count < limits.callRecords, bytes + size <= limits.callBytes else { return false }
        guard !pacer.isLimited(now: now), pacer.wait(now: now) == nil else { return false }
        guard pacer.heldUntil(index, now: now) == nil, queues[index].underWay == 0,
            queues[index].takesAll(with: size, now: now)
        else { return false }
        return active.contains { index in
            guard let head = queues[index].live.head, head.firstReceipt + pacer.linger <= now else { return false }
            return blockedUntil(index, isBacklog: false, now: now) == nil
        }
    }

    /// Takes the aggregates of the next call; empty when none is due.
    ///
    /// A call is due when it is full, or when its oldest record has waited for the linger. What room the live records
    /// leave in a call is the backlog's.
    /// - Parameters:
    ///   - flush: whatever may go is due.
    ///   - backlogAlone: whether a call may start for the backlog's sake.
    public mutating func next(
        now: Instant,
        flush: Bool,
        backlogAlone: Bool = true
    ) -> [SealedAggregate] {
        guard !active.isEmpty else { return [] }
        let isPaced = pacer.wait(now: now) != nil
        var (readyBytes, readyCount, isDue) = (0, 0, flush)
        var ready: [Int] = []
        for index in active where !queues[index].live.isEmpty {
            guard blockedUntil(index, isBacklog: false, now: now) == nil else { continue }
            ready.append(index)
            readyBytes += queues[index].live.bytes
            readyCount += queues[index].live.count
            if let head = queues[index].live.head, head.firstReceipt + pacer.linger <= now { isDue = true }
        }
        isDue = isDue || readyBytes >= limits.callBytes || readyCount >= limits.callRecords
        let mayBacklog = backlogBytes > 0 && backlogAlone && (flush || backlogAfter <= now)
        if isPaced {
            if (isDue && !ready.isEmpty) || mayBacklog { pacer.ranOut(now: now) }
            return []
        }
        var call: [SealedAggregate] = []
        var size = 0
        if isDue { fill(&call, &size, from: ready, isBacklog: false, now) }
        count -= call.count
        bytes -= size

        let live = size
        if backlogBytes > 0, !call.isEmpty || mayBacklog {
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
        _ now: Instant
    ) {
        var progress = true
        while progress, call.count < limits.callRecords {
            progress = false
            for index in ready where call.count < limits.callRecords {
                let head = isBacklog ? queues[index].backlog.head : queues[index].live.head
                guard let head, call.isEmpty || size + head.size <= limits.callBytes else { continue }
                guard blockedUntil(index, isBacklog: isBacklog, now: now) == nil else { continue }
                guard pacer.mayGo else { return pacer.ranOut(now: now) }
                pacer.sent(head.size, to: index, now: now)
                let aggregate = queues[index].takeHead(isBacklog: isBacklog)
                if limits.isOrdered {
                    underWay[ObjectIdentifier(aggregate)] = aggregate.hashes
                    note(aggregate.hashes, 1)
                }
                call.append(aggregate)
                size += head.size
                progress = true
            }
        }
    }

    /// When `next` may have something that it has not now; nil: not before something is added.
    public mutating func nextDue(
        now: Instant,
        flush: Bool,
        backlogAlone: Bool = true
    ) -> Instant? {
        var due: Instant?
        var ready: [(at: Instant, index: Int)] = []
        let mayFill = bytes >= limits.callBytes || count >= limits.callRecords
        for index in active {
            if backlogAlone, !queues[index].backlog.isEmpty {
                let free = blockedUntil(index, isBacklog: true, now: now) ?? now
                let when = flush ? free : max(free, backlogAfter)
                due = min(due ?? when, when)
            }
            guard let head = queues[index].live.head else { continue }
            let free = blockedUntil(index, isBacklog: false, now: now) ?? now
            let when = flush ? free : max(free, head.firstReceipt + pacer.linger)
            due = min(due ?? when, when)
            if mayFill, !flush { ready.append((free, index)) }
        }
        let paced = now + (pacer.wait(now: now) ?? .zero)
        due = due.map { max($0, paced) }
        guard let due, !ready.isEmpty else { return due }
        // Full calls do not wait for the linger, only until enough shards are free.
        var (readyBytes, readyCount) = (0, 0)
        for (at, index) in ready.sorted(by: { $0.at < $1.at }) {
            if at >= due { break }
            readyBytes += queues[index].live.bytes
            readyCount += queues[index].live.count
            if readyBytes >= limits.callBytes || readyCount >= limits.callRecords { return max(at, paced) }
        }
        return due
    }

    /// Takes everything that waits, in order, to queue it by another map.
    public mutating func takeAll() -> [SealedAggregate] {
        var all: [SealedAggregate] = []
        for index in active {
            all += queues[index].live.all + queues[index].backlog.all
            queues[index].live = AggregateLine()
            queues[index].backlog = AggregateLine()
        }
        active.removeAll()
        (count, bytes, backlogBytes) = (0, 0, 0)
        // They will be queued, and noted, again.
        let going = Set(all.map { ObjectIdentifier($0) })
        added.removeAll { going.contains(ObjectIdentifier($0)) }
        return all
    }

    /// Takes live aggregates that `mayGo`, the oldest first, until no more than `most` bytes of live ones wait: for the
    /// spool.
    ///
    /// Unless that is 0 one is left, however long it is: by that it is found out whether the endpoint answers again.
    /// What comes back from there goes before what has stayed. In order, so, none leaves while an earlier one of its shard
    /// is under way or stays.
    public mutating func takeOldest(above most: Int, where mayGo: (SealedAggregate) -> Bool) -> [SealedAggregate] {
        guard bytes > most else { return [] }
        guard limits.isOrdered else {
            return take(from: active.flatMap { queues[$0].live.all }, above: most, where: mayGo)
        }
        let free = active.filter { queues[$0].underWay == 0 }
        return take(from: free.flatMap { queues[$0].live.all.prefix(while: mayGo) }, above: most) { _ in true }
    }

    /// Takes live aggregates that `mayGo` and whose shard refuses what it gets: the oldest first, until no more than
    /// `most` bytes of live ones wait.
    ///
    /// For the spool, so that such a shard does not keep memory from the others. One that only has more than its rate
    /// keeps its own: what was read too early from a file need not be written to another.
    public mutating func takeExcess(
        above most: Int,
        now: Instant,
        where mayGo: (SealedAggregate) -> Bool
    ) -> [SealedAggregate] {
        guard bytes > most else { return [] }
        let refusing = active.filter { pacer.heldUntil($0, now: now) != nil || pacer.refusals(of: $0, now: now) > 1 }
        return take(from: refusing.flatMap { queues[$0].live.all }, above: most, where: mayGo)
    }

    private mutating func take(
        from candidates: [SealedAggregate],
        above most: Int,
        where mayGo: (SealedAggregate) -> Bool
    ) -> [SealedAggregate] {
        var taken: [SealedAggregate] = []
        var left = bytes
        for aggregate in candidates.sorted(by: { $0.firstReceipt < $1.firstReceipt })
        where left > most && (most == 0 || left > aggregate.size) && mayGo(aggregate) {
            taken.append(aggregate)
            left -= aggregate.size
        }
        guard !taken.isEmpty else { return [] }
        let going = Set(taken.map { ObjectIdentifier($0) })
        for index in active { queues[index].live.keep { !going.contains(ObjectIdentifier($0)) } }
        active.removeAll { queues[$0].isEmpty }
        count -= taken.count
        bytes = left
        return taken
    }
}
