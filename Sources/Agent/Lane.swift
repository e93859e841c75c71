import Bytes
import Kinesis
import Logging
import Platform

// Concurrency: a lane belongs to one thread, and nothing in it is locked or shared but the far ends of its rings, the
// spool's mailboxes, the checkpoints, the ledger and the counters. It never blocks but in `sleep`.

/// What happens to a record between its ring and its acknowledgement, top to bottom.
///
///     ring ─▶ aggregator ─▶ rate limiter ─▶ batcher ─▶ caller ─▶ Kinesis
///                                             │ ▲         │
///                                             ▼ │         ▼
///                                            spool ─▶ settlement ─▶ checkpoints
struct Lane: ~Copyable {
    private let intake: Intake
    /// Nil until there is a shard map.
    private var staging: Staging?
    /// Whether its map is only assumed, or was another stream's: nothing is sent by that.
    private var isMapAssumed = false
    /// Where the stream is that told it.
    private var mapPlace = ""
    private var caller: KinesisCaller
    private let ledger: Ledger
    private let backlog: Backlog
    /// Calls in flight that carry nothing but what came back from the spool.
    private var backlogCalls = 0
    /// Bytes of all calls in flight.
    private var bytesInFlight = 0
    private var shards: ShardMapLoader
    private var recordLimit: RecordLimit
    private let shardMapPath: String
    private let pool: BufferPool
    private var output: Configuration.Output
    private let control: LaneControl
    private let counters: Counters
    private let log: Logger
    private var random: SplitMix64
    private let bell: Doorbell
    private var spareMemory = SpareMemory(now: .now)

    /// Bytes for aggregates and what is kept for each shard.
    private var memoryBudget: Int
    private var breaker = Breaker()
    private var window: CallWindow
    private var suspects = Suspects()
    private var tally = LaneTally()
    private var toldFallback = false
    /// Stored where the map does not explain it, until the map is fresh.
    private var awaitingMap: [(aggregate: SealedAggregate, result: PutRecords.Result)] = []
    /// A change of the configuration that waits until no call is in flight.
    private var nextCaller: (@Sendable () -> KinesisCaller)?

