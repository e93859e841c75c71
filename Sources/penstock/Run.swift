import Admin
import Agent
import ArgumentParser
import Bytes
import Kinesis
import LocalKinesis
import Logging
import Platform

struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Run the agent.",
        discussion: """
            Stops at SIGTERM or SIGINT: what was read is delivered within shutdown_timeout, or spooled, or stays in its files.
            Reads the configuration again at SIGHUP; a faulty one is refused, and the old one stays.
            Exit codes: 0 done, 69 Kinesis could not be reached (--once), 73 the state directory cannot be used, \
            77 access or credentials refused (--once), 78 bad configuration.
            """
    )

    @OptionGroup var source: ConfigurationOption

    @Flag(help: "Read every file to its end, deliver, and exit. Files never seen before are read from their start.")
    var once = false

    /// After so long it runs what it will go on with.
    private static let start: Duration = .seconds(2)

    func run() throws {
        Machine.keepMemoryOutOfCores()
        Machine.giveBackLargeBlocks()
        let configuration = try source.load()
        // Before the first thread: all inherit the mask.
        let signals = try StopSignals()
        let lines = LogLine(label: "penstock", level: configuration.agent.logLevel.level)
        let log = Logger(label: "penstock") { _ in lines }

        let embedded = try Self.embedded(configuration.outputs[0], log)
        defer { embedded?.server.stop() }
        let agent: Agent
        do {
            agent = try Agent(
                configuration,
                endpoint: embedded?.endpoint,
                once: once,
                credentials: embedded?.credentials,
                log: log
            )
        } catch {
            StandardError.write("penstock: \(error)\n")
            switch error {
            case .socket(_, let isPermission): throw isPermission ? Exit.noPermission : Exit.badConfiguration
            case .onceWithSockets: throw Exit.badConfiguration
            case .stateDirectory, .otherAgent, .newerState, .spool, .system: throw Exit.cannotWrite
            }
        }
        log.notice(
            "penstock runs",
            metadata: [
                "version": "\(Penstock.version)", "stream": "\(configuration.outputs[0].stream)",
                "endpoint": "\(embedded?.endpoint.url ?? KinesisEndpoint(configuration.outputs[0]).url)",
            ]
        )
        let admin = try startAdmin(of: agent, configuration.agent, lines, log)
        defer { admin?.stop() }
        awaitFirstLook(of: agent, signals)
        var service = ServiceReport(agent, log)
        var shutdownTimeout = configuration.agent.shutdownTimeout
        var startEnd: Instant? = .now + Self.start
        while !agent.ended.wait(
            or: signals.number,
            or: agent.reloaded.number,
            atMost: [service.pause, startEnd.map { $0 - .now }].compactMap(\.self).min()
        ) {
            if let end = startEnd, .now >= end {
                // Libraries, configuration, the first call: three quarters of what is resident by now is their code.
                Machine.unmapCode()
                startEnd = nil
            }
            service.turn()
            guard let signal = signals.next() else { continue }
            guard signal == "SIGHUP", !once else {
                log.notice("stopping", metadata: ["signal": "\(signal)"])
                service.stops(within: shutdownTimeout)
                agent.stop()
                continue
            }
            service.reloads()
            do throws(Faults) {
                let next = try Configuration(file: source.path)
                let unusable = next.unusableFiles
                if !unusable.isEmpty { throw Faults(faults: unusable) }
                shutdownTimeout = next.agent.shutdownTimeout
                lines.level = next.agent.logLevel.level
                agent.reload(next)
            } catch {
                service.refused(faults: error.faults.count)
                for fault in error.faults { StandardError.write("\(fault)\n") }
                log.error(
                    "the configuration is refused, the old one stays",
                    metadata: ["faults": "\(error.faults.count)"]
                )
            }
        }
        try finish(agent, log)
    }

    /// Waits until the agent knows what files there are, but not for ever: who is told that it is ready may make others,
    /// and those must not count as there before.
    private func awaitFirstLook(of agent: Agent, _ signals: borrowing StopSignals) {
        let end = Instant.now + .seconds(10)
        while !agent.knowsItsFiles, !signals.isPending, .now < end {
            if agent.ended.wait(atMost: .milliseconds(2)) { return }
        }
    }

    /// Starts the admin server; one that nobody has asked for may find its port taken, by another agent.
    private func startAdmin(
        of agent: Agent,
        _ configuration: Configuration.Agent,
        _ lines: LogLine,
        _ log: Logger
    ) throws -> AdminServer? {
        guard !once || configuration.isAdminNamed else { return nil }
        do throws(AdminServer.StartFault) {
            let admin = try AdminServer.start(
                configuration,
                file: source.path,
                agent: agent,
                version: Penstock.version,
                events: lines.recent
            )
            if let admin { log.info("status, metrics and health", metadata: ["at": "http://\(admin.address)/"]) }
            return admin
        } catch {
            if case .portTaken = error, !configuration.isAdminNamed {
                log.notice(
                    "another program has the port of the admin server: this agent has none; agent.admin names another",
                    metadata: ["port": "\(configuration.admin?.port ?? 0)"]
                )
                return nil
            }
            StandardError.write("\(error)\n")
            agent.stop()
            _ = agent.wait()
            throw Exit.badConfiguration
        }
    }

    private func finish(_ agent: Agent, _ log: Logger) throws {
        let end = agent.wait()
        let counters = agent.counters
        var figures: Logger.Metadata = [
            "records": "\(counters.lane.recordsDelivered.now)", "bytes": "\(counters.lane.bytesDelivered.now)",
            "aggregates": "\(counters.lane.aggregatesDelivered.now)", "calls": "\(counters.lane.calls.now)",
            "retried": "\(counters.lane.retried.now)", "duplicates_possible": "\(counters.lane.duplicatesPossible.now)",
        ]
        if counters.lane.keyless.now > 0 { figures["keyless"] = "\(counters.lane.keyless.now)" }
        switch end {
        case .delivered: log.notice("everything that was read is delivered", metadata: figures)
        case .spooled(let records):
            log.notice(
                "what Kinesis has not taken lies in the spool, for the next start",
                metadata: figures.merging(["spooled": "\(records)"]) { _, new in new }
            )
        case .stateNotWritten:
            log.error("the state could not be written: the next start sends the last lines again", metadata: figures)
            throw Exit.cannotWrite
        case .gaveUp(let failure):
            let reason = failure.map { "\($0)" } ?? "the time to stop was over"
            log.error(
                "not everything was delivered; it stays in its files",
                metadata: figures.merging(["reason": "\(reason)"]) { _, new in new }
            )
            guard once else { return }
            switch failure {
            case .credentials: throw Exit.noPermission
            case .service(let error) where error.kind == .credentials || error.code.hasPrefix("AccessDenied"):
                throw Exit.noPermission
            case .service, .transport, .distrusted, nil: throw Exit.unavailable
            }
        }
    }

    /// The embedded Kinesis, where the output asks for it.
    private static func embedded(
        _ output: Configuration.Output,
        _ log: Logger
    ) throws -> (server: LocalKinesis, endpoint: KinesisEndpoint, credentials: CredentialSource)? {
        guard output.endpoint == .embedded else { return nil }
        var options = LocalKinesis.Options()
        options.region = output.region
        let name =
            switch output.stream {
            case .name(let name): name
            case .arn(let arn): String(arn.split(separator: "/").last ?? "stream")
            }
        options.streams = [(name: name, shards: 4)]
        let server = try LocalKinesis.start(options)
        return (server, KinesisEndpoint(url: server.url, region: output.region), .embedded)
    }
}

extension CredentialSource {
    /// A key for the embedded Kinesis, which looks at none.
    static let embedded = CredentialSource(profile: "") { name in
        switch name {
        case "AWS_ACCESS_KEY_ID": "embedded"
        case "AWS_SECRET_ACCESS_KEY": "embedded"
        default: nil
        }
    }
}

/// `--config`.
struct ConfigurationOption: ParsableArguments {
    @Option(name: [.customShort("c"), .customLong("config")], help: "The configuration file.")
    var path = "/etc/penstock/penstock.toml"

    /// Reads the file; prints every fault and exits with 78 when there are any.
    func load() throws -> Configuration {
        do throws(Faults) {
            let configuration = try Configuration(file: path)
            let unusable = configuration.unusableFiles
            if !unusable.isEmpty { throw Faults(faults: unusable) }
            return configuration
        } catch {
            for fault in error.faults { StandardError.write("\(fault)\n") }
            throw Exit.badConfiguration
        }
    }
}
