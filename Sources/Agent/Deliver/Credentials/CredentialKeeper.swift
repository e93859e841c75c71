import Bytes
import Kinesis
import Logging
import Platform
import Synchronization

// Concurrency: a keeper belongs to the thread of its caller. What it shares with the thread `penstock-keys` is `Shared`.

/// Keeps an access key at hand, and nobody waiting for it.
///
/// A thread looks for keys and renews them ahead of their end; what fails is tried again, and the old ones hold on until they
/// end. Keys that do not end leave no thread behind.
final class CredentialKeeper {
    /// What there is to sign with.
    enum Answer {
        /// - generation: grows with each look that found keys.
        case keys(Credentials, generation: Int)
        /// They are looked for.
        case coming
        /// There are none; they are looked for again later.
        case none(String)
    }

    private let source: CredentialSource
    private let log: Logger?
    private let shared: Shared?
    private var thread: Thread?
    private var refusals = Backoff(first: .seconds(1), longest: .seconds(60))
    /// When keys that the service refuses are looked for again, at the earliest.
    private var refusalHold: Instant?

    init(_ source: CredentialSource, log: Logger?) {
        (self.source, self.log) = (source, log)
        shared = (try? Doorbell()).map(Shared.init)
    }

    deinit {
        shared?.stop()
        thread?.join()
    }

    func answer(now: Instant) -> Answer {
        guard let shared else { return .none("the system has no descriptor left") }
        let (answer, mustStart) = shared.answer(now: now)
        if mustStart { start(shared) }
        return answer
    }

    /// Whether keys are on their way; the bell rings then when they have come, or have not.
    func willRing(_ bell: Doorbell) -> Bool { shared?.willRing(bell) ?? false }

    /// The service does not take the keys of `generation`: others may be there already, or are looked for at once.
    ///
    /// - Returns: whether it is worth while to sign again. The first refusal has the sources asked; those that follow it
    ///   wait longer and longer.
    func refused(_ generation: Int, now: Instant, chance: Double) -> Bool {
        guard let shared else { return false }
        if shared.generation != generation || shared.isLookingAfterRefusal { return true }
        if let refusalHold {
            guard now >= refusalHold else { return false }
            if now - refusalHold > .seconds(300) { refusals.reset() }
        }
        refusalHold = now + refusals.next(chance: chance)
        if shared.lookAgain() { start(shared) }
        return true
    }

    private func start(_ shared: Shared) {
        thread?.join()
        let (source, log) = (source, log)
        thread = Thread("penstock-keys") { shared.run(source, log) }
    }

    private final class Shared: Sendable {
        private struct State {
            var keys: TemporaryKeys?
            var generation = 0
            /// Why the last look found none.
            var failure: String?
            var isLooking = false
            /// The keys are of no use, whatever their end.
            var isRefused = false
            var hasThread = false
            var isStopped = false
            var waiter: Doorbell?
        }

        private let state = Mutex(State())
        private let bell: Doorbell

        init(_ bell: Doorbell) { self.bell = bell }

        var generation: Int { state.withLock { $0.generation } }
        var isLookingAfterRefusal: Bool { state.withLock { $0.isRefused } }

        func answer(now: Instant) -> (Answer, mustStart: Bool) {
            let (answer, mustStart, mustRing): (Answer, Bool, Bool) = state.withLock { state in
                let isGood = state.keys.map { $0.expires.map { now < $0 } ?? true } ?? false
                if let keys = state.keys, isGood, !state.isRefused {
                    return (.keys(keys.credentials, generation: state.generation), false, false)
                }
                if state.isLooking { return (.coming, false, false) }
                if let failure = state.failure { return (.none(failure), false, false) }
                // Nothing has been looked for yet, or this machine has slept past their end.
                state.isLooking = true
                defer { state.hasThread = true }
                return (.coming, !state.hasThread, state.hasThread)
            }
            if mustRing { bell.ringAlways() }
            return (answer, mustStart)
        }

        func willRing(_ bell: Doorbell) -> Bool {
            state.withLock { state in
                state.waiter = state.isLooking ? bell : nil
                return state.isLooking
            }
        }

        /// - Returns: whether there is no thread to do it.
        func lookAgain() -> Bool {
            let mustStart = state.withLock { state in
                (state.isRefused, state.isLooking) = (true, true)
                defer { state.hasThread = true }
                return !state.hasThread
            }
            bell.ringAlways()
            return mustStart
        }

        func stop() {
            state.withLock { $0.isStopped = true }
            bell.ringAlways()
        }

        private var isStopped: Bool { state.withLock { $0.isStopped } }

        /// Looks for keys and renews them, until they do not end.
        func run(_ source: CredentialSource, _ log: Logger?) {
            var backoff = Backoff(first: .seconds(1), longest: .seconds(30))
            let patience = Patience(bell: bell) { [self] in isStopped }
            while !isStopped {
                var pause: Duration?
                do {
                    let keys = try source.load(patience)
                    backoff.reset()
                    pause = keys.expires.map {
                        TemporaryKeys.renewal(after: $0 - .now, chance: .random(in: 0...1))
                    }
                    log?.debug("AWS credentials", metadata: ["from": "\(keys.source)", "key": "\(keys.credentials)"])
                    found(keys, isLast: pause == nil)
                } catch {
                    pause = backoff.next(chance: .random(in: 0...1))
                    if !isStopped, failed(error.description) {
                        log?.warning(
                            "AWS credentials cannot be renewed, the old ones hold on until they end",
                            metadata: ["reason": "\(error)"]
                        )
                    }
                }
                guard let pause else { return }
                sleep(until: .now + pause)
            }
        }

        private func found(_ keys: TemporaryKeys, isLast: Bool) {
            publish { state in
                state.keys = keys
                state.generation += 1
                state.failure = nil
                state.hasThread = !isLast
            }
        }

        /// - Returns: whether the old ones are good for a while.
        private func failed(_ reason: String) -> Bool {
            publish { $0.failure = reason }
            return state.withLock { $0.keys.map { $0.expires.map { .now < $0 } ?? true } ?? false }
        }

        private func publish(_ change: (inout State) -> Void) {
            let waiter = state.withLock { state in
                change(&state)
                (state.isLooking, state.isRefused) = (false, false)
                defer { state.waiter = nil }
                return state.waiter
            }
            waiter?.ringAlways()
        }

        /// Sleeps, unless somebody wants keys at once; they are being looked for afterwards.
        private func sleep(until end: Instant) {
            while !isStopped, !state.withLock({ $0.isLooking }), .now < end {
                bell.wait(atMost: end - .now)
                bell.wake()
            }
            // Good keys are renewed behind the caller's back; a caller without any waits for this look.
            state.withLock { $0.isLooking = true }
        }
    }
}
