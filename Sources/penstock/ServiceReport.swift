import Agent
import Bytes
import Logging
import Platform

/// What the service manager hears of the agent: that it is ready, reloads, stops, lives, and how it goes.
struct ServiceReport {
    private let notifier = ServiceNotifier()
    private let agent: Agent
    private let log: Logger
    private var watchdog: Watchdog?
    private var status = ""
    /// Stands in the status until another configuration is taken on.
    private var refusal: String?
    private var isReloading = false
    private var isStopping = false
    private var isSilent = false

    /// What a stop may take beyond `shutdown_timeout`: threads end, and the last state is written.
    private static let ending: Duration = .seconds(10)

    /// Reports an agent that is ready.
    init(_ agent: Agent, _ log: Logger) {
        (self.agent, self.log) = (agent, log)
        watchdog = notifier.watchdog.map { Watchdog(period: $0, now: .now) }
        status = agent.summary
        notifier.tell(.ready, .status(status))
    }

    private var line: String { refusal.map { "\($0); \(agent.summary)" } ?? agent.summary }

    /// How long there is nothing to report, unless something happens; nil: for ever.
    var pause: Duration? { watchdog.map { max(.zero, $0.due - .now) } }

    /// A configuration is read.
    mutating func reloads() {
        notifier.tell(.reloading)
        isReloading = true
    }

    /// It was refused, the old one stays.
    mutating func refused(faults: Int) {
        isReloading = false
        refusal = "a configuration with \(faults == 1 ? "a fault" : "\(faults) faults") is refused, the old one stays"
        status = line
        notifier.tell(.ready, .status(status))
    }

    mutating func stops(within timeout: Duration) {
        guard !isStopping else { return }
        isStopping = true
        notifier.tell(.stopping, .takes(timeout + Self.ending), .status("delivering what was read"))
    }

    /// Reports what has happened since the last turn.
    mutating func turn() {
        agent.reloaded.wake()
        if isReloading, !agent.isReloading {
            (isReloading, refusal) = (false, nil)
            status = line
            notifier.tell(.ready, .status(status))
        }
        // How long a stop may take is a bound of its own, and threads that have ended answer nothing.
        let silent = isStopping ? [] : agent.silentThreads
        switch watchdog?.act(now: .now, isAnswered: silent.isEmpty) {
        case nil, .nothing: break
        case .ask: agent.askThreads()
        case .passOnAndAsk:
            isSilent = false
            notifier.tell(.alive)
            agent.askThreads()
            reportStatus()
        case .keepSilent:
            if !isSilent {
                log.critical(
                    "a thread stands still: the service manager gets no sign of life, and will start the agent anew",
                    metadata: ["threads": "\(silent.map(\.rawValue).joined(separator: ", "))"]
                )
            }
            isSilent = true
        }
    }

    private mutating func reportStatus() {
        let now = line
        guard now != status, !isStopping else { return }
        status = now
        notifier.tell(.status(now))
    }
}
