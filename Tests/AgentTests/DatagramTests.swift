import Bytes
import Agent
import Kinesis
import LocalKinesis
import Logging
import Platform
import Seeded
import Testing

/// An agent in this process that receives datagrams.
extension Delivering {
    /// An input of sockets that the kernel chooses the ports of.
    func listens(
        _ listen: [String] = ["udp://127.0.0.1:0"],
        _ change: (inout Configuration.Input, inout Configuration.SocketSettings) -> Void = { _, _ in }
    ) throws {
        var input = Configuration.Input(name: "sock")
        var settings = Configuration.SocketSettings()
        settings.listen = try listen.map { try #require(Configuration.Listen($0)) }
        change(&input, &settings)
        input.socket = settings
        configuration.inputs = [input]
    }

    /// The port of the agent's UDP socket.
    static func port(_ agent: Agent, isIPv6: Bool = false) throws -> UInt16 {
        func found() -> DatagramCounters? {
            agent.counters.datagramSockets.first { $0.address.hasPrefix(isIPv6 ? "udp://[" : "udp://1") }
        }
        let end = Instant.now + .seconds(10)
        while found() == nil, .now < end { Machine.sleep(.milliseconds(2)) }
        let socket = try #require(found())
        return try #require(UInt16(socket.address.split(separator: ":").last ?? ""))
    }

    /// Waits until so many datagrams were received or dropped by the kernel, bounded.
    static func accounted(_ count: Int, _ agent: Agent, within limit: Duration = .seconds(20)) -> Int {
        func now() -> Int { agent.counters.datagramSockets.reduce(0) { $0 + $1.received.now + $1.droppedByKernel.now } }
        let end = Instant.now + limit
        while now() < count, .now < end { Machine.sleep(.milliseconds(2)) }
        return now()
    }

    /// The input's account as the agent has written it down at its end.
    func account() throws -> (read: Int, places: [String: Int]) {
        let account = try #require(InputAccount.all(stateDirectory: scratch["state"]).first { $0.input == "sock" })
        return (account.read, Dictionary(uniqueKeysWithValues: zip(InputAccount.places, account.records)))
    }
}

@Suite(.serialized) struct DatagramTests {
    @Test func `datagrams arrive as they were sent, whatever is in them and however long they are`() throws {
        var random = Random()
        let delivering = try Delivering()
        try delivering.listens()
        let agent = try delivering.agent()
        let sender = TestSender(port: try Delivering.port(agent))
        var sent = ["", "one", "a\nb\r\n", "\0\0", "tail\0", String(repeating: "é", count: 400)]
        for number in 0..<400 {
            // Lengths around the slots' sizes, and now and then the longest there is.
            let size =
                number % 50 == 0 ? 65_507 : [9, 200, 251, 252, 253, 508, 2000][number % 7] + Int(random.next() % 3)
            sent.append(String(String(number).prefix(size)) + " " + String(repeating: "x", count: max(0, size - 4)))
        }
        for text in sent {
            #expect(sender.send(text))
            if text.utf8.count > 60_000 { Machine.sleep(.milliseconds(1)) }
        }
        #expect(Delivering.accounted(sent.count, agent) == sent.count)
        #expect(Delivering.waits(for: sent.count, agent))
        agent.stop()
        AgentEndToEndTests.expectDelivered(agent.wait())
        let stored = try delivering.stored()
        #expect(stored.misplaced == 0)
        #expect(stored.records.map(\.line).sorted() == sent.sorted(), random.note)
        let counters = agent.counters.datagramSockets[0]
        #expect(counters.received.now == sent.count && counters.empty.now == 1 && counters.truncated.now == 0)
        #expect(counters.bytes.now == sent.reduce(0) { $0 + $1.utf8.count })
        let account = try delivering.account()
        #expect(account.read == sent.count && account.places["delivered"] == sent.count)
    }

