import Bytes
import Kinesis
import Logging
import Platform
import Synchronization

// Concurrency: a lane belongs to one thread, and nothing in it is locked or shared but the far ends of its rings, the
// checkpoints, and the counters. It never blocks but in `sleep`.

/// What happens to a record between its ring and its acknowledgement, top to bottom.
///
///     ring ─▶ aggregator ─▶ rate limiter ─▶ batcher ─▶ caller ─▶ Kinesis
///                                                         │
///                            checkpoints ◀── settlement ◀─┘
struct Lane: ~Copyable {
    private let feeds: [Feed]
    private var readers: FixedArray<RingReader>
    private var stage: Stage?
    private let caller: KinesisCaller
    private let settlement: Settlement
    private let ledger: Ledger
    private let backlog: Backlog
    private var isSpooling = false
    private var isSpoolFull = false
    /// Calls in flight that carry nothing but what came back from the spool.
    private var backlogCalls = 0
    private let keys: SourceKeys
    private var shards: ShardMapLoader
    private let shardMapPath: String
    private let pool: BufferPool
    private let output: Configuration.Output
    private let control: LaneControl
    private let counters: Counters
    private let log: Logger
    private var random: SplitMix64

    /// Bytes of aggregates, open, waiting and in flight, above which the rings are left alone.
    private let memoryBudget: Int
    /// No call starts before: the endpoint failed as a whole.
    private var heldUntil: ContinuousClock.Instant?
    private var endpointBackoff = Backoff()
    private var failingSince: ContinuousClock.Instant?
    private var toldFallback = false
    /// Stored where the map does not explain it, until the map is fresh.
    private var awaitingMap: [(aggregate: SealedAggregate, result: PutRecords.Result)] = []

    /// Shards that an earlier map held: calls that were under way may still name them.
    private var closed: [ShardID: ClosedRange<HashKey>] = [:]

    /// What depends on the shard map.
    private final class Stage {
        var aggregator: Aggregator
        var batcher: Batcher

        init(_ aggregator: consuming Aggregator, _ batcher: consuming Batcher) {
            self.aggregator = aggregator
            self.batcher = batcher
        }
    }

    /// Bytes taken out of a ring before calls have their turn.
    private static let drain = 512 << 10
    /// How long the endpoint must have failed before what waits goes to the spool.
    private static let spillGrace: Duration = .seconds(1)

    init(
        feeds: [Feed],
        output: Configuration.Output,
        caller: KinesisCaller,
        checkpoints: Checkpoints,
        ledger: Ledger,
        spool: Spool,
        shardMapPath: String,
        control: LaneControl,
        memoryBudget: Int,
        counters: Counters,
        log: Logger,
        seed: UInt64
    ) {
        (self.feeds, self.output, self.caller, self.control) = (feeds, output, caller, control)
        (self.memoryBudget, self.counters, self.log) = (memoryBudget, counters, log)
        readers = FixedArray(count: feeds.count) { RingReader(feeds[$0].ring) }
        (self.ledger, self.shardMapPath) = (ledger, shardMapPath)
        settlement = Settlement(checkpoints, ledger)
        backlog = Backlog(spool, settlement)
        isSpooling = backlog.isEmpty == false
        keys = SourceKeys(output.partitionKey, checkpoints)
        shards = ShardMapLoader(stream: output.stream)
        pool = BufferPool(mostKept: 8 << 20)
        random = SplitMix64(seed: seed)
    }

    /// Runs until everything is delivered and no more will come, or until it is told to give up.
    mutating func run() {
        var end: LaneControl.End?
        // The last good map is better than none, until Kinesis has told.
        if let map = ShardMapFile.load(shardMapPath, of: streamPlace) { adopt(map, .now) }
        while end == nil {
            let now = ContinuousClock.now
            loadShardMap(now)
            let drained = drainRings(now)
            sealDue(now)
            exchangeWithSpool(now)
            startCalls(now)
            caller.perform()
            takeReplies()
            askForBacklog()
            report()
            end = isDone(.now)
            if end == nil, !drained { sleep() }
        }
        caller.cancelAll()
        backlog.stop(pool)
        control.finish(end!)
    }

    // MARK: ring → aggregator

    /// Moves what waits in the rings into aggregates, as far as memory allows.
    ///
    /// True when there was something.
    private mutating func drainRings(_ now: ContinuousClock.Instant) -> Bool {
        guard stage != nil, hasRoom else { return false }
        var drained = 0
        for index in feeds.indices {
            let taken = drainRing(index, now)
            guard taken > 0 else { continue }
            drained += taken
            feeds[index].announceRoom(readers[index])
        }
        return drained > 0
    }

