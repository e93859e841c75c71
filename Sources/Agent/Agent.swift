import Bytes
import Kinesis
public import Logging
public import Platform
import Synchronization

/// The running agent: one thread an input, one for the lane, one that writes checkpoints.
///
///     collector ─▶ ring ─▶ aggregator ─▶ rate limiter ─▶ batcher ─▶ caller ─▶ Kinesis
///     (thread per input)   └─────────────── a lane: one thread ──────────────┘
///                                                 │
///                        state file ◀── checkpoints ◀── acknowledgements
public final class Agent: Sendable {
    public let counters = Counters()
    private let control: LaneControl
    private let supervisorBell: Doorbell
    private let supervisor: Thread
    private let ending: Ending
    private let board: StatusBoard
    private let checkpoints: Checkpoints
    /// Names of the inputs of files that it began with.
    private let fileInputs: [String]

    /// Rung when the agent has ended.
    public let ended: Doorbell

    /// Rung when a configuration was taken on, or was not.
    public let reloaded: Doorbell
    private let laneBell: Doorbell
    private let ledger: Ledger

    /// How an agent came to its end.
    public enum End: Sendable {
        case delivered
        /// What was not delivered lies in the spool.
        case spooled(records: Int)
        /// The last state could not be written: the next start sends again what came since the one before.
        case stateNotWritten
        /// What was not delivered stays in its files.
        case gaveUp(CallFailure?)
    }

    /// Why an agent did not start.
    public enum StartFault: Error, CustomStringConvertible {
        case stateDirectory(SystemError)
        case otherAgent(stateDirectory: String, pid: Int32?)
        case newerState(path: String, version: Int)
        case spool(String)
        /// An input cannot listen.
        case socket(String, isPermission: Bool)
        /// Sockets have no end that could be read to.
        case onceWithSockets([String])
        case system(SystemError)

        public var description: String {
            switch self {
            case .stateDirectory(let error):
                "the state directory cannot be used: \(error); create it, or set agent.state_dir"
            case .otherAgent(let directory, let pid):
                "another agent\(pid.map { " (process \($0))" } ?? "") uses \(directory): stop it, or give this one its own"
                    + " agent.state_dir"
            case .newerState(let path, let version):
                "\(path) was written by a newer penstock (version \(version)): install that one again, or move the file away"
                    + " and read every file by start_at"
            case .spool(let fault), .socket(let fault, _): fault
            case .onceWithSockets(let inputs):
                "--once reads to an end, which sockets do not have: leave it out, or name inputs of files alone in `from` of "
                    + "the output (sockets: \(inputs.joined(separator: ", ")))"
            case .system(let error): "\(error)"
            }
        }
    }

