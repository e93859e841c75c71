import Bytes
import Kinesis
import Platform
import Synchronization

/// What a lane and the agent around it tell each other.
final class LaneControl: Sendable {
    /// Reading is done once: a lane that cannot deliver gives up after `patience`, and at once where waiting cannot help.
    let once: Bool
    /// What somebody wants to know of the lane.
    let inquiry = Inquiry<LaneReport>()
    var patience: Duration { state.withLock { $0.patience } }
    private let state: Mutex<State>
    private let ended: Doorbell
    private let reloaded: Doorbell
    let pulse = Pulse()

    private struct State {
        var patience: Duration
        var configuration: Configuration?
        var isReloading = false
        var deadline: Instant?
        var lastFailure: CallFailure?
        var end: End?
        var update: Update?
    }

    /// What another configuration changes for the lane.
    struct Update: Sendable {
        /// Feeds that begin; those that end are retired.
        var added: [Feed]
        var output: Configuration.Output
        /// Where the endpoint, or the way to it, is another.
        var caller: (@Sendable () -> KinesisCaller)?
        var memoryBudget: Int
    }

    enum End: Sendable {
        /// Everything that was read is in Kinesis.
        case delivered
        /// What is not in Kinesis lies in the spool.
        case spooled
        /// Something is not; it stays in its files, and the checkpoints know.
        case gaveUp(CallFailure?)
    }

    init(once: Bool, patience: Duration, ended: Doorbell, reloaded: Doorbell) {
        (self.once, self.ended, self.reloaded) = (once, ended, reloaded)
        state = Mutex(State(patience: patience))
    }

    /// When the lane must have ended, once a stop was asked for.
    var deadline: Instant? {
        get { state.withLock { $0.deadline } }
        set { state.withLock { $0.deadline = newValue } }
    }

    /// The last call that failed, for the message at the end.
    var lastFailure: CallFailure? {
        get { state.withLock { $0.lastFailure } }
        set { state.withLock { $0.lastFailure = newValue } }
    }

    /// Hands the supervisor another configuration; wake it then.
    func reload(_ configuration: Configuration) {
        state.withLock { state in
            state.configuration = configuration
            state.isReloading = true
            state.patience = configuration.agent.shutdownTimeout
        }
    }

    var hasConfiguration: Bool { state.withLock { $0.configuration != nil } }

    func takeConfiguration() -> Configuration? { state.withLock { $0.configuration.take() } }

    /// Whether a configuration waits to be taken on, or is being taken on.
    var isReloading: Bool { state.withLock { $0.isReloading } }

    /// The supervisor is through with the configuration that it took.
    func reloadEnded() {
        state.withLock { $0.isReloading = $0.configuration != nil }
        reloaded.ringAlways()
    }

    /// Hands the lane a change; wake it then.
    func update(_ update: Update) {
        state.withLock { state in
            var update = update
            if let earlier = state.update {
                update.added = earlier.added + update.added
                update.caller = update.caller ?? earlier.caller
            }
            state.update = update
        }
    }

    var hasUpdate: Bool { state.withLock { $0.update != nil } }

    func takeUpdate() -> Update? { state.withLock { $0.update.take() } }

    var end: End? { state.withLock { $0.end } }

    func finish(_ end: End) {
        state.withLock { $0.end = end }
        ended.ringAlways()
    }
}
