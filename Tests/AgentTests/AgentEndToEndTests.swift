import Agent
import Bytes
import Kinesis
import LocalKinesis
import Logging
import Platform
import Seeded
import Testing

/// An agent in this process, the Kinesis it sends to, and the files it reads.
final class Delivering {
    let scratch: Scratch
    let kinesis: LocalKinesis
    var configuration = Configuration()

    init(shards: Int = 4, _ change: (inout LocalKinesis.Options) -> Void = { _ in }) throws {
        scratch = try Scratch()
        var options = LocalKinesis.Options()
        options.streams = [("s", shards)]
        change(&options)
        kinesis = try LocalKinesis.start(options)
        configuration.agent.stateDirectory = scratch["state"]
        configuration.agent.shutdownTimeout = .seconds(20)
        var output = Configuration.Output(name: "o")
        output.stream = .name("s")
        output.rateLimit = 0
        output.region = "us-east-1"
        configuration.outputs = [output]
        configuration.inputs = [input("app")]
    }

    deinit { kinesis.stop() }

    func input(_ name: String) -> Configuration.Input {
        var input = Configuration.Input(name: name)
        input.paths = [scratch.path + "/\(name)*.log"]
        input.startAt = .beginning
        return input
    }

    static let credentials = CredentialSource(profile: "") { $0.hasPrefix("AWS_") ? "test" : nil }

    func agent(
        once: Bool = false,
        endpoint: String? = nil,
        credentials: CredentialSource = credentials
    ) throws -> Agent {
        var log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        log.logLevel = .critical
        return try Agent(
            configuration,
            endpoint: KinesisEndpoint(url: endpoint ?? kinesis.url, region: "us-east-1"),
            once: once,
            credentials: credentials,
            log: log
        )
    }

    struct Stored {
        var shard: ShardID
        var key: [UInt8]
        var line: String
    }

    /// Every user record of the stream as a reader of the KCL gets it, shard after shard.
    func stored() throws -> (records: [Stored], kinesisRecords: Int, misplaced: Int) {
        var options = HTTPClient.Options(url: kinesis.url)
        options.timeout = .seconds(30)
        let caller = KinesisCaller(
            KinesisEndpoint(url: kinesis.url, region: "us-east-1"),
            stream: .name("s"),
            options: options,
            wire: WireChoice(forced: .json),
            credentials: Self.credentials
        )
        let md5 = MD5()
        var (records, count, misplaced): ([Stored], Int, Int) = ([], 0, 0)
        let (list, listed) = try caller.call("ListShards", .object(["StreamName": .text("s")]))
        for shard in list["Shards"]?.list ?? [] {
            func text(_ value: WireValue?) throws -> String {
                let text = value?.text(in: listed.span)
                return try #require(text)
            }
            let name = try text(shard["ShardId"])
            let id = try #require(ShardID(name))
            let range = shard["HashKeyRange"]
            let low = try #require(HashKey(decimal: try text(range?["StartingHashKey"])))
            let high = try #require(HashKey(decimal: try text(range?["EndingHashKey"])))
            let (first, input) = try caller.call(
                "GetShardIterator",
                .object([
                    "StreamName": .text("s"), "ShardId": .text(name), "ShardIteratorType": .text("TRIM_HORIZON"),
                ])
            )
            var iterator = first["ShardIterator"]?.text(in: input.span)
            while let at = iterator {
                // Five calls a second, where limits are enforced.
                var page: (value: WireValue, input: [UInt8])?
                for _ in 0..<100 where page == nil {
                    page = try? caller.call("GetRecords", .object(["ShardIterator": .text(at)]))
                    if page == nil { Machine.sleep(.milliseconds(100)) }
                }
                let (value, bytes) = try #require(page)
                let list = value["Records"]?.list ?? []
                count += list.count
                for record in list {
                    let (data, key) = try Self.fields(of: record, in: bytes)
                    guard let users = Deaggregator().userRecords(of: data.span) else {
                        let line = String(decoding: data, as: UTF8.self)
                        records.append(Stored(shard: id, key: Array(key.utf8), line: line))
                        continue
                    }
                    for user in users {
                        if !(low...high).contains(user.hashKey(md5)) { misplaced += 1 }
                        records.append(
                            Stored(shard: id, key: user.partitionKey, line: String(decoding: user.data, as: UTF8.self))
                        )
                    }
                }
                iterator = list.isEmpty ? nil : value["NextShardIterator"]?.text(in: bytes.span)
            }
        }
        return (records, count, misplaced)
    }

    private static func fields(of record: WireValue, in bytes: [UInt8]) throws -> ([UInt8], String) {
        let (data, key) = (
            record["Data"]?.data(in: bytes.span, as: .json), record["PartitionKey"]?.text(in: bytes.span)
        )
        return (try #require(data), try #require(key))
    }

    /// Waits until so many records are acknowledged, bounded.
    static func waits(for count: Int, _ agent: Agent, within limit: Duration = .seconds(30)) -> Bool {
        let end = Instant.now + limit
        while agent.counters.lane.recordsDelivered.now < count, .now < end { Machine.sleep(.milliseconds(5)) }
        return agent.counters.lane.recordsDelivered.now >= count
    }

    func writeLines(_ name: String, _ lines: Range<Int>, padding: Int = 60) throws {
        let tail = String(repeating: "x", count: padding)
        try scratch.write(name, lines.map { "\(name) \($0) \(tail)\n" }.joined())
    }
}

@Suite(.serialized) struct AgentEndToEndTests {
    static func expectDelivered(_ end: Agent.End) {
        if case .gaveUp(let failure) = end { Issue.record("gave up: \(String(describing: failure))") }
    }