    private mutating func drainRing(_ index: Int, _ now: ContinuousClock.Instant) -> Int {
        guard let stage else { return 0 }
        let (settlement, keys, input) = (settlement, keys, feeds[index].input)
        let account = ledger.number(of: input.name)
        stage.aggregator.limitLines(to: input.maxRecord, truncates: input.onOversize == .truncate)
        var bytes = 0
        // What is settled must have been read before, in the ledger too.
        var skipped: [RingEntry] = []
        let drained = readers[index].drain(Self.drain) { payload, entry in
            settlement.drained(entry.source, first: entry.first, end: entry.end, input: account)
            bytes += Int(entry.end - entry.first)
            switch EntryKind(rawValue: entry.kind) {
            case .lines:
                stage.aggregator.take(
                    lines: payload,
                    under: keys.key(of: entry.source),
                    source: entry.source,
                    position: entry.first,
                    receipt: now,
                    into: &stage.batcher
                )
            case .record:
                stage.aggregator.take(
                    record: payload,
                    under: keys.key(of: entry.source),
                    from: Run(source: entry.source, first: entry.first, end: entry.end),
                    receipt: now,
                    into: &stage.batcher
                )
            case .skipped, nil: skipped.append(entry)
            }
            return true
        }
        let counts = stage.aggregator.takeCounts()
        ledger.read(.init(records: counts.records, bytes: bytes), of: account)
        for entry in skipped { settlement.skip(entry.source, first: entry.first, end: entry.end) }
        counters.lane.records.add(counts.records)
        counters.lane.bytes.add(counts.bytes)
        counters.collectors.linesOversize.add(counts.oversize)
        return drained
    }

    /// Whether more may be taken in: a few calls' worth ready to go is enough, whatever the memory.
    private var hasRoom: Bool {
        guard let stage else { return false }
        return stage.batcher.bytes < 4 * output.callMaxSize && pool.used < memoryBudget
    }

    // MARK: aggregator → batcher → call

    private mutating func sealDue(_ now: ContinuousClock.Instant) {
        guard let stage else { return }
        if noMoreWillCome {
            stage.aggregator.sealAll(into: &stage.batcher, now: now)
        } else {
            stage.aggregator.sealDue(before: now - output.linger, into: &stage.batcher, now: now)
        }
        // No memory for more: a call of the largest makes some.
        while pool.used >= memoryBudget, stage.batcher.bytes < output.callMaxSize, !stage.aggregator.isEmpty {
            stage.aggregator.sealLargest(into: &stage.batcher, now: now)
        }
    }

    private mutating func startCalls(_ now: ContinuousClock.Instant) {
        if let heldUntil {
            guard now >= heldUntil else { return }
            self.heldUntil = nil
        }
        while caller.inFlight < mostInFlight {
            let call = stage?.batcher.next(now: now, flush: noMoreWillCome, backlogAlone: mayCallForBacklog) ?? []
            guard !call.isEmpty else { return }
            counters.lane.calls.add(1)
            if call.allSatisfy(\.isBacklog) { backlogCalls += 1 }
            do { try caller.start(.putRecords(call)) } catch {
                return takeFailure(of: .putRecords(call), error, now)
            }
        }
    }

    /// An endpoint that fails is probed, not hammered.
    private var mostInFlight: Int { failingSince == nil ? output.maxInFlight : 1 }

    /// Half of the calls are kept for live records; a lane that ends leaves the rest to the next run.
    private var mayCallForBacklog: Bool {
        backlogCalls < max(1, output.maxInFlight / 2) && (control.once || !isStopping)
    }

    private var isStopping: Bool { control.deadline != nil }

    // MARK: the spool

    /// Gives the spool what cannot be delivered, and takes back what can.
    private mutating func exchangeWithSpool(_ now: ContinuousClock.Instant) {
        place(backlog.exchange(pool, now: now))
        guard stage != nil else { return }
        if isSpooling, failingSince == nil, backlog.isEmpty == true {
            isSpooling = false
            log.notice("everything that was spooled is delivered", metadata: ["stream": "\(output.stream)"])
        }
        if output.spool.when == .always { copyAdded() }
        if let failingSince, now - failingSince >= Self.spillGrace || !hasRoom || isStopping { spill() }
    }

    /// Tells the spool what was delivered, and asks for what can be sent now: some calls' worth.
    private func askForBacklog() {
        backlog.tellDelivered()
        guard let stage else { return }
        if failingSince != nil || (isStopping && !control.once) {
            backlog.want(0)
        } else {
            let window = max(2 * output.callMaxSize, min(16 << 20, memoryBudget / 4))
            backlog.want(stage.batcher.backlogBytes * 2 < window ? window - backlog.bytesInMemory : 0)
        }
    }

