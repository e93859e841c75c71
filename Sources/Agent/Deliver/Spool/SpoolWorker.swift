import Bytes
import Kinesis
import Logging
import Platform
import Synchronization

// Concurrency: the spool's thread, but for its making.

extension Spool {
    /// The spool's thread.
    final class Worker: @unchecked Sendable {
        // Safe: after `publish` in the spool's `init` only the thread touches it.
        private let spool: Spool
        private let store: SpoolStore?
        private var letters: DeadLetters
        private let sync: Sync
        private let log: Logger

        private var waiting: [Write] = []
        /// Written, and not safe yet.
        private var unsynced: [(write: Write, location: SpoolLocation)] = []
        private var firstUnsynced: Instant?
        private var waitingLetters: [(token: Int, letter: DeadLetters.Letter)] = []
        private var wanted = 0
        private var heard = 0
        /// Long ago: a life that lasts less than a period notes what it delivered too.
        private var lastSettle = Instant.now - Worker.settlePeriod
        /// Nothing is written before: it has just failed.
        private var retryAt: Instant?
        /// The same of the dead letters, which may lie on another disk, and of reading.
        private var lettersRetryAt: Instant?
        private var readAt: Instant?
        private var backoff = Backoff(first: .milliseconds(100), longest: .seconds(5))
        private var lettersBackoff = Backoff(first: .milliseconds(100), longest: .seconds(5))
        private var random = SplitMix64(seed: .random(in: .min ... .max))
        private var isStopping = false
        private var damagedTold = 0

        /// Unsafe bytes at which a sync comes before its period: they keep their memory until then.
        private static let mostUnsynced: UInt64 = 8 << 20
        /// How often what was delivered is written down.
        private static let settlePeriod: Duration = .seconds(1)

        init(
            _ spool: Spool,
            _ store: SpoolStore?,
            _ letters: consuming DeadLetters,
            _ options: Options,
            _ log: Logger
        ) {
            (self.spool, self.store, sync, self.log) = (spool, store, options.sync, log)
            self.letters = letters
        }

        func run() {
            while true {
                takeInbox()
                let now = Instant.now
                if let retryAt, now >= retryAt { self.retryAt = nil }
                if let lettersRetryAt, now >= lettersRetryAt { self.lettersRetryAt = nil }
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
            spool.oldestSeen.set(store?.oldest.map { Int($0) } ?? 0)
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
        private func write(_ events: inout [Event], _ now: Instant) -> Bool {
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

        private func fail(_ message: Logger.Message, _ error: SystemError, _ now: Instant) {
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

        private var syncDue: Instant? {
            guard let firstUnsynced else { return nil }
            switch sync {
            case .always: return firstUnsynced
            case .period(let period):
                let isMuch = (store?.unsyncedBytes ?? 0) >= Self.mostUnsynced
                return isMuch || isStopping ? firstUnsynced : firstUnsynced + period
            case .never: return nil
            }
        }

        private func syncIfDue(_ events: inout [Event], _ now: Instant) -> Bool {
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
        private func read(_ events: inout [Event], _ now: Instant) -> Bool {
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
        private func settle(_ now: Instant) {
            guard let store, !store.isSettled, now >= lastSettle + Self.settlePeriod || isStopping else { return }
            lastSettle = now
            do throws(SystemError) { try settle(store) } catch {
                log.error("the spool's position cannot be written, trying again", metadata: ["reason": "\(error)"])
            }
        }

        private func settle(_ store: SpoolStore) throws(SystemError) {
            for path in try store.settle() {
                log.error("a segment of the spool with damaged bytes is kept", metadata: ["kept": "\(path)"])
            }
        }

        private func bury(_ events: inout [Event], _ now: Instant) -> Bool {
            guard !waitingLetters.isEmpty, lettersRetryAt == nil else { return false }
            var buried: [Event] = []
            do throws(SystemError) {
                for (token, letter) in waitingLetters {
                    let isKept = try letters.append(letter, milliseconds: Machine.wallMilliseconds())
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
                try letters.sync()
            } catch {
                letters.takeBack()
                lettersRetryAt = now + lettersBackoff.next(chance: random.nextUnit())
                log.error("dead letters cannot be written, trying again", metadata: ["reason": "\(error)"])
                return false
            }
            lettersBackoff.reset()
            events += buried
            waitingLetters.removeAll()
            return true
        }

        private func sleep() {
            var wake: Instant?
            func consider(_ moment: Instant?) { if let moment { wake = min(wake ?? moment, moment) } }
            consider(syncDue.map { max($0, retryAt ?? $0) })
            if let store {
                if !store.isSettled { consider(lastSettle + Self.settlePeriod) }
                // Room may come from elsewhere.
                if !waiting.isEmpty || spool.roomSeen.now == 0 { consider(retryAt ?? .now + .seconds(1)) }
            }
            if !waitingLetters.isEmpty { consider(lettersRetryAt) }
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
                try settle(store)
            } catch { log.error("the spool could not be finished", metadata: ["reason": "\(error)"]) }
        }
    }
}
