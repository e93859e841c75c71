import Bytes
package import Platform

/// Everything an agent knows of itself at a moment, for people and programs to look at.
package struct AgentStatus: Sendable {
    package enum State: String, Sendable {
        /// There is no shard map yet.
        case starting
        case delivering
        /// The endpoint fails: what comes is held, or spooled.
        case failing
        case stopping
    }

    package var version: String
    /// Milliseconds since 1970.
    package var started: Int64
    package var time: Int64
    package var uptime: Duration
    package var isStopping: Bool
    package var configuration: Configuration
    package var endpoint: String
    package var lastFailure: String?
    package var counters: Counters
    package var accounts: [Ledger.Account]
    /// Nil before the lane has answered for the first time.
    package var lane: LaneReport?
    /// Since when the lane has not answered, though it was asked.
    package var laneSilence: Duration
    /// The files with most to read.
    package var files: [FileLag]
    package var spool: SpoolFigures
    package var events: [RecentEvents.Event]
    package var process: Machine.Figures

    package struct SpoolFigures: Sendable {
        package var isOn: Bool
        package var bytes: Int
        package var owedBytes: Int
        package var roomBytes: Int
        package var maxBytes: Int
        /// Age of the oldest segment that is not delivered.
        package var oldest: Duration?
    }

    package var output: Configuration.Output { configuration.outputs[0] }

    package var stream: String { "\(output.stream)" }

    package var state: State {
        if isStopping { return .stopping }
        guard let lane else { return .starting }
        // A lane that cannot learn the shards fails, too.
        if lane.failingSince != nil { return .failing }
        return lane.shards == nil ? .starting : .delivering
    }

    /// How long the endpoint has failed.
    package var failing: Duration? { lane.flatMap { lane in lane.failingSince.map { lane.time - $0 } } }

    /// Age of the oldest record that is not delivered, in memory or in the spool.
    package var oldestUndelivered: Duration? {
        let live = lane.flatMap { lane in lane.oldestReceipt.map { lane.time - $0 } }
        return [live, spool.oldest].compactMap { $0 }.max()
    }

    /// How long a lane may be silent before it counts as stuck: its turns take milliseconds.
    package static let longestSilence: Duration = .seconds(10)

    package var isAlive: Bool { laneSilence < Self.longestSilence }

    /// Why nothing is delivered; nil: it is.
    package var unreadiness: String? {
        guard isAlive else { return "the lane has not answered for \(Int(laneSilence.inSeconds)) s" }
        switch state {
        case .delivering: return nil
        case .starting: return "the shards of the stream are not known yet"
        case .stopping: return "the agent is stopping"
        case .failing:
            return "the endpoint has failed for \(Int(failing?.inSeconds ?? 0)) s: \(lastFailure ?? "no answer")"
        }
    }
}