    /// Copies what was sealed, as far as the disk has room; it is sent nevertheless.
    private mutating func copyAdded() {
        guard let stage else { return }
        var room = backlog.room
        let copied = stage.batcher.takeAdded().filter { aggregate in
            room -= aggregate.size + Self.spoolOverhead
            return room > 0
        }
        backlog.write(copied, isHeld: true)
    }

    /// Moves what waits to the spool, but for a call to probe the endpoint with: the newest, so that positions move.
    private mutating func spill() {
        guard let stage else { return }
        let kept = isStopping ? 0 : output.callMaxSize
        guard stage.batcher.bytes > kept else { return }
        var room = backlog.room
        var isFull = false
        let going = stage.batcher.takeOldest(above: kept) { aggregate in
            // One that is being written is waited for; of a piece the whole has a copy, or none.
            if aggregate.isPiece { return false }
            if aggregate.origin.hasCopy { return aggregate.origin.copy != nil }
            guard room > aggregate.size + Self.spoolOverhead else {
                isFull = true
                return false
            }
            room -= aggregate.size + Self.spoolOverhead
            return true
        }
        if isFull, !isSpoolFull {
            log.error("the spool is full: inputs wait", metadata: ["stream": "\(output.stream)"])
        }
        isSpoolFull = isFull
        guard !going.isEmpty else { return }
        if !isSpooling {
            log.notice("what cannot be delivered goes to the spool", metadata: ["stream": "\(output.stream)"])
        }
        isSpooling = true
        backlog.letGo(going.filter(\.origin.hasCopy))
        backlog.write(going.filter { !$0.origin.hasCopy }, isHeld: false)
        counters.lane.aggregatesSpooled.add(going.count)
    }

    /// What a record of the spool takes beside its data, at most, but for very many files in one aggregate.
    private static let spoolOverhead = 4096

    /// Every collector has ended and every ring is empty: what is open is all there is.
    private var noMoreWillCome: Bool {
        for index in feeds.indices {
            guard feeds[index].isFinished.load(ordering: .acquiring), readers[index].isEmpty else { return false }
        }
        return true
    }

    // MARK: answers

    private mutating func takeReplies() {
        var replies: [KinesisCaller.Reply] = []
        caller.replies { replies.append($0) }
        for reply in replies {
            let now = ContinuousClock.now
            switch reply {
            case .putRecords(let records, let results):
                if records.allSatisfy(\.isBacklog) { backlogCalls -= 1 }
                succeeded()
                takeResults(Array(zip(records, results)), mapIsFresh: false, now)
            case .control(_, let value, let answer):
                succeeded()
                takeShards(value, answer, now)
            case .failed(let request, let failure): takeFailure(of: request, failure, now)
            }
        }
        if caller.fellBackToJSON { tellFallback() }
    }

    private mutating func takeResults(
        _ results: [(SealedAggregate, PutRecords.Result)],
        mapIsFresh: Bool,
        _ now: ContinuousClock.Instant
    ) {
        guard let stage else { return }
        var again: [Int: [SealedAggregate]] = [:]
        var displaced: [SealedAggregate] = []
        var (records, bytes, aggregates, throttled) = (0, 0, 0, 0)
        for (aggregate, result) in results {
            let verdict = Delivery.verdict(
                on: result,
                of: aggregate.hashes,
                by: stage.batcher.map,
                closed: closed,
                mapIsFresh: mapIsFresh
            )
            switch verdict {
            case .settled:
                stage.batcher.succeeded(stage.batcher.map.index(of: aggregate.hashes.lowerBound))
                backlog.settle(aggregate)
                records += aggregate.recordCount
                bytes += aggregate.userBytes
                aggregates += 1
            case .awaitMap:
                awaitingMap.append((aggregate, result))
                shards.refresh()
            case .regroup:
                counters.lane.misplaced.add(1)
                counters.lane.duplicatesPossible.add(aggregate.recordCount)
                regroup(aggregate)
            case .retry(let isThrottled):
                throttled += isThrottled ? 1 : 0
                if let shard = stage.batcher.map.index(ofAll: aggregate.hashes) {
                    again[shard, default: []].append(aggregate)
                } else {
                    displaced.append(aggregate)
                }
                if case .refused(let error) = result {
                    log.debug("record was refused, sending it again", metadata: ["error": "\(error)"])
                }
            }
        }
        for (shard, aggregates) in again {
            stage.batcher.putBack(aggregates, to: shard, chance: random.nextUnit(), now: now)
        }
        place(displaced)
        counters.lane.recordsDelivered.add(records)
        counters.lane.bytesDelivered.add(bytes)
        counters.lane.aggregatesDelivered.add(aggregates)
        counters.lane.retried.add(again.values.reduce(displaced.count) { $0 + $1.count })
        counters.lane.throttled.add(throttled)
    }