    /// How long the endpoint must have failed before what waits goes to the spool.
    private static let spillGrace: Duration = .seconds(1)
    /// The most of a stop's time that is kept for the disk.
    private static let saving: Duration = .seconds(1)

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
        bell: Doorbell,
        counters: Counters,
        log: Logger,
        seed: UInt64
    ) {
        (self.output, self.caller, self.control) = (output, caller, control)
        (self.memoryBudget, self.counters, self.log, self.bell) = (memoryBudget, counters, log, bell)
        (self.ledger, self.shardMapPath) = (ledger, shardMapPath)
        let settlement = Settlement(checkpoints, ledger)
        backlog = Backlog(spool, settlement, counters, log)
        intake = Intake(
            feeds,
            output,
            settlement: settlement,
            backlog: backlog,
            ledger: ledger,
            checkpoints: checkpoints,
            counters: counters,
            log: log
        )
        random = SplitMix64(seed: seed)
        shards = ShardMapLoader(stream: output.stream, chance: random.nextUnit())
        recordLimit = RecordLimit(stream: output.stream, chance: random.nextUnit())
        window = Self.window(output)
        pool = BufferPool(mostKept: 8 << 20)
    }

    /// Runs until everything is delivered and no more will come, or until it is told to give up.
    mutating func run() {
        var end: LaneControl.End?
        // The last good map is better than none, until Kinesis has told.
        if let map = ShardMapFile.load(shardMapPath, of: streamPlace) { adopt(map, .now) }
        recallRecordLimit()
        while end == nil {
            let now = Instant.now
            control.pulse.answer(.lane)
            takeUpdate(now)
            askAboutStream(now)
            assumeShards(now)
            let drained = drainRings(now)
            sealDue(now)
            exchangeWithSpool(now)
            startCalls(now)
            caller.perform(following: following(now, recordsCome: drained))
            takeReplies()
            askForBacklog()
            // Behind the replies: the last of them may end the outage, and nothing wakes the lane again then.
            if !breaker.isFailing { backlog.tellWhenDelivered() }
            report()
            end = isDone(.now)
            if end == nil, !drained { sleep() }
        }
        // Collectors that stop still write what they have read; others would go on reading.
        if !isStopping { intake.abandon() }
        saveRest(.now)
        intake.abandon()
        backlog.stop(pool)
        if case .gaveUp = end!, isAllSettled { end = .spooled }
        control.finish(end!)
    }

    // MARK: ring → aggregator

    /// Moves what waits in the rings into aggregates, as far as memory allows.
    ///
    /// True when there was something.
    private mutating func drainRings(_ now: Instant) -> Bool {
        guard let staging else { return false }
        return intake.drain(into: staging, limit: recordLimit.bytes, now: now) { hasRoom(for: $0, now) }
    }

    /// Whether more may be taken in.
    ///
    /// What can be sent soon is enough, whatever the memory, where a source can wait. When memory is tight files wait first,
    /// then streams, so that there is some for datagrams, which cannot.
    private func hasRoom(for part: Feed.Part, _ now: Instant) -> Bool {
        guard let staging else { return false }
        let used = pool.used + backlog.bytesBuried
        switch part {
        case .udp, .unixgram: return used < budget
        case .files: guard used < (intake.hasSockets ? budget / 4 * 2 : budget) else { return false }
        case .streams: guard used < (intake.hasDatagrams ? budget / 4 * 3 : budget) else { return false }
        }
        // What the spool is to take has to be read first; one record is left to probe with, however long.
        if breaker.isFailing || isStopping {
            return staging.batcher.bytes < 4 * output.callMaxSize || staging.batcher.count <= 1
        }
        return !staging.batcher.isSupplied(now: now)
    }

    /// Bytes of aggregates, open, waiting and in flight, above which the rings are left alone.
    private var budget: Int {
        let perShard = (staging?.map.count ?? 0) * Staging.bytesPerShard
        return max(memoryBudget - perShard, memoryBudget / 4)
    }

    // MARK: aggregator → batcher → call

    private mutating func sealDue(_ now: Instant) {
        guard let staging else { return }
        if noMoreWillCome { staging.sealAll() } else { staging.sealDue(now: now) }
        // No memory for more: a call of the largest makes some.
        let missing = output.callMaxSize - staging.batcher.bytes
        if pool.used >= budget, missing > 0 { staging.sealLargest(missing) }
    }

    private mutating func startCalls(_ now: Instant) {
        while mayCall(now) {
            let call = nextCall(now)
            guard !call.isEmpty else { return }
            counters.lane.calls.add(1)
            if call.allSatisfy(\.isBacklog) { backlogCalls += 1 }
            do { try caller.start(.putRecords(call)) } catch {
                return takeFailure(of: .putRecords(call), error, now)
            }
            bytesInFlight += Self.size(call)
        }
    }

    private static func size(_ call: [SealedAggregate]) -> Int { call.reduce(0) { $0 + $1.size } }

    private mutating func nextCall(_ now: Instant) -> [SealedAggregate] {
        if let apart = nextSuspects(hasOthers: true) { return apart }
        staging?.batcher.limitCalls(to: window.callBytes)
        let flush = noMoreWillCome
        staging?.sealAlong(now: now)
        copyAdded()
        let next = staging?.batcher.next(now: now, flush: flush, backlogAlone: mayCallForBacklog) ?? []
        let call = withoutTooLong(next)
        return call.isEmpty ? nextSuspects(hasOthers: false) ?? [] : call
    }

    private mutating func nextSuspects(hasOthers: Bool) -> [SealedAggregate]? {
        while let apart = suspects.next(hasOthers: hasOthers) {
            let call = withoutTooLong(apart)
            if !call.isEmpty { return call }
        }
        return nil
    }

    /// Leaves out what the stream has told it does not take: it would refuse the whole call.
    ///
    /// Such records come from the spool, or were taken in before the stream's limit was lowered.
    private mutating func withoutTooLong(_ call: [SealedAggregate]) -> [SealedAggregate] {
        guard let most = recordLimit.told, call.contains(where: { $0.size > most }) else { return call }
        for aggregate in call where aggregate.size > most {
            staging?.batcher.decided(aggregate)
            suspects.forget(aggregate)
            backlog.bury(aggregate, reason: "longer than the stream takes")
        }
        return call.filter { $0.size <= most }
    }

    private static func window(_ output: Configuration.Output) -> CallWindow {
        CallWindow(most: output.maxInFlight, mostBytes: output.callMaxSize, timeout: output.timeout, now: .now)
    }

    private func mayCall(_ now: Instant) -> Bool {
        nextCaller == nil && !isMapAssumed && breaker.mayCall(inFlight: load, most: window.calls, now: now)
    }

    private func following(_ now: Instant, recordsCome: Bool) -> KinesisCaller.Following {
        guard mayCall(now) else { return .none }
        return recordsCome ? .soon(within: output.linger) : .perhaps(within: output.linger)
    }

    /// Calls in flight; one that carries a long record counts as so many as would carry its bytes.
    private var load: Int { max(caller.inFlight, bytesInFlight / largestUsualCall) }

    private var largestUsualCall: Int { max(output.callMaxSize, Limits.recordBytes) }

    /// Half of the calls are kept for live records; a lane that ends leaves the rest to the next run.
    private var mayCallForBacklog: Bool {
        backlogCalls < max(1, window.calls / 2) && (control.once || !isStopping)
    }

    private var isStopping: Bool { control.deadline != nil }

    /// When a lane that stops gives the spool what it has not delivered by then: the last third of its time, or half where no
    /// file has it.
    private var closesAt: Instant? {
        backlog.isOn ? control.deadline.map { $0 - control.patience / (intake.hasSockets ? 2 : 3) } : nil
    }

    /// When a lane that stops must give up what is under way: the disk takes time, too.
    private var givesUpAt: Instant? {
        control.deadline.map { $0 - (backlog.isOn ? min(Self.saving, control.patience / 10) : .zero) }
    }

    /// Every collector has ended and every ring is empty: what is open is all there is.
    private var noMoreWillCome: Bool { intake.isOver }

    // MARK: the spool

    /// Gives the spool what cannot be delivered, and takes back what can.
    private mutating func exchangeWithSpool(_ now: Instant) {
        let (owed, refused) = backlog.exchange(pool, now: now)
        guard let staging else { return }
        note(staging.putBack(refused, because: .unanswered, random: &random, now: now))
        note(staging.place(owed))
        copyAdded()
        if let closesAt, now >= closesAt {
            spillAll(now)
        } else if let since = breaker.failingSince {
            let mayWait = hasRoom(for: .files, now) && !isStopping && !isMapAssumed && now - since < Self.spillGrace
            // In order, the oldest of all is what to probe with: it comes back from the spool.
            let kept = isStopping || output.ordered || isMapAssumed ? 0 : output.callMaxSize
            if !mayWait { backlog.spill(.all(but: kept), of: &staging.batcher) }
        } else {
            // A shard that takes nothing must not hold the memory that the others need; in order it holds up the rest.
            if !output.ordered { backlog.spill(.excess(above: budget / 2, now: now), of: &staging.batcher) }
            // Nor may what comes faster than the stream takes it, from those who cannot wait.
            if intake.hasDatagrams, pool.used > budget / 8 * 5 {
                let surplus = pool.used - budget / 2
                backlog.spill(.all(but: max(output.callMaxSize, staging.batcher.bytes - surplus)), of: &staging.batcher)
            }
        }
        staging.batcher.holdsLive = output.ordered && backlog.hasOlder
    }

    /// Has everything copied that is new to the batcher, where everything goes to the spool first.
    private func copyAdded() {
        if output.spool.when == .always, let staging { backlog.copy(staging.batcher.takeAdded()) }
    }

    /// Moves everything to the spool that is not under way.
    private mutating func spillAll(_ now: Instant, isLast: Bool = false) {
        guard let staging else { return }
        takeBack(suspects.takeAll(), now)
        backlog.spill(.all(but: 0), of: &staging.batcher, isLast: isLast)
    }

    /// Queues what was under way, in front of what waits.
    private mutating func takeBack(_ aggregates: [SealedAggregate], _ now: Instant) {
        guard let staging else { return }
        for aggregate in aggregates { staging.batcher.decided(aggregate) }
        note(staging.putBack(aggregates, because: .unanswered, random: &random, now: now))
    }

    /// At the end: breaks off what is under way, and gives it to the spool as well.
    private mutating func saveRest(_ now: Instant) {
        let brokenOff = caller.cancelAll()
        guard let staging, backlog.isOn else { return }
        let untold = brokenOff + awaitingMap.map(\.aggregate)
        awaitingMap = []
        counters.lane.duplicatesPossible.add(untold.reduce(0) { $0 + $1.recordCount })
        takeBack(untold, now)
        // What lies in the rings has no other place, either.
        let end = max(control.deadline ?? now, now + .milliseconds(200))
        repeat {
            staging.sealAll()
            spillAll(now, isLast: true)
        } while drainRings(now) && .now < end
    }

    /// Tells the spool what was delivered, and asks for what can be sent now: some calls' worth.
    private func askForBacklog() {
        backlog.tellDelivered()
        guard let staging else { return }
        if breaker.isFailing && !output.ordered || (isStopping && !control.once) {
            backlog.want(0)
        } else {
            let window = max(2 * output.callMaxSize, min(16 << 20, budget / 4))
            let room = window - backlog.bytesInMemory
            // Many at once, so that the spool's thread is not woken for each.
            backlog.want(staging.batcher.backlogBytes * 2 < window && room * 4 >= window ? room : 0)
        }
    }

    // MARK: answers

    private mutating func takeReplies() {
        var replies: [KinesisCaller.Reply] = []
        caller.replies { replies.append($0) }
        let wasFull = max(load, caller.inFlight + replies.count) >= window.calls
        for reply in replies {
            let now = Instant.now
            switch reply {
            case .putRecords(let records, let results, let took):
                tally.calls.add(took)
                if records.allSatisfy(\.isBacklog) { backlogCalls -= 1 }
                let size = Self.size(records)
                bytesInFlight -= size
                // What a long record takes says nothing of other calls.
                if size <= largestUsualCall {
                    window.answered(
                        after: took,
                        share: Double(size) / Double(window.callBytes),
                        isLimited: wasFull,
                        now: now
                    )
                }
                suspects.succeeded(records)
                succeeded()
                takeResults(Array(zip(records, results)), mapIsFresh: false, now)
            case .control(let operation, let value, let answer):
                succeeded()
                // Of another stream, maybe: asked again as soon as its caller is there.
                guard nextCaller == nil else { continue }
                if operation == Self.recordLimitCall {
                    takeRecordLimit(value, now)
                } else {
                    takeShards(value, answer, now)
                }
            case .failed(let request, let failure):
                if case .putRecords(let records) = request { bytesInFlight -= Self.size(records) }
                takeFailure(of: request, failure, now)
            }
        }
        counters.lane.duplicatesPossible.add(caller.takeRepeated())
        if caller.fellBackToJSON { tellFallback() }
    }

    private mutating func takeResults(
        _ results: [(SealedAggregate, PutRecords.Result)],
        mapIsFresh: Bool,
        _ now: Instant
    ) {
        guard let staging else { return }
        var (throttled, failed): ([SealedAggregate], [SealedAggregate]) = ([], [])
        var (records, bytes) = (0, 0)
        var settled: [SealedAggregate] = []
        for (aggregate, result) in results {
            let verdict = staging.verdict(on: result, of: aggregate, mapIsFresh: mapIsFresh)
            if verdict != .awaitMap { staging.batcher.decided(aggregate) }
            switch verdict {
            case .settled:
                staging.succeeded(aggregate, now: now)
                if !aggregate.isBacklog { tally.deliveries.add(now - aggregate.firstReceipt) }
                settled.append(aggregate)
                records += aggregate.recordCount
                bytes += aggregate.userBytes
            case .awaitMap:
                awaitingMap.append((aggregate, result))
                shards.refresh(closed: true)
            case .regroup:
                counters.lane.misplaced.add(1)
                counters.lane.duplicatesPossible.add(aggregate.recordCount)
                note([staging.regroup(aggregate, inFront: true)])
            case .retry(let isThrottled):
                if isThrottled { throttled.append(aggregate) } else { failed.append(aggregate) }
                if case .refused(let error) = result {
                    tally.count(error.code)
                    log.debug("record was refused, sending it again", metadata: ["error": "\(error)"])
                }
            }
        }
        backlog.settle(settled)
        note(staging.putBack(throttled, because: .throttled, random: &random, now: now))
        note(staging.putBack(failed, because: .failed, random: &random, now: now))
        counters.lane.recordsDelivered.add(records)
        counters.lane.bytesDelivered.add(bytes)
        counters.lane.aggregatesDelivered.add(settled.count)
        counters.lane.retried.add(throttled.count + failed.count)
        counters.lane.throttled.add(throttled.count)
    }

    private func note(_ regrouped: [Staging.Regrouped]) {
        for each in regrouped { backlog.regrouped(each.aggregate, into: each.pieces) }
        // Pieces stay in memory until they are delivered: what no file has shall outlive that. In order nothing is copied
        // before what is older.
        if intake.hasSockets, !output.ordered { backlog.copy(regrouped.filter(\.isWithoutCopy).map(\.aggregate)) }
    }

    private mutating func succeeded() {
        if breaker.succeeded() { log.notice("Kinesis answers again", metadata: ["stream": "\(output.stream)"]) }
        control.lastFailure = nil
    }

    /// A call without a usable answer: everything in it is sent again, after a while.
    private mutating func takeFailure(
        of request: KinesisCaller.Request,
        _ failure: CallFailure,
        _ now: Instant
    ) {
        counters.lane.callsFailed.add(1)
        tally.count(failure.code)
        control.lastFailure = failure
        switch request {
        case .putRecords(let records): takeFailure(ofSending: records, failure, now)
        case .control(Self.recordLimitCall, _): return takeFailureOfRecordLimit(failure, now)
        case .control:
            let chance = random.nextUnit()
            if failure.isOfMissingStream { distrustMap() }
            // By the map that there is records go on: whether they are taken their own calls tell. Where it explains their
            // answers no more, nothing does.
            if staging != nil, !isMapAssumed, awaitingMap.isEmpty {
                shards.failed(chance: chance, now: now)
            } else {
                shards.failed(until: breaker.failed(isPermanent: failure.isPermanent, chance: chance, now: now))
            }
        }
        log.error(failure.advice, metadata: ["stream": "\(output.stream)", "reason": "\(failure)"])
    }

    private mutating func takeFailure(
        ofSending records: [SealedAggregate],
        _ failure: CallFailure,
        _ now: Instant
    ) {
        if records.allSatisfy(\.isBacklog) { backlogCalls -= 1 }
        if failure.isTimeout { window.timedOut(now: now) }
        if failure.mayHaveArrived {
            counters.lane.duplicatesPossible.add(records.reduce(0) { $0 + $1.recordCount })
        }
        counters.lane.retried.add(records.count)
        // Who makes it anew may give its shards other ranges, under the same names.
        if failure.isOfMissingStream { distrustMap() }
        if failure.isOfContent {
            // The stream's limit may have been lowered.
            recordLimit.refresh(now: now)
            switch suspects.refused(records) {
            case .parted:
                // As long as it may be one record among several, the endpoint is not to blame.
                if records.count > 1 { return }
                return _ = breaker.failed(isPermanent: true, chance: random.nextUnit(), now: now)
            case .guilty(let aggregate):
                log.error(
                    "Kinesis does not take a record: it goes to the dead letters",
                    metadata: ["reason": "\(failure)"]
                )
                staging?.batcher.decided(aggregate)
                return backlog.bury(aggregate, reason: "refused: \(failure)")
            // Where everything is refused this is all that comes: it must not turn into a loop.
            case .notNow: _ = breaker.failed(isPermanent: false, chance: random.nextUnit(), now: now)
            }
        } else {
            _ = breaker.failed(isPermanent: failure.isPermanent, chance: random.nextUnit(), now: now)
            if suspects.failed(records) { return }
        }
        takeBack(records, now)
    }

    private mutating func tellFallback() {
        guard !toldFallback else { return }
        toldFallback = true
        log.notice("the endpoint refuses CBOR, speaking JSON", metadata: ["stream": "\(output.stream)"])
    }

    // MARK: what is asked of the stream

    private static let shardsCall = "ListShards"
    private static let recordLimitCall = "DescribeStreamSummary"

    /// When there is something to ask, if nothing is asked now.
    private func nextQuestion(_ now: Instant) -> Instant? {
        guard nextCaller == nil else { return nil }
        var due = shards.nextDue(now: now)
        if intake.hasLongRecords, let other = recordLimit.nextDue(now: now) { due = min(due ?? other, other) }
        return due.map { max($0, breaker.heldUntil ?? $0) }
    }

    private mutating func askAboutStream(_ now: Instant) {
        guard let due = nextQuestion(now), due <= now else { return }
        if let parameters = shards.nextCall(now: now) { ask(Self.shardsCall, parameters, now) }
        guard intake.hasLongRecords, let parameters = recordLimit.nextCall(now: now) else { return }
        ask(Self.recordLimitCall, parameters, now)
    }

    private mutating func ask(_ operation: String, _ parameters: WireValue, _ now: Instant) {
        do { try caller.start(.control(operation, parameters)) } catch {
            takeFailure(of: .control(operation, parameters), error, now)
        }
    }

    // MARK: the shard map

    private mutating func takeShards(_ value: WireValue, _ answer: [UInt8], _ now: Instant) {
        switch shards.take(value, answer.span, now: now) {
        case .more: break
        case .map(let map, let closed, let isStale):
            let isOther = map != staging?.map || isMapAssumed
            adopt(map, now)
            if isOther { keepShardMap() }
            let waiting = awaitingMap.map { ($0.aggregate, $0.result) }
            awaitingMap = []
            if !closed.isEmpty {
                let named = Set(waiting.compactMap { if case .stored(let id) = $0.1 { id } else { nil } })
                staging?.learn(closed.filter { named.contains($0.id) })
            }
            takeResults(waiting, mapIsFresh: !isStale, now)
        case .unusable(let reason):
            log.warning("the list of shards is not usable, asking again", metadata: ["reason": "\(reason)"])
        }
    }

    private func keepShardMap() {
        guard let map = staging?.map, !isMapAssumed else { return }
        backlog.keep(map, of: streamPlace, recordBytes: recordLimit.told, at: shardMapPath)
    }

    /// The stream and where it is.
    private var streamPlace: String { "\(output.stream) at \(caller.endpoint.url)" }
    /// The same with what says whose it is.
    private var place: String { "\(streamPlace) of \(output.profile) \(output.roleARN)" }

    /// Goes over to a new map: what is open or waiting is placed by it.
    private mutating func adopt(_ map: ShardMap, _ now: Instant) {
        counters.lane.shards.set(map.count)
        mapPlace = place
        guard let staging else {
            staging = Staging(map, for: output, pool: pool, seed: random.next(), now: now)
            return
        }
        let wasAssumed = isMapAssumed
        isMapAssumed = false
        guard staging.map != map else { return }
        if !wasAssumed {
            log.notice(
                "the stream has other shards now",
                metadata: ["before": "\(staging.map.count)", "now": "\(map.count)"]
            )
        }
        rearrange(by: map, now)
    }

    /// Sends nothing more until the stream has told its shards again.
    private mutating func distrustMap() {
        guard let staging else { return }
        isMapAssumed = true
        staging.forgetClosed()
        shards.refresh()
    }

    /// Places by a map, and by the settings, what is open or waiting.
    private mutating func rearrange(by map: ShardMap, _ now: Instant) {
        guard let staging else { return }
        // The pieces of what is taken apart have the whole's copy, or none: what comes behind them must not be the first
        // that the spool has of their keys.
        staging.sealAll()
        copyAdded()
        note(staging.rearrange(by: map, for: output, seed: random.next(), now: now))
    }

    // MARK: the stream's limit for records

    /// Begins with what the stream told an earlier run, where that matters.
    private mutating func recallRecordLimit() {
        let kept = intake.hasLongRecords ? ShardMapFile.recordBytes(shardMapPath, of: streamPlace) : nil
        recordLimit = RecordLimit(stream: output.stream, kept: kept, chance: random.nextUnit())
    }

    private mutating func takeRecordLimit(_ value: WireValue, _ now: Instant) {
        guard let isOther = recordLimit.take(value, now: now) else {
            return takeFailureOfRecordLimit(.distrusted("an answer that describes no stream"), now)
        }
        guard isOther, let bytes = recordLimit.told else { return }
        keepShardMap()
        let (size, stream) = ("\(bytes >> 10)KiB", "\(output.stream)")
        if intake.isCut(by: bytes) {
            log.warning(
                """
                the stream takes no records as long as max_record: on_oversize says what becomes of longer ones; \
                kinesis:UpdateMaxRecordSize raises the stream's limit
                """,
                metadata: ["stream": "\(stream)", "most": "\(size)"]
            )
        } else {
            log.notice("the stream takes long records", metadata: ["stream": "\(stream)", "most": "\(size)"])
        }
    }

    private mutating func takeFailureOfRecordLimit(_ failure: CallFailure, _ now: Instant) {
        let chance = random.nextUnit()
        if case .transport = failure { _ = breaker.failed(isPermanent: failure.isPermanent, chance: chance, now: now) }
        let isRefused = failure.isRefusal
        let result = recordLimit.failed(
            isRefused: isRefused,
            othersFail: breaker.isFailing || staging == nil || isMapAssumed,
            chance: chance,
            now: now
        )
        guard result == .assumed else { return }
        log.error(
            isRefused
                ? "the stream does not tell its limit for records, 1MiB holds: allow kinesis:DescribeStreamSummary"
                : "the stream does not tell its limit for records, 1MiB holds until it does",
            metadata: ["stream": "\(output.stream)", "reason": "\(failure)"]
        )
    }

    /// Takes the stream for one shard as long as nothing is known of it, for those who cannot wait until something is: what
    /// they send goes to the spool.
    private mutating func assumeShards(_ now: Instant) {
        guard staging == nil, backlog.isOn, intake.hasSockets else { return }
        guard isStopping || breaker.failingSince.map({ now - $0 >= Self.spillGrace }) ?? false else { return }
        log.notice("nothing is known of the stream yet: what arrives goes to the spool")
        staging = Staging(.unknown, for: output, pool: pool, seed: random.next(), now: now)
        isMapAssumed = true
    }

    // MARK: another configuration

    /// Takes on what a reload has changed; a new endpoint only when no call to the old one is in flight.
    private mutating func takeUpdate(_ now: Instant) {
        if let update = control.takeUpdate() {
            intake.adopt(update.output, and: update.added)
            memoryBudget = update.memoryBudget
            let isOtherStream = update.output.stream != output.stream
            if update.output != output {
                output = update.output
                window = Self.window(output)
                if let staging { rearrange(by: staging.map, now) }
                if isOtherStream { shards = ShardMapLoader(stream: output.stream, chance: random.nextUnit()) }
            }
            if isOtherStream || !intake.hasLongRecords { recallRecordLimit() }
            nextCaller = update.caller ?? nextCaller
        }
        intake.forgetRetired()
        if let make = nextCaller, caller.inFlight == 0 {
            nextCaller = nil
            caller = make()
            (breaker, toldFallback) = (Breaker(), false)
            // What another stream has told must not be found again under this one's shards: they have the same names.
            shards = ShardMapLoader(stream: output.stream, chance: random.nextUnit())
            if mapPlace != place { distrustMap() }
            if !awaitingMap.isEmpty { shards.refresh(closed: true) }
            recallRecordLimit()
        }
    }

    // MARK: waiting and ending

    /// Sleeps until the network, a ring, or a deadline has something to do.
    private mutating func sleep() {
        bell.prepareToSleep()
        let now = Instant.now
        var wake = now + .seconds(60)
        if control.hasUpdate || intake.hasWork(limit: recordLimit.bytes, hasRoom: { hasRoom(for: $0, now) }) {
            wake = now
        }
        let flush = noMoreWillCome
        if let staging {
            // The last collector has ended since the last look.
            if flush, !staging.aggregator.isEmpty { wake = now }
            if let oldest = staging.aggregator.oldestReceipt { wake = min(wake, oldest + staging.batcher.linger) }
            // With every call taken, an answer is what to wait for.
            if nextCaller == nil, !isMapAssumed, load < (breaker.isFailing ? 1 : window.calls) {
                let due =
                    suspects.hasNext(hasOthers: false)
                    ? now : staging.batcher.nextDue(now: now, flush: flush, backlogAlone: mayCallForBacklog)
                if let due { wake = min(wake, max(due, breaker.heldUntil ?? due)) }
            }
            if let since = breaker.failingSince, staging.batcher.bytes > output.callMaxSize {
                wake = min(wake, max(since + Self.spillGrace, now + .milliseconds(100)))
            }
        }
        if staging == nil, intake.hasSockets, backlog.isOn, let since = breaker.failingSince {
            wake = min(wake, since + Self.spillGrace)
        }
        if let due = nextQuestion(now) { wake = min(wake, due) }
        if spareMemory.mustGo(of: pool, now: now) {
            pool.giveBackKept()
            caller.giveBackMemory()
            Machine.giveBackFreeMemory()
        }
        if let due = spareMemory.nextLook(at: pool) { wake = min(wake, due) }
        if let givesUpAt { wake = min(wake, givesUpAt) }
        if let closesAt, closesAt > now { wake = min(wake, closesAt) }
        if isDone(now) != nil || control.inquiry.isOpen { wake = now }
        if let since = breaker.failingSince, control.once { wake = min(wake, since + control.patience) }
        caller.wait(for: bell, atMost: max(.zero, wake - now), following: following(now, recordsCome: false))
        bell.wake()
    }

    /// Everything that was read is in Kinesis, in the spool, or among the dead letters.
    private var isAllSettled: Bool { noMoreWillCome && backlog.isIdle && ledger.total(.inFlight) == .init() }

    /// Whether the lane's work has ended, and how.
    private mutating func isDone(_ now: Instant) -> LaneControl.End? {
        if caller.inFlight == 0, !control.hasUpdate, isAllSettled, let isAll = backlog.isEmpty {
            if isAll { return .delivered }
            if !control.once { return .spooled }
        }
        if let givesUpAt, now >= givesUpAt { return .gaveUp(control.lastFailure) }
        if control.once, let since = breaker.failingSince {
            let failure = control.lastFailure
            if failure?.isPermanent ?? false || now - since >= control.patience { return .gaveUp(failure) }
        }
        return nil
    }

    private mutating func report() {
        counters.lane.bytesQueued.set(staging?.batcher.bytes ?? 0)
        counters.lane.inFlight.set(caller.inFlight)
        if let sealed = staging?.takeSealed(), sealed > 0 { counters.lane.aggregates.add(sealed) }
        control.inquiry.answer { report(.now) }
    }

    private mutating func report(_ now: Instant) -> LaneReport {
        let isKnown = staging != nil && !isMapAssumed
        let oldest = [
            staging?.aggregator.oldestReceipt, staging?.batcher.oldestReceipt, caller.oldestReceipt,
            suspects.oldestReceipt, awaitingMap.lazy.map(\.aggregate.firstReceipt).min(),
        ]
        return LaneReport(
            time: now,
            tally: tally,
            shards: isKnown ? staging?.shardReports(now: now) : nil,
            oldestReceipt: oldest.compactMap { $0 }.min(),
            aggregateBytes: pool.used,
            aggregateLimit: budget,
            callsAllowed: window.calls,
            format: caller.format,
            failingSince: breaker.failingSince,
            rate: staging?.batcher.rate,
            isRateLimited: staging?.batcher.pacer.isLimited(now: now) ?? false
        )
    }
}
