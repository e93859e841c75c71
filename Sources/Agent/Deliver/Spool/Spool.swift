import Bytes
package import Kinesis
package import Logging
package import Platform
import Synchronization

// Concurrency: the lane calls, the spool's own thread works; they meet in two mailboxes, once a batch. The lane keeps an
// aggregate until the spool has said what became of it, so that only the lane ever frees its memory.

/// The lane's disk: aggregates that wait there, and dead letters, written and read by a thread of its own.
package final class Spool: Sendable {
    package struct Options: Sendable {
        /// Nil: nothing is spooled, only dead letters are written.
        package var limits: SpoolStore.Limits?
        package var sync = Sync.period(.seconds(1))
        package var deadLettersMaxSize = 1 << 30

        package init() {}
    }

    /// When what was written becomes safe.
    package enum Sync: Equatable, Sendable {
        /// With every batch.
        case always
        /// So long after the first unsafe byte.
        case period(Duration)
        /// When the kernel likes.
        case never
    }

    /// An aggregate to write; its memory stays where it is until the spool has answered.
    @safe
    struct Write: @unchecked Sendable {
        let token: Int
        let record: SpoolRecord
        let data: UnsafeRawBufferPointer
        /// Whether the lane goes on to send it.
        let isHeld: Bool

        /// Bytes it takes on the disk, at most.
        var size: Int { unsafe data.count + SpoolRecord.overhead(origins: record.origins.count) }
    }

    /// What the spool tells the lane.
    package enum Event: Sendable {
        /// A copy is written; `isSafe` when it outlives a crash.
        case written(token: Int, SpoolLocation, isSafe: Bool)
        /// No copy is written.
        case refused(token: Int)
        /// A record that is to be sent.
        case owed(SpoolStore.Owed)
        /// A dead letter has found its place, or none.
        case buried(token: Int, isKept: Bool)
    }

    private struct Inbox {
        var writes: [Write] = []
        var letters: [(token: Int, letter: DeadLetters.Letter)] = []
        var delivered: [SpoolLocation] = []
        var letGo: [SpoolLocation] = []
        /// Bytes of owed records that the lane would take now.
        var wanted = 0
        var limits: SpoolStore.Limits?
        var shardMap: (path: String, bytes: [UInt8])?
        var isStopping = false
        /// How often the lane has put something in, and how often when it last gave something up.
        var count = 0
        var countOfLetGo = 0
    }

    private let inbox = Mutex(Inbox())
    private let outbox = Mutex<[Event]>([])
    private let bell: Doorbell
    private let laneBell: Doorbell
    private let thread = Mutex<Thread?>(nil)

    /// Whether anything can ever be spooled.
    let isOn: Bool

    /// Bytes of records that would find room, and bytes that are owed, as the thread saw them last.
    private let roomSeen = Atomic<Int>(0)
    private let owedSeen = Atomic<Int>(0)
    private let sizeSeen = Atomic<Int>(0)
    /// Nothing is owed, and nothing waits to be written.
    private let isEmptySeen = Atomic<Bool>(true)
    /// Something is owed, or was until the lane took it.
    private let hasOlderSeen = Atomic<Bool>(false)
    /// The inbox's count of which the figures above know.
    private let countSeen = Atomic<Int>(0)

    /// Opens the spool in `folder` of the state directory and starts its thread.
    ///
    /// - Parameters:
    ///   - name: of the output whose records these are.
    ///   - bell: the lane's, rung when there are events.
    ///   - ledger: gets what earlier runs have left.
    package init(
        stateDirectory: String,
        name: String,
        _ options: Options,
        bell: Doorbell,
        ledger: Ledger,
        log: Logger
    ) throws(SpoolStore.Fault) {
        (laneBell, isOn) = (bell, options.limits != nil)
        do { self.bell = try Doorbell() } catch { throw .system(error) }
        let folder = Self.folder(stateDirectory, name)
        let store: SpoolStore?
        if let limits = options.limits {
            store = try SpoolStore(folder, limits)
        } else {
            // Switched off, but what is there is still owed.
            let isThere = (try? FileStatus(of: folder)) != nil
            store = isThere ? try SpoolStore(folder, .init(maxSize: 0, keepFree: 0)) : nil
        }
        if let store {
            Self.tell(store.found, folder, log)
            for (input, amount) in store.found.amounts { ledger.carryOver(amount, of: ledger.number(of: input)) }
        }
        let letters = Box(DeadLetters(stateDirectory + "/dead-letters", maxSize: options.deadLettersMaxSize))
        let worker = Worker(self, store, letters, options, log)
        worker.publish()
        thread.withLock { $0 = Thread("penstock-spool") { worker.run() } }
    }

    /// Where an output's spool lies.
    package static func folder(_ stateDirectory: String, _ output: String) -> String {
        stateDirectory + "/spool/" + plainName(output)
    }

    /// An output's name as a file may be called.
    static func plainName(_ output: String) -> String {
        let plain = output.utf8.map { byte -> String in
            let isPlain = (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte)
            if isPlain || byte == 0x2d || byte == 0x5f { return String(UnicodeScalar(byte)) }
            return "%" + String(byte >> 4, radix: 16) + String(byte & 15, radix: 16)
        }
        return plain.joined()
    }

    private static func tell(_ found: SpoolStore.Found, _ folder: String, _ log: Logger) {
        if found.torn > 0 {
            log.notice(
                "an unfinished write at the end of the spool was cut off: its records were not promised yet",
                metadata: ["spool": "\(folder)", "bytes": "\(found.torn)"]
            )
        }
        if let unclosed = found.unclosed {
            log.error("the spool cannot be written", metadata: ["reason": "\(unclosed)", "spool": "\(folder)"])
        }
        if found.positionWasLost {
            log.error(
                "the spool's position is damaged: records that were delivered already are sent again",
                metadata: ["spool": "\(folder)"]
            )
        }
        if found.damaged > 0 {
            log.error(
                "the spool has damaged bytes, which are passed over; penstock spool repair tries to save more",
                metadata: ["spool": "\(folder)", "bytes": "\(found.damaged)"]
            )
        }
        for path in found.setAside {
            log.error("a segment of the spool is damaged and is set aside", metadata: ["kept": "\(path)"])
        }
        guard found.records > 0 else { return }
        log.notice(
            "records of an earlier run wait in the spool",
            metadata: ["spool": "\(folder)", "records": "\(found.records)", "segments": "\(found.segments)"]
        )
    }

    // MARK: the lane's side

    /// Bytes that may be given to `write`, beside those it was given before.
    package var room: Int { roomSeen.now - inbox.withLock { $0.writes.reduce(0) { $0 + $1.size } } }

    /// Bytes that are owed to Kinesis, or stand behind such.
    package var owedBytes: Int { owedSeen.now }
    /// Bytes of the spool's files.
    package var size: Int { sizeSeen.now }
    /// Whether nothing is owed and nothing waits to be written; nil while the thread has not heard all it was told.
    package var isEmpty: Bool? {
        let count = inbox.withLock { $0.count }
        return countSeen.load(ordering: .acquiring) == count ? isEmptySeen.load(ordering: .relaxed) : nil
    }

    /// Whether there are records that are older than what the lane has, but for those that it is still to hand over.
    package var hasOlder: Bool {
        let count = inbox.withLock { $0.countOfLetGo }
        return countSeen.load(ordering: .acquiring) < count || hasOlderSeen.load(ordering: .relaxed)
    }

    /// Puts something into the inbox.
    private func post(_ body: (inout Inbox) -> Void) {
        inbox.withLock { inbox in
            body(&inbox)
            inbox.count += 1
        }
        bell.ring()
    }

    func write(_ writes: [Write]) {
        if !writes.isEmpty { post { $0.writes += writes } }
    }

    package func bury(_ letter: DeadLetters.Letter, token: Int) {
        post { $0.letters.append((token, letter)) }
    }

    /// Notes that Kinesis has what a copy holds.
    func delivered(_ copies: [SpoolLocation]) {
        if !copies.isEmpty { post { $0.delivered += copies } }
    }

    /// Notes that the lane will not send what it held; the copy will be.
    func letGo(_ copies: [SpoolLocation]) {
        guard !copies.isEmpty else { return }
        post { inbox in
            inbox.letGo += copies
            inbox.countOfLetGo = inbox.count + 1
        }
    }

    /// Asks for owed records of about so many bytes, in place of what was asked before.
    package func want(_ bytes: Int) {
        let isNew = inbox.withLock { inbox in
            defer { inbox.wanted = bytes }
            return bytes > inbox.wanted
        }
        if isNew { bell.ring() }
    }

    func limit(to limits: SpoolStore.Limits) {
        post { $0.limits = limits }
    }

    /// Keeps the shard map, for a start without Kinesis.
    func keep(shardMap bytes: [UInt8], at path: String) { post { $0.shardMap = (path, bytes) } }

    package func takeEvents() -> [Event] {
        outbox.withLock { events in
            var taken: [Event] = []
            swap(&taken, &events)
            return taken
        }
    }

    /// Writes and syncs what it was given, as far as the disk takes it, and ends the thread.
    package func stop() {
        inbox.withLock { $0.isStopping = true }
        bell.ringAlways()
        let thread = thread.withLock { $0.take() }
        thread?.join()
    }

    // MARK: the thread's side

    /// What has one owner, for a class to hold.
    fileprivate final class Box<Value: ~Copyable> {
        var value: Value
        init(_ value: consuming Value) { self.value = value }
    }

    /// The spool's thread.
    private final class Worker: @unchecked Sendable {
        // Safe: after `publish` in the spool's `init` only the thread touches it.
        private let spool: Spool
        private let store: SpoolStore?
        private let letters: Box<DeadLetters>
        private let sync: Sync
        private let log: Logger

        private var waiting: [Write] = []
        /// Written, and not safe yet.
        private var unsynced: [(write: Write, location: SpoolLocation)] = []
        private var firstUnsynced: ContinuousClock.Instant?
        private var waitingLetters: [(token: Int, letter: DeadLetters.Letter)] = []
        private var wanted = 0
        private var heard = 0
        /// Long ago: a life that lasts less than a period notes what it delivered too.
        private var lastSettle = ContinuousClock.now - Worker.settlePeriod
        /// Nothing is written before: it has just failed.
        private var retryAt: ContinuousClock.Instant?
        /// The same of reading.
        private var readAt: ContinuousClock.Instant?
        private var backoff = Backoff(first: .milliseconds(100), longest: .seconds(5))
        private var random = SplitMix64(seed: .random(in: .min ... .max))
        private var isStopping = false
        private var damagedTold = 0

        /// Unsafe bytes at which a sync comes before its period: they keep their memory until then.
        private static let mostUnsynced: UInt64 = 8 << 20
        /// How often what was delivered is written down.
        private static let settlePeriod: Duration = .seconds(1)

        init(_ spool: Spool, _ store: SpoolStore?, _ letters: Box<DeadLetters>, _ options: Options, _ log: Logger) {
            (self.spool, self.store, self.letters, sync, self.log) = (spool, store, letters, options.sync, log)
        }

        func run() {
            while true {
                takeInbox()
                let now = ContinuousClock.now
                if let retryAt, now >= retryAt { self.retryAt = nil }
                if let readAt, now >= readAt { self.readAt = nil }
                var events: [Event] = []
                var progress = bury(&events, now)
                if write(&events, now) { progress = true }
                if syncIfDue(&events, now) { progress = true }
                if read(&events, now) { progress = true }
                settle(now)
                if isStopping,
                    (waiting.isEmpty && unsynced.isEmpty && waitingLetters.isEmpty) || retryAt != nil || !progress
                {
                    finish(&events)
                    return hand(events)
                }
                hand(events)
                if !progress { sleep() }
            }
        }

        private func hand(_ events: [Event]) {
            publish()
            guard !events.isEmpty else { return }
            spool.outbox.withLock { $0 += events }
            spool.laneBell.ringAlways()
        }

        /// Shows the lane how full the spool is.
        func publish() {
            let (room, owed, size, isEmpty, hasOlder): (Int, Int, Int, Bool, Bool)
            if let store {
                let queued = waiting.reduce(0) { $0 + $1.size }
                room = retryAt == nil ? max(0, ((try? store.room()) ?? 0) - queued) : 0
                owed = Int(clamping: store.index.owedBytes)
                (size, isEmpty) = (store.size, store.index.isEmpty && waiting.isEmpty)
                hasOlder = store.hasOlder
            } else {
                (room, owed, size, isEmpty, hasOlder) = (0, 0, 0, true, false)
            }
            spool.roomSeen.set(room)
            spool.owedSeen.set(owed)
            spool.sizeSeen.set(size)
            let isAll = isEmpty && waitingLetters.isEmpty
            // Passing damage may be the last there was to do: then no event says so.
            var isNew = spool.isEmptySeen.exchange(isAll, ordering: .relaxed) != isAll
            // Live records may wait for this.
            if spool.hasOlderSeen.exchange(hasOlder, ordering: .relaxed) != hasOlder { isNew = true }
            guard spool.countSeen.exchange(heard, ordering: .releasing) != heard || isNew else { return }
            // Always: the lane may have looked before this, and not have said yet that it sleeps.
            spool.laneBell.ringAlways()
        }

        private func takeInbox() {
            let taken = spool.inbox.withLock { inbox in
                var rest = Inbox(wanted: inbox.wanted, isStopping: inbox.isStopping)
                (rest.count, rest.countOfLetGo) = (inbox.count, inbox.countOfLetGo)
                swap(&rest, &inbox)
                return rest
            }
            waiting += taken.writes
            waitingLetters += taken.letters
            (wanted, heard) = (taken.wanted, taken.count)
            isStopping = taken.isStopping
            if let map = taken.shardMap {
                do throws(SystemError) { try Folder.replace(map.path, with: map.bytes) } catch {
                    log.warning("the shard map cannot be kept", metadata: ["reason": "\(error)"])
                }
            }
            guard let store else { return }
            if let limits = taken.limits { store.limit(to: limits) }
            for copy in taken.delivered { store.deliver(copy) }
            for copy in taken.letGo { store.letGo(copy) }
        }

        /// Writes what waits, as far as there is room, some MiB a turn.
        private func write(_ events: inout [Event], _ now: ContinuousClock.Instant) -> Bool {
            guard let store, !waiting.isEmpty, retryAt == nil else { return false }
            var (done, isFull, failure): (Int, Bool, SystemError?) = (0, false, nil)
            do throws(SystemError) {
                var room = try store.room()
                let milliseconds = Machine.wallMilliseconds()
                for write in waiting where store.unsyncedBytes < Self.mostUnsynced || sync == .never {
                    guard write.size <= room else {
                        isFull = true
                        break
                    }
                    room -= write.size
                    let location = try unsafe store.append(
                        write.record,
                        write.data,
                        isHeld: write.isHeld,
                        milliseconds: milliseconds
                    )
                    done += 1
                    if sync == .never {
                        events.append(.written(token: write.token, location, isSafe: false))
                    } else {
                        unsynced.append((write, location))
                        firstUnsynced = firstUnsynced ?? now
                    }
                }
                if done > 0 { backoff.reset() }
            } catch { failure = error }
            waiting.removeFirst(done)
            if let failure { fail("the spool cannot be written, trying again", failure, now) }
            if isFull || failure != nil { refuse(&events) }
            return done > 0
        }

        /// Gives back what the disk does not take now: the lane sends it, or tries again.
        private func refuse(_ events: inout [Event]) {
            for write in waiting { events.append(.refused(token: write.token)) }
            waiting.removeAll(keepingCapacity: true)
        }

        private func fail(_ message: Logger.Message, _ error: SystemError, _ now: ContinuousClock.Instant) {
            retryAt = now + backoff.next(chance: random.nextUnit())
            log.error(message, metadata: ["reason": "\(error)"])
            guard let store, store.hasFailedSync else { return }
            // Without syncs the lane has given up everything already.
            guard let lost = store.abandonUnsynced(isOnlyCopy: sync == .never) else { return }
            // What the sync covered is nowhere safe.
            func isLost(_ location: SpoolLocation) -> Bool {
                location.segment == lost.segment && location.offset >= lost.offset
            }
            waiting = unsynced.filter { isLost($0.location) }.map(\.write) + waiting
            unsynced.removeAll { isLost($0.location) }
            if unsynced.isEmpty { firstUnsynced = nil }
        }

        private var syncDue: ContinuousClock.Instant? {
            guard let firstUnsynced else { return nil }
            switch sync {
            case .always: return firstUnsynced
            case .period(let period):
                let isMuch = (store?.unsyncedBytes ?? 0) >= Self.mostUnsynced
                return isMuch || isStopping ? firstUnsynced : firstUnsynced + period
            case .never: return nil
            }
        }

        private func syncIfDue(_ events: inout [Event], _ now: ContinuousClock.Instant) -> Bool {
            guard let store, let due = syncDue, now >= due, retryAt == nil else { return false }
            do throws(SystemError) { try store.sync() } catch {
                fail("the spool cannot be synced, writing again", error, now)
                refuse(&events)
                return false
            }
            for (write, location) in unsynced {
                events.append(.written(token: write.token, location, isSafe: true))
            }
            unsynced.removeAll(keepingCapacity: true)
            firstUnsynced = nil
            return true
        }

        /// Hands out owed records, as far as the lane wants them.
        private func read(_ events: inout [Event], _ now: ContinuousClock.Instant) -> Bool {
            guard let store, wanted > 0, !isStopping, readAt == nil else { return false }
            var bytes = 0
            do throws(SystemError) {
                while bytes < wanted, let owed = try store.takeOwed(unsynced: sync == .never) {
                    bytes += SpoolRecord.memory(for: owed.data.count)
                    events.append(.owed(owed))
                }
            } catch {
                log.error("the spool cannot be read, trying again", metadata: ["reason": "\(error)"])
                readAt = now + .milliseconds(500)
            }
            if store.damagedBytes > damagedTold {
                log.error(
                    "the spool has damaged bytes, which are passed over",
                    metadata: ["bytes": "\(store.damagedBytes - damagedTold)", "spool": "\(store.folder)"]
                )
                damagedTold = store.damagedBytes
            }
            wanted = max(0, wanted - bytes)
            spool.inbox.withLock { $0.wanted = max(0, $0.wanted - bytes) }
            return bytes > 0
        }

        /// Writes down what is delivered, once a period.
        private func settle(_ now: ContinuousClock.Instant) {
            guard let store, !store.isSettled, now >= lastSettle + Self.settlePeriod || isStopping else { return }
            lastSettle = now
            do throws(SystemError) {
                for path in try store.settle() {
                    log.error("a segment of the spool with damaged bytes is kept", metadata: ["kept": "\(path)"])
                }
            } catch {
                log.error("the spool's position cannot be written, trying again", metadata: ["reason": "\(error)"])
            }
        }

        private func bury(_ events: inout [Event], _ now: ContinuousClock.Instant) -> Bool {
            guard !waitingLetters.isEmpty, retryAt == nil else { return false }
            var buried: [Event] = []
            do throws(SystemError) {
                for (token, letter) in waitingLetters {
                    let isKept = try letters.value.append(letter, milliseconds: Machine.wallMilliseconds())
                    buried.append(.buried(token: token, isKept: isKept))
                    if !isKept {
                        log.error(
                            "the dead letters are full: a record is dropped",
                            metadata: [
                                "input": "\(letter.input)", "source": "\(letter.source)", "first": "\(letter.first)",
                            ]
                        )
                    }
                }
                try letters.value.sync()
            } catch {
                letters.value.takeBack()
                fail("dead letters cannot be written, trying again", error, now)
                return false
            }
            backoff.reset()
            events += buried
            waitingLetters.removeAll()
            return true
        }

        private func sleep() {
            var wake: ContinuousClock.Instant?
            func consider(_ moment: ContinuousClock.Instant?) { if let moment { wake = min(wake ?? moment, moment) } }
            consider(syncDue.map { max($0, retryAt ?? $0) })
            if let store {
                if !store.isSettled { consider(lastSettle + Self.settlePeriod) }
                // Room may come from elsewhere.
                if !waiting.isEmpty || spool.roomSeen.now == 0 { consider(retryAt ?? .now + .seconds(1)) }
            }
            if !waitingLetters.isEmpty { consider(retryAt) }
            consider(readAt)
            spool.bell.prepareToSleep()
            let hasMail = spool.inbox.withLock { $0.count != heard || $0.isStopping || $0.wanted > wanted }
            if !hasMail { spool.bell.wait(atMost: wake.map { max(.zero, $0 - .now) }) }
            spool.bell.wake()
        }

        /// The last words: everything that the disk takes is safe behind it.
        private func finish(_ events: inout [Event]) {
            guard let store else { return }
            do throws(SystemError) {
                // Told also when there is no room for the index.
                try store.sync()
                for (write, location) in unsynced {
                    events.append(.written(token: write.token, location, isSafe: true))
                }
                unsynced.removeAll()
                try store.closeActive()
                _ = try store.settle()
            } catch { log.error("the spool could not be finished", metadata: ["reason": "\(error)"]) }
        }
    }
}
