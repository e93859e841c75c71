import Kinesis
import Logging
import Platform

// Concurrency: belongs to the thread `penstock-state`, but for `control`, the bells, and what its threads share.

/// Starts the agent's other threads, writes its state down, and takes on other configurations.
struct Supervisor {
    var configuration: Configuration
    let once: Bool
    let endpoint: KinesisEndpoint?
    let credentials: CredentialSource?
    let control: LaneControl
    let bell: Doorbell
    let laneBell: Doorbell
    let checkpoints: Checkpoints
    let ledger: Ledger
    let spool: Spool
    let sockets: SocketRegistry
    let counters: Counters
    let log: Logger

    /// Collectors, each with its thread.
    private var collectors: [(feed: Feed, thread: Thread)] = []
    private var isStopping = false
    /// What the inputs of streams listen on, by their names.
    private var streams: [String: StreamSockets]

    /// Holds the longest record twice, as its entries must.
    private static let ringBytes = 2 << 20
    /// What the process takes beside rings and aggregates: its code, libcurl's buffers, the state.
    private static let baseMemory = 32 << 20
    private static let checkpointPeriod: Duration = .seconds(1)
    private static let newFilePeriod: Duration = .milliseconds(50)

    init(
        _ configuration: Configuration,
        once: Bool,
        endpoint: KinesisEndpoint?,
        credentials: CredentialSource?,
        control: LaneControl,
        bell: Doorbell,
        laneBell: Doorbell,
        checkpoints: Checkpoints,
        ledger: Ledger,
        spool: Spool,
        sockets: SocketRegistry,
        streams: [String: StreamSockets],
        counters: Counters,
        log: Logger
    ) {
        (self.configuration, self.once, self.endpoint, self.credentials) = (configuration, once, endpoint, credentials)
        (self.control, self.bell, self.laneBell) = (control, bell, laneBell)
        (self.checkpoints, self.ledger, self.spool) = (checkpoints, ledger, spool)
        (self.sockets, self.streams, self.counters, self.log) = (sockets, streams, counters, log)
    }

    private var output: Configuration.Output { configuration.outputs[0] }
    private var folder: String { configuration.agent.stateDirectory }

    /// Runs the agent, from its first thread to its last checkpoint.
    ///
    /// - Returns: whether the last state was written.
    mutating func run(_ feeds: [Feed]) -> Bool {
        start(feeds)
        let lane = startLane(feeds)
        // A change is written at once, but no more than once a period, and sooner only for new files; without changes this
        // thread sleeps.
        var lastWrite = ContinuousClock.now - Self.checkpointPeriod
        while control.end == nil {
            bell.prepareToSleep()
            if !hasWork { bell.wait(atMost: isDirty ? lastWrite + pause - .now : nil) }
            bell.wake()
            if control.deadline != nil, !isStopping { stopReading() }
            if let next = control.takeConfiguration(), !isStopping { reload(next) }
            guard isDirty, .now - lastWrite >= pause else { continue }
            _ = write()
            lastWrite = .now
        }
        stopReading()
        for collector in collectors { collector.thread.join() }
        lane.join()
        return write()
    }

    private var hasWork: Bool {
        control.end != nil || control.hasConfiguration || (control.deadline != nil && !isStopping)
    }

    private var isDirty: Bool { checkpoints.isDirty || ledger.isDirty }

    private var pause: Duration { checkpoints.hasUnknown ? Self.newFilePeriod : Self.checkpointPeriod }

    private func write() -> Bool {
        do { try ledger.write(folder) } catch {
            log.warning("the ledger cannot be written", metadata: ["reason": "\(error)"])
        }
        do { try checkpoints.writeIfChanged() } catch {
            log.error("checkpoints cannot be written, trying again", metadata: ["reason": "\(error)"])
            return false
        }
        return true
    }

    // MARK: threads

