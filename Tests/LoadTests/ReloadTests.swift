import Bytes
import Agent
import Kinesis
import Logging
import Platform
import Synchronization
import Testing

/// A whole agent under load, whose Kinesis is away: collectors, lane, spool and supervisor with all that they share.
///
/// Not for the thread sanitizer: it does not see how a thread that has waited for a `Mutex` gets it.
@Suite struct ReloadTests {
    private static let credentials = CredentialSource(profile: "") { $0.hasPrefix("AWS_") ? "test" : nil }

    private static func configuration(_ folder: String, round: Int) throws -> Configuration {
        var configuration = Configuration()
        configuration.agent.stateDirectory = folder + "/state"
        configuration.agent.shutdownTimeout = .seconds(6)
        var output = Configuration.Output(name: "o")
        (output.stream, output.region) = (.name("s"), "us-east-1")
        output.partitionKey = [.spread, .source, .host][round % 3]
        output.connectTimeout = .milliseconds(500)
        configuration.outputs = [output]
        // One stays, one changes, one comes and goes.
        var inputs = try [
            ("datagrams", ["udp://127.0.0.1:0"]), ("streams", ["unix://\(folder)/stream.sock"]),
            ("local", ["unixgram://\(folder)/log.sock"]),
        ].map { name, listen in
            var input = Configuration.Input(name: name)
            var settings = Configuration.SocketSettings()
            settings.listen = try listen.map { try #require(Configuration.Listen($0)) }
            input.socket = settings
            return input
        }
        inputs[1].socket?.framing = round % 2 == 0 ? .newline : .auto
        if round % 2 == 1 { inputs.removeLast() }
        configuration.inputs = inputs
        return configuration
    }

    @Test(.timeLimit(.minutes(2)))
    func `an agent under load takes on other configurations, spools, and accounts for every record`() throws {
        let folder = try Folder.createTemporary("penstock-test-")
        defer { Folder.removeTree(folder) }
        var log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        log.logLevel = .trace
        let agent = try Agent(
            try Self.configuration(folder, round: 0),
            endpoint: KinesisEndpoint(url: "http://127.0.0.1:1", region: "us-east-1"),
            credentials: Self.credentials,
            log: log
        )
        func datagrams() -> DatagramCounters? { agent.counters.datagramSockets.first { $0.input == "datagrams" } }
        let limit = Instant.now + .seconds(20)
        while datagrams() == nil, .now < limit { Machine.sleep(.milliseconds(5)) }
        let udp = try #require(datagrams())
        let port = try #require(UInt16(udp.address.split(separator: ":").last ?? ""))
        let isOver = Over()
        let senders = (0..<3).map { number in
            Platform.Thread("sends") {
                var message = 0
                while !isOver.now.load(ordering: .relaxed) {
                    let sender =
                        switch number {
                        case 0: LoopbackSender(port: port)
                        case 1: LoopbackSender(path: folder + "/log.sock")
                        default: LoopbackSender(path: folder + "/stream.sock", isStream: true)
                        }
                    while sender.send(Array("<13>Nov 21 08:00:00 host app: \(message)\n".utf8)) {
                        message += 1
                        if message % 50 == 0 { Machine.sleep(.milliseconds(1)) }
                        if isOver.now.load(ordering: .relaxed) { break }
                    }
                    Machine.sleep(.milliseconds(5))
                }
            }
        }
        for round in 1...8 {
            Machine.sleep(.milliseconds(300))
            agent.reload(try Self.configuration(folder, round: round))
        }
        Machine.sleep(.milliseconds(500))
        agent.stop()
        let end = agent.wait()
        isOver.now.store(true, ordering: .relaxed)
        for sender in senders { sender.join() }
        guard case .spooled(let spooled) = end else {
            Issue.record("it ended with \(end)")
            return
        }
        let accounts = InputAccount.all(stateDirectory: folder + "/state")
        #expect(Set(accounts.map(\.input)) == ["datagrams", "streams", "local"])
        for account in accounts {
            #expect(account.read > 500 && account.read == account.records.reduce(0, +), "\(account)")
        }
        #expect(accounts.reduce(0) { $0 + $1.read } == spooled)
        func received(_ input: String) -> Int {
            agent.counters.datagramSockets.reduce(0) { $0 + ($1.input == input ? $1.received.now : 0) }
        }
        let streams = agent.counters.streamInputs[0].records.now
        #expect(accounts.map(\.read) == accounts.map { $0.input == "streams" ? streams : received($0.input) })
    }

    private final class Over: Sendable { let now = Atomic<Bool>(false) }
}