    @Test func `IPv6, several readers, several addresses and Unix datagrams are one input`() throws {
        let delivering = try Delivering()
        let path = delivering.scratch["log.sock"]
        try delivering.listens(["udp://127.0.0.1:0", "udp://[::1]:0", "unixgram://\(path)"]) { $1.mode = 0o600 }
        let agent = try delivering.agent()
        let v4 = TestSender(port: try Delivering.port(agent))
        let v6 = TestSender(port: try Delivering.port(agent, isIPv6: true), isIPv6: true)
        let local = TestSender(path: path)
        var sent: [String] = []
        for number in 0..<300 {
            for (sender, name) in [(v4, "v4"), (v6, "v6"), (local, "unix")] {
                sent.append("\(name) \(number)")
                #expect(sender.send(sent[sent.count - 1]))
            }
        }
        let long = String(repeating: "u", count: 150_000)
        #expect(local.send(long))
        #expect(Delivering.waits(for: 901, agent))
        agent.stop()
        AgentEndToEndTests.expectDelivered(agent.wait())
        #expect(try delivering.stored().records.map(\.line).sorted() == (sent + [long]).sorted())
        // The socket's file goes with it.
        #expect(throws: SystemError.self) { try FileStatus(of: path) }
        #expect(!local.send("nobody"))
    }

