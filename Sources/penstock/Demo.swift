import Bytes
import Agent
import ArgumentParser
import Kinesis
import LocalKinesis
import Logging
import Platform

struct Demo: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "See it work: an embedded Kinesis, the agent, and a program that writes a log, in one process.",
        discussion: """
            Appends lines to a real file, rotates it in the middle, ships it, reads the stream back, and says how many lines \
            went in and came out. Exits with 1 unless they are the same. With --udp a fleet of devices sends datagrams \
            instead, and every one that did not arrive must have been counted as dropped.
            """
    )

    @Flag(help: "A fleet of devices that send datagrams, in place of a file.")
    var udp = false

    @Option(help: "How long to write lines.")
    var duration = "10s"

    @Option(help: "Lines a second to write, or datagrams to send.")
    var rate = 50_000

    @Option(help: "Shards of the stream.")
    var shards = 4

    func run() throws {
        guard let duration = Units.duration(duration), duration > .zero, duration <= .seconds(3600) else {
            throw ValidationError("--duration takes 1s to 1h")
        }
        guard (1...10_000_000).contains(rate) else { throw ValidationError("--rate takes 1 to 10000000") }
        guard (1...100).contains(shards) else { throw ValidationError("--shards takes 1 to 100") }
        let signals = try StopSignals()
        let folder = try Folder.createTemporary("penstock-demo-")
        defer { Folder.removeTree(folder) }

        var options = LocalKinesis.Options()
        options.streams = [(name: "demo", shards: shards)]
        options.memoryLimit = 4 << 30
        let server = try LocalKinesis.start(options)
        defer { server.stop() }
        let endpoint = KinesisEndpoint(url: server.url, region: options.region)

        let agent = try Agent(
            udp ? Self.udpConfiguration(folder) : Self.configuration(folder),
            endpoint: endpoint,
            credentials: .embedded,
            log: Logger(label: "demo") { LogLine(label: $0, level: .warning) }
        )
        let generator: any DemoSource
        if udp {
            let address = try Self.address(agent)
            generator = DeviceFleet(to: address, perSecond: rate, duration: duration)
            StandardOutput.write(
                "  \(DeviceFleet.devices) devices send to udp://\(address), shipping it to \(server.url), stream demo, "
                    + "\(shards) shards\n\n"
            )
        } else {
            generator = LogGenerator(path: folder + "/app.log", linesPerSecond: rate, duration: duration)
            StandardOutput.write(
                "  writing \(folder)/app.log, shipping it to \(server.url), stream demo, \(shards) shards\n\n"
            )
        }
        let writer = Thread("demo-generator") { generator.run() }

        var screen = DemoScreen(counters: agent.counters, generator: generator, isTerminal: StandardOutput.isTerminal)
        // What is written must arrive; a bound keeps a fault from looking like patience.
        var deadline: Instant?
        while agent.counters.lane.recordsDelivered.now < generator.lines - Self.dropped(agent) || !generator.isFinished
        {
            if agent.ended.wait(or: signals.number, atMost: .milliseconds(500)) { break }
            if signals.next() != nil {
                generator.stop()
                deadline = .now
            }
            screen.draw()
            if generator.isFinished, deadline == nil { deadline = .now + .seconds(30) }
            if let deadline, .now > deadline { break }
        }
        writer.join()
        screen.draw(isLast: true)
        agent.stop()
        _ = agent.wait()
        try compare(endpoint, generator, dropped: Self.dropped(agent))
    }

    /// Datagrams that are known not to have come through.
    private static func dropped(_ agent: Agent) -> Int {
        agent.counters.datagramSockets.reduce(0) { $0 + $1.droppedByKernel.now + $1.droppedByPolicy.now }
    }

    /// Where the agent listens.
    private static func address(_ agent: Agent) throws -> InternetAddress {
        for _ in 0..<1000 {
            if let socket = agent.counters.datagramSockets.first,
                let address = InternetAddress(socket.address.dropFirst(6))
            {
                return address
            }
            Machine.sleep(.milliseconds(10))
        }
        throw Exit.unavailable
    }

    private static func udpConfiguration(_ folder: String) -> Configuration {
        var configuration = configuration(folder)
        var input = Configuration.Input(name: "devices")
        var settings = Configuration.SocketSettings()
        settings.rules = .socket
        settings.listen = [.udp(InternetAddress(host: "127.0.0.1", port: 0)!)]
        input.socket = settings
        configuration.inputs = [input]
        return configuration
    }

    private static func configuration(_ folder: String) -> Configuration {
        var configuration = Configuration()
        configuration.agent.stateDirectory = folder + "/state"
        var input = Configuration.Input(name: "app")
        input.paths = [folder + "/app.log"]
        input.startAt = .beginning
        configuration.inputs = [input]
        var output = Configuration.Output(name: "stream")
        output.stream = .name("demo")
        // The embedded Kinesis has no limits to respect.
        output.rateLimit = 0
        configuration.outputs = [output]
        return configuration
    }

    /// Reads the stream back and compares it with what was written.
    private func compare(_ endpoint: KinesisEndpoint, _ generator: any DemoSource, dropped: Int) throws {
        let reader = StreamReader(endpoint, stream: .name("demo"), credentials: .embedded, proxy: .none)
        let deaggregator = Deaggregator()
        let md5 = MD5()
        var tally = LogTally(expected: generator.lines)
        for shard in try reader.shards().map(\.shard) {
            var iterator: String? = try reader.iterator(of: shard.id, from: .trimHorizon)
            while let at = iterator {
                let page = try reader.page(at: at)
                for record in page.records {
                    let users = deaggregator.userRecords(of: record.data.span)
                    for user in users ?? [UserRecord(partitionKey: record.partitionKey, data: record.data)] {
                        if users != nil, !shard.range.contains(user.hashKey(md5)) { tally.misplaced += 1 }
                        tally.count(user.data)
                    }
                }
                iterator = page.millisecondsBehind > 0 || !page.records.isEmpty ? page.next : nil
            }
        }
        StandardOutput.write("\n  \(tally.summary)\n")
        if udp {
            let counted = tally.lost == dropped ? "each of the lost was counted" : "but \(dropped) were counted"
            StandardOutput.write("  dropped by the kernel or by policy: \(dropped); \(counted).\n")
        }
        guard tally.isExact(but: dropped) else { throw ExitCode(1) }
    }
}