    @Test(arguments: ["spread", "source", "random", "host", "literal"])
    func `lines of many files arrive once each, each in its shard`(mode: String) throws {
        let delivering = try Delivering()
        delivering.configuration.outputs[0].partitionKey =
            switch mode {
            case "spread": .spread
            case "source": .source
            case "random": .random
            case "host": .host
            default: .literal("k")
            }
        for file in 0..<10 { try delivering.writeLines("app\(file).log", 0..<2000) }
        let agent = try delivering.agent(once: true)
        Self.expectDelivered(agent.wait())
        let stored = try delivering.stored()
        #expect(stored.records.count == 20_000 && stored.misplaced == 0)
        #expect(Set(stored.records.map(\.line)).count == 20_000)
        #expect(agent.counters.lane.records.now == 20_000)
        #expect(agent.counters.lane.recordsDelivered.now == 20_000)
        #expect(stored.kinesisRecords < 400)
        // Nothing is left for another run.
        let second = try delivering.agent(once: true)
        Self.expectDelivered(second.wait())
        #expect(second.counters.lane.records.now == 0)
    }

    @Test func `a running agent delivers within its linger, and stops with everything delivered`() throws {
        let delivering = try Delivering()
        delivering.configuration.outputs[0].linger = .milliseconds(300)
        try delivering.writeLines("app.log", 0..<1)
        let agent = try delivering.agent()
        #expect(Delivering.waits(for: 1, agent))
        let start = Instant.now
        try delivering.writeLines("app.log", 1..<3)
        #expect(Delivering.waits(for: 3, agent))
        #expect(.now - start >= .milliseconds(280) && .now - start < .seconds(3))
        try delivering.writeLines("app.log", 3..<5000)
        Machine.sleep(.milliseconds(50))
        let stop = Instant.now
        agent.stop()
        Self.expectDelivered(agent.wait())
        Self.expectDelivered(agent.wait())
        #expect(.now - stop < .seconds(3))
        // What was not read before the stop stays in the file.
        Self.expectDelivered(try delivering.agent(once: true).wait())
        let stored = try delivering.stored()
        #expect(stored.records.count == 5000 && Set(stored.records.map(\.line)).count == 5000)
    }

    @Test func `with a linger of a minute a stop delivers at once what is open`() throws {
        let delivering = try Delivering()
        delivering.configuration.outputs[0].linger = .seconds(60)
        try delivering.writeLines("app.log", 0..<10)
        let agent = try delivering.agent()
        let end = Instant.now + .seconds(10)
        while agent.counters.lane.records.now < 10, .now < end { Machine.sleep(.milliseconds(5)) }
        #expect(agent.counters.lane.recordsDelivered.now == 0)
        let stop = Instant.now
        agent.stop()
        Self.expectDelivered(agent.wait())
        #expect(.now - stop < .seconds(5))
        #expect(try delivering.stored().records.count == 10)
    }