    /// A feed for each input.
    static func feeds(_ inputs: [Configuration.Input], laneBell: Doorbell) throws(SystemError) -> [Feed] {
        var feeds: [Feed] = []
        for input in inputs { feeds.append(try Feed(input, ringBytes: Self.ringBytes, laneBell: laneBell)) }
        return feeds
    }

    private mutating func start(_ feeds: [Feed]) {
        let (once, checkpoints, counters, log) = (once, checkpoints, counters, log)
        collectors += feeds.map { feed in
            if let sockets = streams[feed.input.name], feed.input.hasStreams { return (feed, stream(feed, sockets)) }
            let thread = Thread("collect-\(feed.input.name)") {
                var collector = FileCollector(feed, once: once, checkpoints: checkpoints, counters: counters, log: log)
                collector.run()
            }
            return (feed, thread)
        }
    }

    private func stream(_ feed: Feed, _ sockets: StreamSockets) -> Thread {
        let (counters, log) = (StreamCounters(), log)
        // Behind those of files, which count from 1.
        let source = 0x8000_0000 | UInt32(ledger.number(of: feed.input.name))
        return Thread("stream-\(feed.input.name)") {
            do throws(SystemError) {
                var collector = try StreamCollector(feed, sockets, source: source, counters: counters, log: log)
                collector.run()
            } catch {
                log.error("an input cannot wait for its senders", metadata: ["reason": "\(error)"])
                feed.end()
            }
        }
    }

    private func startLane(_ feeds: [Feed]) -> Thread {
        let (output, checkpoints, ledger, spool) = (output, checkpoints, ledger, spool)
        let (control, counters, log, bell) = (control, counters, log, laneBell)
        let (caller, memory) = (caller(), memory(for: feeds.count))
        let path = ShardMapFile.path(folder, output.name)
        return Thread("penstock-lane") {
            var lane = Lane(
                feeds: feeds,
                output: output,
                caller: caller(),
                checkpoints: checkpoints,
                ledger: ledger,
                spool: spool,
                shardMapPath: path,
                control: control,
                memoryBudget: memory,
                bell: bell,
                counters: counters,
                log: log,
                seed: .random(in: .min ... .max)
            )
            lane.run()
        }
    }

    private mutating func stopReading() {
        isStopping = true
        for collector in collectors { collector.feed.stop() }
        laneBell.ringAlways()
    }

    /// What is left for aggregates.
    private func memory(for feeds: Int) -> Int {
        max(16 << 20, configuration.agent.memoryLimit - feeds * Self.ringBytes - Self.baseMemory)
    }

    /// Makes the caller, in the thread that will own it.
    private func caller() -> @Sendable () -> KinesisCaller {
        let (output, endpoint, credentials, log) = (output, endpoint, credentials, log)
        return {
            let isOwn = endpoint != nil
            let endpoint = endpoint ?? KinesisEndpoint(output)
            var options = HTTPClient.Options(url: endpoint.url)
            options.connectTimeout = output.connectTimeout
            options.timeout = output.timeout
            options.maxConnections = output.maxInFlight
            options.caFile = output.caFile.isEmpty ? nil : output.caFile
            // A Kinesis that the caller of the agent has started is on this machine.
            options.proxy = isOwn ? .none : output.httpProxy
            let wire: WireChoice =
                switch output.wire {
                case .auto: WireChoice()
                case .cbor: WireChoice(forced: .cbor)
                case .json: WireChoice(forced: .json)
                }
            return KinesisCaller(
                endpoint,
                stream: output.stream,
                options: options,
                wire: wire,
                credentials: credentials ?? CredentialSource(output),
                log: log
            )
        }
    }

    // MARK: another configuration