    private mutating func succeeded() {
        if failingSince != nil { log.notice("Kinesis answers again", metadata: ["stream": "\(output.stream)"]) }
        failingSince = nil
        control.lastFailure = nil
        endpointBackoff.reset()
    }

    /// A call without a usable answer: everything in it is sent again, after a while.
    private mutating func takeFailure(
        of request: KinesisCaller.Request,
        _ failure: CallFailure,
        _ now: ContinuousClock.Instant
    ) {
        counters.lane.callsFailed.add(1)
        control.lastFailure = failure
        failingSince = failingSince ?? now
        // The calls that failed together are one failure: else two dozen in flight make the longest wait at once.
        let until: ContinuousClock.Instant
        if let heldUntil, heldUntil > now {
            until = heldUntil
        } else {
            until = now + endpointBackoff.next(chance: random.nextUnit())
            heldUntil = until
        }
        switch request {
        case .putRecords(let records):
            if records.allSatisfy(\.isBacklog) { backlogCalls -= 1 }
            if failure.mayHaveArrived {
                counters.lane.duplicatesPossible.add(records.reduce(0) { $0 + $1.recordCount })
            }
            counters.lane.retried.add(records.count)
            if let stage {
                let byShard = Dictionary(grouping: records) { stage.batcher.map.index(ofAll: $0.hashes) }
                for (shard, records) in byShard {
                    guard let shard else { continue }
                    stage.batcher.putBack(records, to: shard, chance: nil, now: now)
                }
                place(byShard[nil] ?? [])
            }
        case .control: shards.failed(until: until)
        }
        tell(failure)
    }

    private func tell(_ failure: CallFailure) {
        let metadata: Logger.Metadata = ["stream": "\(output.stream)", "reason": "\(failure)"]
        let error: ServiceError
        switch failure {
        case .transport: return log.error("Kinesis cannot be reached, trying again", metadata: metadata)
        case .distrusted:
            return log.error("Kinesis gave an answer that cannot be trusted, calling again", metadata: metadata)
        case .credentials: return log.error("there are no AWS credentials, looking again", metadata: metadata)
        case .service(let answered): error = answered
        }
        switch error.code {
        case "ResourceNotFoundException":
            log.error("the stream does not exist: create it, or correct stream and region", metadata: metadata)
        case "AccessDeniedException":
            log.error("access is denied: allow kinesis:PutRecords and kinesis:ListShards", metadata: metadata)
        case _ where error.kind == .credentials:
            log.error("the AWS credentials are not accepted: correct or renew them", metadata: metadata)
        default: log.error("Kinesis refused a call, trying again", metadata: metadata)
        }
    }

    private mutating func tellFallback() {
        guard !toldFallback else { return }
        toldFallback = true
        log.notice("the endpoint refuses CBOR, speaking JSON", metadata: ["stream": "\(output.stream)"])
    }

    // MARK: the shard map

    private mutating func loadShardMap(_ now: ContinuousClock.Instant) {
        guard heldUntil.map({ now >= $0 }) ?? true, let parameters = shards.nextCall(now: now) else { return }
        do { try caller.start(.control("ListShards", parameters)) } catch {
            takeFailure(of: .control("ListShards", parameters), error, now)
        }
    }

    private mutating func takeShards(_ value: WireValue, _ answer: [UInt8], _ now: ContinuousClock.Instant) {
        switch shards.take(value, answer.span, now: now) {
        case .more: break
        case .map(let map):
            if map != stage?.batcher.map { backlog.keep(map, of: streamPlace, at: shardMapPath) }
            adopt(map, now)
            let waiting = awaitingMap.map { ($0.aggregate, $0.result) }
            awaitingMap = []
            takeResults(waiting, mapIsFresh: true, now)
        case .unusable(let reason):
            log.warning("the list of shards is not usable, asking again", metadata: ["reason": "\(reason)"])
        }
    }

    /// The stream and where it is.
    private var streamPlace: String { "\(output.stream) at \(caller.endpoint.url)" }