    /// Starts an agent.
    ///
    /// - Parameters:
    ///   - endpoint: where the output's stream is; nil: as configured.
    ///   - once: read every file to its end, deliver, and end.
    ///   - credentials: where the access key comes from.
    public init(
        _ configuration: Configuration,
        endpoint: KinesisEndpoint? = nil,
        once: Bool = false,
        credentials: CredentialSource? = nil,
        log: Logger
    ) throws(StartFault) {
        let folder = configuration.agent.stateDirectory
        let inputs = configuration.activeInputs
        let withSockets = inputs.filter { $0.socket != nil }
        if once, !withSockets.isEmpty { throw .onceWithSockets(withSockets.map(\.name)) }
        let lock = try Self.lock(folder)
        let checkpoints = try Self.loadCheckpoints(folder, log)
        Machine.raiseDescriptorLimit()
        let sockets = SocketRegistry()
        let streams: [String: StreamSockets]
        do { streams = try sockets.streams(of: inputs) } catch {
            throw .socket("\(error)", isPermission: error.isPermission)
        }
        for socket in sockets.unclaimed(by: inputs) {
            log.warning(
                "a socket that was passed belongs to no input: name it like one (FileDescriptorName=), or list its address",
                metadata: ["name": "\(socket.name)", "address": "\(socket.place)"]
            )
        }
        let parts: (feeds: [Feed], laneBell: Doorbell, ended: Doorbell, reloaded: Doorbell, bell: Doorbell)
        do throws(SystemError) {
            let laneBell = try Doorbell()
            parts = (
                try Supervisor.feeds(inputs, checkpoints, laneBell: laneBell), laneBell, try Doorbell(), try Doorbell(),
                try Doorbell()
            )
        } catch { throw .system(error) }
        let open = SocketHandover(try Self.open(parts.feeds, sockets))
        (ended, supervisorBell, ending) = (parts.ended, parts.bell, Ending())
        (reloaded, laneBell) = (parts.reloaded, parts.laneBell)
        control = LaneControl(
            once: once,
            patience: configuration.agent.shutdownTimeout,
            ended: parts.bell,
            reloaded: parts.reloaded
        )

        let ledger = Ledger(inputs: inputs.map(\.name))
        self.ledger = ledger
        let spool = try Self.openSpool(configuration, once: once, bell: parts.laneBell, ledger, log)
        checkpoints.setBell(parts.bell)
        ledger.setBell(parts.bell)
        board = StatusBoard(
            configuration,
            endpoint: endpoint,
            control: control,
            laneBell: parts.laneBell,
            checkpoints: checkpoints,
            ledger: ledger,
            spool: spool,
            counters: counters
        )
        self.checkpoints = checkpoints
        fileInputs = inputs.filter { $0.socket == nil }.map(\.name)
        let (lockHolder, board) = (LockHolder(lock), board)
        let (control, counters, ending, ended) = (control, counters, ending, ended)
        supervisor = Thread("penstock-state") {
            var supervisor = Supervisor(
                configuration,
                once: once,
                endpoint: endpoint,
                credentials: credentials,
                control: control,
                bell: parts.bell,
                laneBell: parts.laneBell,
                checkpoints: checkpoints,
                ledger: ledger,
                spool: spool,
                sockets: sockets,
                streams: streams,
                board: board,
                counters: counters,
                log: log
            )
            let isWritten = supervisor.run(parts.feeds, open)
            lockHolder.release()
            ending.end.withLock { end in
                switch control.end {
                case _ where !isWritten: end = .stateNotWritten
                case .delivered, nil: end = .delivered
                case .spooled: end = .spooled(records: ledger.total(.spooled).records)
                case .gaveUp(let failure): end = .gaveUp(failure)
                }
            }
            ended.ringAlways()
        }
    }

    /// Stops reading; delivers what was read, within the shutdown timeout.
    public func stop() {
        if control.deadline == nil { control.deadline = .now + control.patience }
        supervisorBell.ringAlways()
    }

    /// Whether every input of files has looked at them, in this run or an earlier one: what appears from now on is new.
    public var knowsItsFiles: Bool {
        fileInputs.allSatisfy { checkpoints.hasSeen($0) }
    }

    /// Everything the agent knows of itself; waits some milliseconds for its threads' answers.
    package func status(version: String, events: RecentEvents) -> AgentStatus {
        board.status(version: version, events: events)
    }

    /// Takes on another configuration, as far as a running agent can; the log says what came of it.
    public func reload(_ configuration: Configuration) {
        control.reload(configuration)
        supervisorBell.ringAlways()
    }

    /// Whether a configuration waits to be taken on, or is being taken on.
    public var isReloading: Bool { control.isReloading }

    /// Asks the threads that must never stand still for a sign of life; `silentThreads` names who still owes it.
    public func askThreads() {
        control.pulse.ask()
        laneBell.ringAlways()
        supervisorBell.ringAlways()
    }

    /// The threads that have not turned since they were asked.
    public var silentThreads: [Pulse.Member] { control.pulse.silent }

    /// How it goes, in a line.
    public var summary: String {
        let delivered = "\(counters.lane.recordsDelivered.now) records delivered"
        let spooled = ledger.total(.spooled).records
        let waiting = spooled > 0 ? ", \(spooled) wait in the spool" : ""
        guard let failure = control.lastFailure else { return delivered + waiting }
        return "Kinesis takes nothing: \(failure); \(delivered)\(waiting)"
    }

    /// Waits until the agent has ended: every thread joined, the checkpoints written.
    public func wait() -> End {
        ending.joined.withLock { joined in
            if !joined { supervisor.join() }
            joined = true
        }
        return ending.end.withLock { $0 ?? .delivered }
    }