    /// Takes on another configuration: inputs that are the same go on, others end and begin; nothing is lost or read again.
    private mutating func reload(_ next: Configuration) {
        let fixed = configuration.needsRestart(for: next)
        guard fixed.isEmpty else {
            log.error(
                "the configuration changes what only a restart can: nothing of it is taken on",
                metadata: ["keys": "\(fixed.joined(separator: ", "))"]
            )
            return
        }
        let kept = collectors.filter { collector in next.activeInputs.contains { $0.isSame(as: collector.feed.input) } }
        let ending = collectors.filter { collector in !kept.contains { $0.feed === collector.feed } }
        let beginning = next.activeInputs.filter { input in !kept.contains { $0.feed.input.isSame(as: input) } }
        let feeds: [Feed]
        let begun: [String: StreamSockets]
        do {
            begun = try sockets.streams(of: beginning, beside: configuration.activeInputs)
            feeds = try Self.feeds(beginning, laneBell: laneBell)
        } catch {
            log.error("the configuration cannot be taken on", metadata: ["reason": "\(error)"])
            return
        }
        for collector in kept { renewCertificates(of: collector.feed.input.name) }
        let isOtherCaller = configuration.outputs[0].callsOtherwise(than: next.outputs[0])
        configuration = next
        spool.limit(to: .init(maxSize: output.spool.maxSize, keepFree: output.spool.keepFree))
        // The lane knows of those that begin before the others end: it never has none.
        for collector in ending { collector.feed.retire() }
        control.update(
            .init(
                added: feeds,
                output: output,
                caller: isOtherCaller ? caller() : nil,
                memoryBudget: memory(for: kept.count + feeds.count)
            )
        )
        laneBell.ringAlways()
        for collector in ending { collector.feed.stop() }
        for collector in ending { collector.thread.join() }
        collectors = kept
        streams.merge(begun) { _, new in new }
        start(feeds)
        streams = streams.filter { name, _ in next.activeInputs.contains { $0.name == name && $0.hasStreams } }
        sockets.close(allBut: next.activeInputs)
        log.notice(
            "another configuration is taken on",
            metadata: ["inputs_ended": "\(ending.count)", "inputs_begun": "\(feeds.count)"]
        )
    }

    private func renewCertificates(of input: String) {
        do { try streams[input]?.certificates?.reload() } catch {
            log.error(
                "a certificate cannot be renewed, the old one stays",
                metadata: ["input": "\(input)", "reason": "\(error)"]
            )
        }
    }
}

extension Configuration {
    /// The inputs whose records go somewhere.
    var activeInputs: [Input] {
        let from = outputs[0].from
        return inputs.filter { from.isEmpty || from.contains($0.name) }
    }

    /// Keys of `next` that differ and that a running agent cannot take on.
    func needsRestart(for next: Configuration) -> [String] {
        let (mine, other) = (outputs[0], next.outputs[0])
        let keys: [(String, Bool)] = [
            ("agent.state_dir", agent.stateDirectory != next.agent.stateDirectory),
            ("agent.dead_letters", agent.deadLettersMaxSize != next.agent.deadLettersMaxSize),
            ("the output's name", mine.name != other.name),
            ("outputs.\(mine.name).spool.sync", mine.spool.sync != other.spool.sync),
            ("outputs.\(mine.name).spool.max_size", (mine.spool.maxSize == 0) != (other.spool.maxSize == 0)),
            ("outputs.\(mine.name).endpoint", (mine.endpoint == .embedded) != (other.endpoint == .embedded)),
        ]
        return keys.filter(\.1).map(\.0)
    }
}

extension Configuration.Input {
    /// Whether another configuration means the same by it, wherever in the file it stands.
    func isSame(as other: Self) -> Bool {
        var other = other
        other.place = place
        return self == other
    }
}

extension Configuration.Output {
    /// Whether calls go elsewhere, or in another way.
    func callsOtherwise(than other: Self) -> Bool {
        (stream, endpoint, region, fips, dualStack) != (
            other.stream, other.endpoint, other.region, other.fips, other.dualStack
        ) || (profile, roleARN, externalID) != (other.profile, other.roleARN, other.externalID)
            || (proxy, caFile, wire) != (other.proxy, other.caFile, other.wire)
            || (timeout, connectTimeout, maxInFlight) != (other.timeout, other.connectTimeout, other.maxInFlight)
    }
}