    /// Goes over to a new map: what is open or waiting is placed by it.
    private mutating func adopt(_ map: ShardMap, _ now: ContinuousClock.Instant) {
        counters.lane.shards.set(map.count)
        var waiting: [SealedAggregate] = []
        if let old = stage {
            if old.batcher.map == map { return }
            log.notice(
                "the stream has other shards now",
                metadata: ["before": "\(old.batcher.map.count)", "now": "\(map.count)"]
            )
            old.aggregator.sealAll(into: &old.batcher, now: now)
            waiting = old.batcher.takeAll()
            for shard in old.batcher.map.shards where map.index(of: shard.id) == nil { closed[shard.id] = shard.range }
        }
        var limits = Batcher.Limits()
        limits.callBytes = output.callMaxSize
        limits.callRecords = output.callMaxRecords
        limits.linger = output.linger
        limits.notesAdded = output.spool.when == .always
        limits.shardShare = output.rateLimit == 0 ? nil : Double(output.rateLimit) / 100
        var sizes = Aggregator.Limits()
        sizes.size = output.aggregateMaxSize
        sizes.records = output.aggregate ? output.aggregateMaxRecords : 1
        let placement: Aggregator.Placement =
            switch output.partitionKey {
            case .spread: .spread
            case .random: .random
            case .source, .host, .literal: .key
            }
        stage = Stage(
            Aggregator(placement, sizes, map: map, pool: pool, seed: random.next()),
            Batcher(limits, map: map, now: now)
        )
        place(waiting)
    }

    private mutating func place(_ aggregates: [SealedAggregate]) {
        guard let stage else { return }
        for aggregate in aggregates {
            if let shard = stage.batcher.map.index(ofAll: aggregate.hashes) {
                stage.batcher.add(aggregate, to: shard)
            } else {
                regroup(aggregate)
            }
        }
    }

    private mutating func regroup(_ aggregate: SealedAggregate) {
        guard let stage else { return }
        let pieces = stage.aggregator.regroup(aggregate, pool: pool)
        if pieces.first?.aggregate !== aggregate { backlog.regrouped(aggregate, into: pieces.map(\.aggregate)) }
        for (piece, shard) in pieces { stage.batcher.add(piece, to: shard) }
    }

    // MARK: waiting and ending

    /// Sleeps until the network, a ring, or a deadline has something to do.
    private mutating func sleep() {
        let bell = feeds[0].laneBell
        bell.prepareToSleep()
        let now = ContinuousClock.now
        var wake = now + .seconds(60)
        if hasRoom, hasEntries { wake = now }
        let flush = noMoreWillCome
        if let stage {
            // The last collector has ended since the last look.
            if flush, !stage.aggregator.isEmpty { wake = now }
            if let oldest = stage.aggregator.oldestReceipt { wake = min(wake, oldest + output.linger) }
            // With every call taken, an answer is what to wait for.
            if caller.inFlight < mostInFlight {
                let due = stage.batcher.nextDue(now: now, flush: flush, backlogAlone: mayCallForBacklog)
                if let due { wake = min(wake, max(due, heldUntil ?? due)) }
            }
            if let failingSince, stage.batcher.bytes > output.callMaxSize {
                wake = min(wake, max(failingSince + Self.spillGrace, now + .milliseconds(100)))
            }
        }
        if let due = shards.nextDue { wake = min(wake, max(due, heldUntil ?? due)) }
        if let deadline = control.deadline { wake = min(wake, deadline) }
        if isDone(now) != nil { wake = now }
        if let failingSince, control.once { wake = min(wake, failingSince + control.patience) }
        caller.wait(for: bell, atMost: max(.zero, wake - now))
        bell.wake()
    }

    private var hasEntries: Bool {
        for index in feeds.indices where !readers[index].isEmpty { return true }
        return false
    }

    /// Whether the lane's work has ended, and how.
    private mutating func isDone(_ now: ContinuousClock.Instant) -> LaneControl.End? {
        if noMoreWillCome, caller.inFlight == 0, backlog.isIdle, ledger.total(.inFlight) == .init(),
            let isAll = backlog.isEmpty
        {
            if isAll { return .delivered }
            if !control.once { return .spooled }
        }
        if let deadline = control.deadline, now >= deadline { return .gaveUp(control.lastFailure) }
        if control.once, let failingSince {
            let failure = control.lastFailure
            if failure?.isPermanent ?? false || now - failingSince >= control.patience { return .gaveUp(failure) }
        }
        return nil
    }

    private func report() {
        var stage = 0
        if let taken = self.stage?.batcher.bytes { stage = taken }
        counters.lane.bytesQueued.set(stage)
        counters.lane.inFlight.set(caller.inFlight)
    }
}
