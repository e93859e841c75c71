import Bytes
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
    let board: StatusBoard
    let counters: Counters
    let log: Logger

    /// Collectors, each with its thread.
    private var collectors: [(feed: Feed, thread: Thread)] = []
    /// Those of streams that another configuration has ended, and that wait for room for what they have read.
    private var retiring: [(feed: Feed, thread: Thread)] = []
    private var isStopping = false
    /// What the inputs of streams listen on, by their names.
    private var streams: [String: StreamSockets]

    private static let checkpointPeriod: Duration = .seconds(1)
    private static let newFilePeriod: Duration = .milliseconds(50)
    /// How long another configuration waits for streams to end before it leaves them to themselves.
    private static let endingStreams: Duration = .seconds(2)

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
        board: StatusBoard,
        counters: Counters,
        log: Logger
    ) {
        (self.configuration, self.once, self.endpoint, self.credentials) = (configuration, once, endpoint, credentials)
        (self.control, self.bell, self.laneBell) = (control, bell, laneBell)
        (self.checkpoints, self.ledger, self.spool) = (checkpoints, ledger, spool)
        (self.sockets, self.streams, self.board) = (sockets, streams, board)
        (self.counters, self.log) = (counters, log)
    }

    private var output: Configuration.Output { configuration.outputs[0] }
    private var folder: String { configuration.agent.stateDirectory }

    /// Runs the agent, from its first thread to its last checkpoint.
    ///
    /// - Returns: whether the last state was written.
    mutating func run(_ feeds: [Feed], _ open: SocketHandover) -> Bool {
        start(feeds, open.take())
        let lane = startLane(feeds)
        // A change is written at once, but no more than once a period, and sooner only for new files; without changes this
        // thread sleeps.
        var lastWrite = Instant.now - Self.checkpointPeriod
        while control.end == nil {
            bell.prepareToSleep()
            if !hasWork { bell.wait(atMost: isDirty ? lastWrite + pause - .now : nil) }
            bell.wake()
            if control.deadline != nil, !isStopping { stopReading() }
            if let next = control.takeConfiguration(), !isStopping {
                reload(next)
                control.reloadEnded()
            }
            control.pulse.answer(.state)
            guard isDirty, .now - lastWrite >= pause else { continue }
            _ = write()
            lastWrite = .now
        }
        stopReading()
        for collector in collectors + retiring { collector.thread.join() }
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

    /// Feeds for the inputs: one of an input's files, one for each thread that reads its sockets.
    static func feeds(
        _ inputs: [Configuration.Input],
        _ checkpoints: Checkpoints,
        laneBell: Doorbell
    ) throws(SystemError) -> [Feed] {
        var feeds: [Feed] = []
        for input in inputs {
            guard let settings = input.socket else {
                feeds.append(try Feed(input, laneBell: laneBell))
                continue
            }
            for part in settings.parts {
                let source = checkpoints.addSocket(input.name)
                feeds.append(try Feed(input, part, source: source, laneBell: laneBell))
            }
        }
        return feeds
    }

    /// - Parameter open: each feed's sockets of datagrams that are open already.
    private mutating func start(_ feeds: [Feed], _ open: [[OpenSocket]] = []) {
        let (once, checkpoints, ledger, counters, log) = (once, checkpoints, ledger, counters, log)
        for (index, feed) in feeds.enumerated() {
            feed.keys = output.partitionKey.keying(of: feed.input)
            let open = open.indices.contains(index) ? open[index] : []
            let thread: Thread
            switch feed.part {
            case .files:
                thread = Thread("collect-\(feed.input.name)") {
                    var collector = FileCollector(
                        feed,
                        once: once,
                        checkpoints: checkpoints,
                        counters: counters,
                        log: log
                    )
                    collector.run()
                }
            case .streams: thread = stream(feed, streams[feed.input.name]!)
            case .udp, .unixgram:
                let settings = feed.input.socket!
                let passed = sockets.matching(feed.input)
                thread = Thread("collect-\(feed.input.name)") {
                    var collector = DatagramCollector(
                        feed,
                        settings,
                        sockets: open,
                        passed: passed,
                        ledger: ledger,
                        counters: counters,
                        log: log
                    )
                    collector.run()
                }
            }
            collectors.append((feed, thread))
        }
        board.show(configuration, collectors.map(\.feed))
    }

    private func stream(_ feed: Feed, _ sockets: StreamSockets) -> Thread {
        let (ledger, counters, log) = (ledger, counters, log)
        return Thread("stream-\(feed.input.name)") {
            do throws(SystemError) {
                var collector = try StreamCollector(feed, sockets, ledger: ledger, counters: counters, log: log)
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
        let (caller, memory) = (caller(), memory)
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
    private var memory: Int {
        MemoryPlan(limit: configuration.agent.memoryLimit, inputs: configuration.activeInputs).aggregates
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
            options.timeoutBytes = max(output.callMaxSize, Limits.recordBytes)
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
        forgetRetired()
        guard retiring.isEmpty || !ending.contains(where: { $0.feed.part == .streams }) else {
            log.error(
                """
                the configuration cannot be taken on: streams that another has ended still wait for room for what they have \
                read; try again when Kinesis takes it, or the spool
                """,
                metadata: ["inputs": "\(retiring.map(\.feed.input.name).joined(separator: ", "))"]
            )
            return
        }
        let feeds: [Feed]
        let open: [[OpenSocket]]
        let begun: [String: StreamSockets]
        do {
            begun = try sockets.streams(of: beginning, beside: configuration.activeInputs)
            feeds = try Self.feeds(beginning, checkpoints, laneBell: laneBell)
            let held = ending.flatMap { $0.feed.input.socket?.listen ?? [] }
            open = try feeds.map { try OpenSocket.all(of: $0, sockets.matching($0.input), but: held) }
        } catch {
            sockets.close(allBut: configuration.activeInputs)
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
                memoryBudget: memory
            )
        )
        laneBell.ringAlways()
        for collector in ending { collector.feed.stop() }
        join(ending)
        collectors = kept
        streams.merge(begun) { _, new in new }
        for collector in kept { collector.feed.keys = output.partitionKey.keying(of: collector.feed.input) }
        start(feeds, open)
        streams = streams.filter { name, _ in next.activeInputs.contains { $0.name == name && $0.hasStreams } }
        sockets.close(allBut: next.activeInputs)
        log.notice(
            "another configuration is taken on",
            metadata: ["inputs_ended": "\(ending.count)", "inputs_begun": "\(feeds.count)"]
        )
    }

    /// Waits for collectors that end; not for ever for those of streams, which must not drop what they have read.
    private mutating func join(_ ending: [(feed: Feed, thread: Thread)]) {
        let end = Instant.now + Self.endingStreams
        for collector in ending {
            let isOfStreams = collector.feed.part == .streams
            while isOfStreams, !collector.feed.hasEnded, .now < end {
                Machine.nap(.milliseconds(5))
            }
            guard isOfStreams, !collector.feed.hasEnded else {
                collector.thread.join()
                continue
            }
            log.warning(
                "streams that end wait for room for what they have read: it follows when there is some",
                metadata: ["input": "\(collector.feed.input.name)"]
            )
            retiring.append(collector)
        }
    }

    private mutating func forgetRetired() {
        let ended = retiring.filter { $0.feed.hasEnded }
        for collector in ended { collector.thread.join() }
        retiring.removeAll { collector in ended.contains { $0.feed === collector.feed } }
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
            ("agent.admin", agent.admin != next.agent.admin),
            ("agent.admin_token_file", agent.adminTokenFile != next.agent.adminTokenFile),
            ("the output's name", mine.name != other.name),
            ("outputs.\(mine.name).spool.sync", mine.spool.sync != other.spool.sync),
            ("outputs.\(mine.name).spool.max_size", (mine.spool.maxSize == 0) != (other.spool.maxSize == 0)),
            ("outputs.\(mine.name).endpoint", (mine.endpoint == .embedded) != (other.endpoint == .embedded)),
        ]
        return keys.filter(\.1).map(\.0)
    }
}

extension Configuration.SocketSettings {
    /// The threads that read the input.
    var parts: [Feed.Part] {
        var parts: [Feed.Part] = []
        if listen.contains(where: \.isUDP) { parts += (0..<readers).map { .udp(reader: $0) } }
        if listen.contains(where: { if case .unixgram = $0 { true } else { false } }) { parts.append(.unixgram) }
        if listen.contains(where: { !$0.isDatagram }) { parts.append(.streams) }
        return parts
    }
}

extension Configuration.PartitionKey {
    /// What a socket's collector puts in front of each record.
    fileprivate func keying(of input: Configuration.Input) -> Feed.Keying {
        switch self {
        case .source: .peer
        case .host: input.socket?.rules == .syslog ? .host : .none
        case .spread, .random, .literal, .field: .none
        }
    }
}

extension Configuration.Input {
    /// Whether another configuration means the same by it, wherever it stands.
    package func isSame(as other: Self) -> Bool {
        var other = other
        (other.place, other.maxRecordPlace, other.file) = (place, maxRecordPlace, file)
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