    @Test func `by source each peer has its key, and keeps its order`() throws {
        let delivering = try Delivering()
        let path = delivering.scratch["log.sock"]
        try delivering.listens(["udp://127.0.0.1:0", "unixgram://\(path)"])
        delivering.configuration.outputs[0].partitionKey = .source
        let agent = try delivering.agent()
        let (sender, local) = (TestSender(port: try Delivering.port(agent)), TestSender(path: path))
        for number in 0..<500 { #expect(sender.send("u \(number)") && local.send("l \(number)")) }
        #expect(sender.send(String(repeating: "z", count: 60_000)))
        #expect(Delivering.waits(for: 1001, agent))
        agent.stop()
        AgentEndToEndTests.expectDelivered(agent.wait())
        let stored = try delivering.stored()
        let keys = Dictionary(grouping: stored.records) { String(decoding: $0.key, as: UTF8.self) }
        let mine = "uid:\(Machine.userNumber) pid:\(Machine.processNumber)"
        #expect(Set(keys.keys) == ["127.0.0.1", mine])
        for (key, name) in [("127.0.0.1", "u"), (mine, "l")] {
            let short = (keys[key] ?? []).map(\.line).filter { $0.utf8.count < 100 }
            #expect(short == (0..<500).map { "\(name) \($0)" })
        }
    }

    @Test func `what is longer than max_record is split, truncated or set aside`() throws {
        for (policy, lines) in [
            (Configuration.Oversize.split, ["0123456789", "abc", "short"]), (.truncate, ["0123456789", "short"]),
            (.deadLetter, ["short"]),
        ] {
            let delivering = try Delivering()
            try delivering.listens { input, _ in (input.maxRecord, input.onOversize) = (10, policy) }
            let agent = try delivering.agent()
            let sender = TestSender(port: try Delivering.port(agent))
            #expect(sender.send("0123456789abc") && sender.send("short"))
            #expect(Delivering.waits(for: lines.count, agent))
            agent.stop()
            AgentEndToEndTests.expectDelivered(agent.wait())
            #expect(try delivering.stored().records.map(\.line).sorted() == lines)
            #expect(agent.counters.datagramSockets[0].oversize.now == 1)
            #expect(try delivering.account().places["dead lettered"] == (policy == .deadLetter ? 1 : 0))
        }
    }

    @Test func `a sender faster than the machine: sent is received and dropped by the kernel, to the last one`() throws
    {
        let delivering = try Delivering()
        try delivering.listens { $1.receiveBuffer = 64 << 10 }
        let agent = try delivering.agent()
        let port = try Delivering.port(agent)
        let each = 60_000
        let threads = (0..<3).map { number in
            Thread("sender-\(number)") {
                let sender = TestSender(port: port)
                for index in 0..<each { sender.send("\(number) \(index) " + String(repeating: "x", count: 200)) }
            }
        }
        for thread in threads { thread.join() }
        let counters = agent.counters.datagramSockets[0]
        // The last one may have been dropped: the next shows it.
        let last = TestSender(port: port)
        Machine.sleep(.milliseconds(50))
        #expect(last.send("last"))
        let sent = 3 * each + 1
        #expect(Delivering.accounted(sent, agent) == sent)
        #expect(Delivering.waits(for: counters.received.now, agent))
        agent.stop()
        AgentEndToEndTests.expectDelivered(agent.wait())
        #expect(counters.received.now + counters.droppedByKernel.now == sent)
        let account = try delivering.account()
        #expect(account.read == counters.received.now)
        #expect(account.places["delivered"] == account.read - (account.places["dropped"] ?? 0))
        #expect(account.places["dropped"] == counters.droppedByPolicy.now)
        #expect(try delivering.stored().records.count == account.places["delivered"])
    }

    @Test func `at a stop what lies in the kernel's queue is read, delivered or spooled`() throws {
        let delivering = try Delivering()
        try delivering.listens { $1.gather = .milliseconds(100) }
        let agent = try delivering.agent()
        let sender = TestSender(port: try Delivering.port(agent))
        for number in 0..<2000 { #expect(sender.send("line \(number)")) }
        agent.stop()
        AgentEndToEndTests.expectDelivered(agent.wait())
        #expect(try delivering.stored().records.count == 2000)
    }

    @Test func `another configuration leaves a socket alone that it does not change, and binds a changed one anew`()
        throws
    {
        func freePort() throws -> UInt16 {
            let any = try #require(InternetAddress("127.0.0.1:0"))
            return try DatagramSocket(any, sharesPort: false, receiveBuffer: 4096).port
        }
        let delivering = try Delivering()
        let (first, second) = (try freePort(), try freePort())
        try delivering.listens(["udp://127.0.0.1:\(first)"])
        let agent = try delivering.agent()
        #expect(try Delivering.port(agent) == first)
        let sender = TestSender(port: first)
        delivering.configuration.outputs[0].linger = .milliseconds(50)
        agent.reload(delivering.configuration)
        // Not closed for a moment: each of these is taken.
        for number in 0..<200 {
            #expect(sender.send("kept \(number)"))
            Machine.sleep(.milliseconds(1))
        }
        #expect(Delivering.waits(for: 200, agent))
        // The old address is among the new ones: it must have been let go first.
        try delivering.listens(["udp://127.0.0.1:\(first)", "udp://127.0.0.1:\(second)"])
        agent.reload(delivering.configuration)
        let other = TestSender(port: second)
        let end = Instant.now + .seconds(15)
        while agent.counters.lane.recordsDelivered.now == 200, .now < end {
            other.send("other")
            Machine.sleep(.milliseconds(50))
        }
        let before = agent.counters.datagramSockets[0].received.now
        #expect(sender.send("again") || sender.send("again"))
        #expect(Delivering.accounted(0, agent) > 200)
        let until = Instant.now + .seconds(15)
        while agent.counters.datagramSockets[0].received.now == before, .now < until { Machine.sleep(.milliseconds(5)) }
        agent.stop()
        AgentEndToEndTests.expectDelivered(agent.wait())
        let lines = try delivering.stored().records.map(\.line)
        #expect(lines.filter { $0.hasPrefix("kept") }.count == 200)
        #expect(lines.contains("other") && lines.contains("again"))
    }

    @Test func `an address that is taken, and --once, are refused with what to do`() throws {
        let delivering = try Delivering()
        try delivering.listens()
        let agent = try delivering.agent()
        let port = try Delivering.port(agent)
        let other = try Delivering()
        try other.listens(["udp://127.0.0.1:\(port)"])
        let taken = #expect(throws: Agent.StartFault.self) { try other.agent() }
        #expect("\(try #require(taken))".contains("udp://127.0.0.1:\(port)"), "\(String(describing: taken))")
        let once = #expect(throws: Agent.StartFault.self) { try other.agent(once: true) }
        #expect("\(try #require(once))".contains("--once"))
        agent.stop()
        _ = agent.wait()
    }

    @Test func `an idle socket costs nothing`() throws {
        let delivering = try Delivering()
        try delivering.listens()
        let agent = try delivering.agent()
        let sender = TestSender(port: try Delivering.port(agent))
        #expect(sender.send("one"))
        #expect(Delivering.waits(for: 1, agent))
        Machine.sleep(.milliseconds(300))
        let before = Machine.cpuTime(ofThreadsNamed: "collect-sock")
        Machine.sleep(.seconds(1))
        #expect(Machine.cpuTime(ofThreadsNamed: "collect-sock") - before <= .milliseconds(10))
        agent.stop()
        _ = agent.wait()
    }
}
