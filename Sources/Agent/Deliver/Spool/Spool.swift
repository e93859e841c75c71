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

    struct Inbox {
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

    let inbox = Mutex(Inbox())
    let outbox = Mutex<[Event]>([])
    let bell: Doorbell
    let laneBell: Doorbell
    private let thread = Mutex<Thread?>(nil)

    /// Whether anything can ever be spooled.
    let isOn: Bool

    /// Bytes of records that would find room, and bytes that are owed, as the thread saw them last.
    let roomSeen = Atomic<Int>(0)
    let owedSeen = Atomic<Int>(0)
    let sizeSeen = Atomic<Int>(0)
    /// When the oldest segment that is not delivered was begun, in milliseconds since 1970; 0: there is none.
    let oldestSeen = Atomic<Int>(0)
    /// Nothing is owed, and nothing waits to be written.
    let isEmptySeen = Atomic<Bool>(true)
    /// Something is owed, or was until the lane took it.
    let hasOlderSeen = Atomic<Bool>(false)
    /// The inbox's count of which the figures above know.
    let countSeen = Atomic<Int>(0)

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
        let letters = DeadLetters(stateDirectory + "/dead-letters", maxSize: options.deadLettersMaxSize)
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
    /// Milliseconds since 1970 at which the oldest segment was begun that is not delivered.
    var oldest: Int? { oldestSeen.now == 0 ? nil : oldestSeen.now }
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
}
