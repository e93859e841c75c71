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
    private let feeds: [Feed]
    private let control: LaneControl
    private let laneBell: Doorbell
    private let shutdownTimeout: Duration
    private let supervisor: Thread
    private let ending: Ending

    /// Rung when the agent has ended.
    public let ended: Doorbell

    /// How an agent came to its end.
    public enum End: Sendable {
        case delivered
        /// What was not delivered lies in the spool.
        case spooled(records: Int)
        /// What was not delivered stays in its files.
        case gaveUp(CallFailure?)
    }

    /// Why an agent did not start.
    public enum StartFault: Error, CustomStringConvertible {
        case stateDirectory(SystemError)
        case otherAgent(stateDirectory: String, pid: Int32?)
        case newerState(path: String, version: Int)
        case spool(String)
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
            case .spool(let fault): fault
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
        let output = configuration.outputs[0]
        let inputs = configuration.inputs.filter { output.from.isEmpty || output.from.contains($0.name) }
        let folder = configuration.agent.stateDirectory
        let lock = try Self.lock(folder)
        let checkpoints = try Self.loadCheckpoints(folder, log)
        Machine.raiseDescriptorLimit()

        let parts: (feeds: [Feed], bell: Doorbell, ended: Doorbell, supervisorBell: Doorbell)
        do throws(SystemError) {
            let bell = try Doorbell()
            var feeds: [Feed] = []
            for input in inputs { feeds.append(try Feed(input, ringBytes: Self.ringBytes, laneBell: bell)) }
            parts = (feeds, bell, try Doorbell(), try Doorbell())
        } catch { throw .system(error) }
        (feeds, laneBell, ended) = (parts.feeds, parts.bell, parts.ended)
        let control = LaneControl(
            once: once,
            patience: configuration.agent.shutdownTimeout,
            ended: parts.supervisorBell
        )
        self.control = control
        shutdownTimeout = configuration.agent.shutdownTimeout
        ending = Ending()

        let caller = { @Sendable in
            Self.caller(
                output,
                endpoint ?? KinesisEndpoint(output),
                credentials ?? CredentialSource(profile: output.profile)
            )
        }
        let memory = max(16 << 20, configuration.agent.memoryLimit - feeds.count * Self.ringBytes - Self.baseMemory)
        let (feeds, counters, ending, ended, bell) = (feeds, counters, ending, ended, laneBell)
        let ledger = Ledger(inputs: inputs.map(\.name))
        let spool = try Self.openSpool(configuration, once: once, bell: parts.bell, ledger, log)
        let lockHolder = LockHolder(lock)
        checkpoints.setBell(parts.supervisorBell)
        ledger.setBell(parts.supervisorBell)
        supervisor = Thread("penstock-state") {
            // Top to bottom: everything starts, runs, and ends here.
            let collectors = feeds.map { feed in
                Thread("collect-\(feed.input.name)") {
                    var collector = FileCollector(
                        feed,
                        once: once,
                        checkpoints: checkpoints,
                        counters: counters,
                        log: log
                    )
                    collector.run()
                }
            }
            let lane = Thread("penstock-lane") {
                var lane = Lane(
                    feeds: feeds,
                    output: output,
                    caller: caller(),
                    checkpoints: checkpoints,
                    ledger: ledger,
                    spool: spool,
                    shardMapPath: ShardMapFile.path(folder, output.name),
                    control: control,
                    memoryBudget: memory,
                    bell: bell,
                    counters: counters,
                    log: log,
                    seed: .random(in: .min ... .max)
                )
                lane.run()
            }
            // A change is written at once, but no more than once a period, and sooner only for new files; without changes
            // this thread sleeps.
            var lastWrite = ContinuousClock.now - Self.checkpointPeriod
            while control.end == nil {
                let bell = parts.supervisorBell
                bell.prepareToSleep()
                if control.end == nil {
                    let pause = checkpoints.hasUnknown ? Self.newFilePeriod : Self.checkpointPeriod
                    bell.wait(atMost: checkpoints.isDirty || ledger.isDirty ? lastWrite + pause - .now : nil)
                }
                bell.wake()
                let pause = checkpoints.hasUnknown ? Self.newFilePeriod : Self.checkpointPeriod
                guard checkpoints.isDirty || ledger.isDirty, .now - lastWrite >= pause else { continue }
                Self.write(checkpoints, log)
                Self.write(ledger, folder, log)
                lastWrite = .now
            }
            for feed in feeds { feed.stop() }
            for collector in collectors { collector.join() }
            lane.join()
            Self.write(checkpoints, log)
            Self.write(ledger, folder, log)
            lockHolder.release()
            ending.end.withLock { end in
                switch control.end {
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
        if control.deadline == nil { control.deadline = .now + shutdownTimeout }
        for feed in feeds { feed.stop() }
        laneBell.ringAlways()
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

    /// Holds the longest record twice, as its entries must.
    private static let ringBytes = 2 << 20
    /// What the process takes beside rings and aggregates: its code, libcurl's buffers, the state.
    private static let baseMemory = 32 << 20
    private static let checkpointPeriod: Duration = .seconds(1)
    private static let newFilePeriod: Duration = .milliseconds(50)

    private static func lock(_ folder: String) throws(StartFault) -> LockFile {
        do { try Folder.create(folder) } catch { throw .stateDirectory(error) }
        do { return try LockFile(folder + "/lock") } catch {
            switch error {
            case .held(let pid): throw .otherAgent(stateDirectory: folder, pid: pid)
            case .system(let error): throw .stateDirectory(error)
            }
        }
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

    private static func write(_ checkpoints: Checkpoints, _ log: Logger) {
        do { try checkpoints.writeIfChanged() } catch {
            log.error("checkpoints cannot be written, trying again", metadata: ["reason": "\(error)"])
        }
    }

    private static func write(_ ledger: Ledger, _ folder: String, _ log: Logger) {
        do { try ledger.write(folder) } catch {
            log.debug("the ledger cannot be written", metadata: ["reason": "\(error)"])
        }
    }

    private static func caller(
        _ output: Configuration.Output,
        _ endpoint: KinesisEndpoint,
        _ credentials: CredentialSource
    ) -> KinesisCaller {
        var options = HTTPClient.Options(url: endpoint.url)
        options.connectTimeout = output.connectTimeout
        options.timeout = output.timeout
        options.maxConnections = output.maxInFlight
        options.caFile = output.caFile.isEmpty ? nil : output.caFile
        let wire: WireChoice =
            switch output.wire {
            case .auto: WireChoice()
            case .cbor: WireChoice(forced: .cbor)
            case .json: WireChoice(forced: .json)
            }
        return KinesisCaller(endpoint, stream: output.stream, options: options, wire: wire, credentials: credentials)
    }
}

extension KinesisEndpoint {
    /// Where an output says its stream is.
    ///
    /// `embedded` has no address of its own: whoever starts it passes one.
    public init(_ output: Configuration.Output) {
        switch output.endpoint {
        case .region, .embedded: self.init(region: output.region)
        case .url(let url): self.init(url: url, region: output.region)
        }
    }
}
