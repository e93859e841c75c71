import Bytes
import Kinesis
import Platform
import Synchronization

// Concurrency: the supervisor says what there is, whoever asks gathers; the threads that are asked answer in their own time.

/// Where the parts of an agent are to be asked, and by whom: the admin server.
final class StatusBoard: Sendable {
    private struct State {
        var configuration: Configuration
        var feeds: [Feed] = []
        var last: (at: Instant, status: AgentStatus)?
        /// Since when the lane owes an answer.
        var askedLane: Instant?
    }

    private let state: Mutex<State>
    private let control: LaneControl
    private let laneBell: Doorbell
    private let checkpoints: Checkpoints
    private let ledger: Ledger
    private let spool: Spool
    private let counters: Counters
    private let endpoint: String?
    private let began = Instant.now
    private let started = Machine.wallMilliseconds()

    /// How long an answer is waited for; the last one stands then.
    private static let patience: Duration = .milliseconds(20)
    /// Who asks more often gets the same: looking costs the agent little, and a flood of looks no more.
    private static let freshness: Duration = .milliseconds(50)

    init(
        _ configuration: Configuration,
        endpoint: KinesisEndpoint?,
        control: LaneControl,
        laneBell: Doorbell,
        checkpoints: Checkpoints,
        ledger: Ledger,
        spool: Spool,
        counters: Counters
    ) {
        state = Mutex(State(configuration: configuration))
        (self.control, self.laneBell, self.checkpoints, self.ledger) = (control, laneBell, checkpoints, ledger)
        (self.spool, self.counters, self.endpoint) = (spool, counters, endpoint?.url)
    }

    /// Says what there is to ask from now on.
    func show(_ configuration: Configuration, _ feeds: [Feed]) {
        state.withLock { ($0.configuration, $0.feeds) = (configuration, feeds) }
    }

    /// Asks every part, and puts together what they answer within some milliseconds.
    func status(version: String, events: RecentEvents) -> AgentStatus {
        let now = Instant.now
        let (configuration, feeds, last) = state.withLock { ($0.configuration, $0.feeds, $0.last) }
        if let last, now - last.at < Self.freshness { return last.status }
        let silence = ask(feeds, now)
        let time = Machine.wallMilliseconds()
        let files = FileLag.furthest(feeds.compactMap(\.inquiry.lastAnswer).joined()).map { file in
            var file = file
            file.delivered = checkpoints.entry(of: file.source)?.position ?? file.size
            return file
        }.sorted { $0.lag > $1.lag }
        let status = AgentStatus(
            version: version,
            started: started,
            time: time,
            uptime: now - began,
            isStopping: control.deadline != nil,
            configuration: configuration,
            endpoint: endpoint ?? KinesisEndpoint(configuration.outputs[0]).url,
            lastFailure: control.lastFailure.map { "\($0)" },
            counters: counters,
            accounts: ledger.accounts,
            lane: control.inquiry.lastAnswer,
            laneSilence: silence,
            files: files,
            spool: .init(
                isOn: spool.isOn,
                bytes: spool.size,
                owedBytes: spool.owedBytes,
                roomBytes: max(0, spool.room),
                maxBytes: configuration.outputs[0].spool.maxSize,
                oldest: spool.oldest.map { .milliseconds(max(0, Int(time) - $0)) }
            ),
            events: events.all,
            process: Machine.figures()
        )
        state.withLock { $0.last = (now, status) }
        return status
    }

    /// - Returns: how long the lane has owed an answer.
    private func ask(_ feeds: [Feed], _ now: Instant) -> Duration {
        let ofFiles = feeds.filter { $0.part == .files }
        for feed in ofFiles { feed.ask() }
        // Late for who asked it, it has been answered.
        if !control.inquiry.isOpen { state.withLock { $0.askedLane = nil } }
        control.inquiry.ask()
        laneBell.ringAlways()
        let end = now + Self.patience
        while control.inquiry.isOpen || ofFiles.contains(where: \.inquiry.isOpen), Instant.now < end {
            Machine.nap(.microseconds(200))
        }
        let isSilent = control.inquiry.isOpen
        return state.withLock { state in
            state.askedLane = isSilent ? state.askedLane ?? now : nil
            return state.askedLane.map { now - $0 } ?? .zero
        }
    }
}