    private final class Ending: Sendable {
        let end = Mutex<End?>(nil)
        let joined = Mutex(false)
    }

    /// Keeps the lock until the last checkpoint is written.
    private final class LockHolder: Sendable {
        private let lock: Mutex<LockFile?>
        init(_ lock: consuming LockFile) { self.lock = Mutex(lock) }
        func release() { lock.withLock { $0 = nil } }
    }

    private static func lock(_ folder: String) throws(StartFault) -> LockFile {
        do { try Folder.create(folder) } catch { throw .stateDirectory(error) }
        do { return try LockFile(folder + "/lock") } catch {
            switch error {
            case .held(let pid): throw .otherAgent(stateDirectory: folder, pid: pid)
            case .system(let error): throw .stateDirectory(error)
            }
        }
    }

    /// Opens every socket of datagrams, for each feed its own: who starts an agent shall hear of what cannot be had.
    private static func open(_ feeds: [Feed], _ sockets: SocketRegistry) throws(StartFault) -> [[OpenSocket]] {
        var open: [[OpenSocket]] = []
        for feed in feeds {
            do { open.append(try OpenSocket.all(of: feed, sockets.matching(feed.input))) } catch {
                throw .socket("\(error)", isPermission: error.isPermission)
            }
        }
        return open
    }

    private static func loadCheckpoints(_ folder: String, _ log: Logger) throws(StartFault) -> Checkpoints {
        do {
            let checkpoints = try Checkpoints(folder: folder)
            if let setAside = checkpoints.setAside {
                log.error(
                    "the state file was damaged and is set aside: files that it no longer names are read by start_at",
                    metadata: ["kept": "\(setAside)"]
                )
            }
            if checkpoints.torn > 0 {
                log.notice(
                    "the last write of the state file was torn, its positions before that hold",
                    metadata: ["bytes": "\(checkpoints.torn)"]
                )
            }
            return checkpoints
        } catch {
            switch error {
            case .newer(let path, let version): throw .newerState(path: path, version: version)
            case .system(let error): throw .stateDirectory(error)
            }
        }
    }

    private static func openSpool(
        _ configuration: Configuration,
        once: Bool,
        bell: Doorbell,
        _ ledger: Ledger,
        _ log: Logger
    ) throws(StartFault) -> Spool {
        let output = configuration.outputs[0]
        var options = Spool.Options()
        // Who reads once gives up when nothing can be delivered: the files are the better spool then.
        if output.spool.maxSize > 0, !once {
            options.limits = .init(maxSize: output.spool.maxSize, keepFree: output.spool.keepFree)
        }
        options.sync =
            switch output.spool.sync {
            case .always: .always
            case .period(let period): .period(period)
            case .never: .never
            }
        options.deadLettersMaxSize = configuration.agent.deadLettersMaxSize
        do {
            return try Spool(
                stateDirectory: configuration.agent.stateDirectory,
                name: output.name,
                options,
                bell: bell,
                ledger: ledger,
                log: log
            )
        } catch { throw .spool("\(error)") }
    }
}

extension KinesisEndpoint {
    /// Where an output says its stream is.
    ///
    /// `embedded` has no address of its own: whoever starts it passes one.
    public init(_ output: Configuration.Output) {
        switch output.endpoint {
        case .region, .embedded: self.init(output.endpoints, stream: output.stream)
        case .url(let url): self.init(url: url, region: output.region)
        }
    }
}

extension CredentialSource {
    /// Where an output says its keys come from.
    public init(_ output: Configuration.Output) {
        self.init(profile: output.profile)
        (roleARN, externalID) = (output.roleARN, output.externalID)
        (endpoints, proxy) = (output.endpoints, output.httpProxy)
        caFile = output.caFile.isEmpty ? nil : output.caFile
    }
}

extension Configuration.Output {
    fileprivate var endpoints: RegionalEndpoints {
        RegionalEndpoints(region: region, isFIPS: fips, isDualStack: dualStack)
    }

    var httpProxy: HTTPClient.Proxy { proxy.isEmpty ? .environment : .url(proxy) }
}