    @Test func `within a shard's limits there is next to no throttling; without pacing there is, and no loss`() throws {
        for limit in [100, 0] {
            let delivering = try Delivering(shards: 2) { $0.enforceShardLimits = true }
            delivering.configuration.outputs[0].rateLimit = limit
            try delivering.writeLines("app.log", 0..<8000, padding: 600)
            let agent = try delivering.agent(once: true)
            Self.expectDelivered(agent.wait())
            let lines = Set(try delivering.stored().records.map(\.line))
            #expect(lines.count == 8000)
            let throttled = agent.counters.lane.throttled.now
            if limit == 100 { #expect(throttled <= 5, "\(throttled)") } else { #expect(throttled > 5, "\(throttled)") }
        }
    }

    @Test func `each input has its own limits for lines`() throws {
        let delivering = try Delivering()
        var short = delivering.input("short")
        short.maxRecord = 100
        short.onOversize = .truncate
        delivering.configuration.inputs.append(short)
        let long = String(repeating: "é", count: 20_000)
        try delivering.scratch.write("app.log", "\(long)\n\(long)")
        try delivering.scratch.write("short.log", "\(long)\nnext\n\(long)")
        let agent = try delivering.agent(once: true)
        Self.expectDelivered(agent.wait())
        let lines = try delivering.stored().records.map(\.line).sorted()
        let cut = String(repeating: "é", count: 50)
        #expect(lines.map(\.utf8.count) == ["next", cut, cut, long, long].sorted().map(\.utf8.count))
        #expect(lines == ["next", cut, cut, long, long].sorted())
        #expect(agent.counters.collectors.linesOversize.now == 2)
    }

    @Test func `without aggregation each line is a Kinesis record`() throws {
        let delivering = try Delivering()
        delivering.configuration.outputs[0].aggregate = false
        delivering.configuration.outputs[0].callMaxRecords = 7
        try delivering.writeLines("app.log", 0..<500)
        let agent = try delivering.agent(once: true)
        Self.expectDelivered(agent.wait())
        let stored = try delivering.stored()
        #expect(stored.records.count == 500 && stored.kinesisRecords == 500)
        #expect(agent.counters.lane.calls.now >= 500 / 7)
    }

    @Test func `by source and one call at a time, each file keeps its order`() throws {
        let delivering = try Delivering()
        delivering.configuration.outputs[0].partitionKey = .source
        delivering.configuration.outputs[0].maxInFlight = 1
        delivering.configuration.outputs[0].callMaxRecords = 3
        for file in 0..<6 { try delivering.writeLines("app\(file).log", 0..<5000) }
        Self.expectDelivered(try delivering.agent(once: true).wait())
        var next: [[UInt8]: Int] = [:]
        let records = try delivering.stored().records
        #expect(records.count == 30_000)
        for record in records {
            let number = Int(record.line.split(separator: " ")[1]) ?? -1
            #expect(number == next[record.key, default: 0])
            next[record.key] = number + 1
        }
        #expect(next.count == 6)
    }

    @Test func `an endpoint without CBOR is spoken to in JSON after one refused call`() throws {
        let delivering = try Delivering { $0.refuseCBOR = true }
        try delivering.writeLines("app.log", 0..<3000)
        let agent = try delivering.agent(once: true)
        Self.expectDelivered(agent.wait())
        #expect(delivering.kinesis.figures().errors == 1)
        #expect(agent.counters.lane.callsFailed.now == 0 && agent.counters.lane.retried.now == 0)
        #expect(try delivering.stored().records.count == 3000)
    }

    @Test func `a stop ends in time without a shard map, with a full ring, and whatever is wrong`() throws {
        let nobody = CredentialSource(profile: "none") { $0 == "HOME" ? "/nowhere" : nil }
        let silent = try SilentServer()
        defer { silent.stop() }
        for (endpoint, credentials) in [
            ("http://127.0.0.1:1", Delivering.credentials), (silent.url, Delivering.credentials), (nil, nobody),
        ] {
            let delivering = try Delivering()
            delivering.configuration.agent.shutdownTimeout = .milliseconds(500)
            try delivering.writeLines("app.log", 0..<50_000)
            let agent = try delivering.agent(endpoint: endpoint, credentials: credentials)
            Machine.sleep(.milliseconds(700))
            let busy = Machine.cpuTime(ofThreadsNamed: "penstock-lane")
            Machine.sleep(.milliseconds(500))
            #expect(Machine.cpuTime(ofThreadsNamed: "penstock-lane") - busy < .milliseconds(200))
            let stop = Instant.now
            agent.stop()
            guard case .gaveUp = agent.wait() else {
                Issue.record("delivered to nobody")
                continue
            }
            #expect(.now - stop < .seconds(3))
            // And all of it is there for the next run.
            Self.expectDelivered(try delivering.agent(once: true).wait())
            #expect(try delivering.stored().records.count == 50_000)
        }
    }

    @Test func `once, what waiting cannot mend ends the run, and what it may mend is waited for`() throws {
        let delivering = try Delivering()
        try delivering.writeLines("app.log", 0..<10)
        delivering.configuration.outputs[0].stream = .name("none")
        let agent = try delivering.agent(once: true)
        guard case .gaveUp(.service(let error)) = agent.wait() else {
            Issue.record("no such stream")
            return
        }
        #expect(error.code == "ResourceNotFoundException")
        delivering.configuration.agent.shutdownTimeout = .seconds(1)
        let start = Instant.now
        guard case .gaveUp(.transport) = try delivering.agent(once: true, endpoint: "http://127.0.0.1:1").wait() else {
            Issue.record("no such server")
            return
        }
        #expect(.now - start >= .seconds(1) && .now - start < .seconds(5))
    }

    @Test func `one agent has a state directory; when it becomes unwritable lines still arrive`() throws {
        let delivering = try Delivering()
        try delivering.writeLines("app.log", 0..<10)
        let agent = try delivering.agent()
        #expect(throws: Agent.StartFault.self) { try delivering.agent() }
        #expect(Delivering.waits(for: 10, agent))
        try delivering.scratch.move("state", to: "state-away")
        try delivering.writeLines("app.log", 10..<20)
        #expect(Delivering.waits(for: 20, agent))
        Machine.sleep(.milliseconds(1200))
        try delivering.scratch.move("state-away", to: "state")
        agent.stop()
        Self.expectDelivered(agent.wait())
        Self.expectDelivered(try delivering.agent(once: true).wait())
        #expect(try delivering.stored().records.count == 20)
    }
}

/// Takes connections and never answers.
final class SilentServer {
    let url: String
    private let server: LocalSocket

    init() throws {
        server = LocalSocket()
        url = "http://127.0.0.1:\(server.port)"
    }

    func stop() { server.close() }
}
