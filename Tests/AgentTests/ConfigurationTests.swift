import Agent
import Foundation
import Kinesis
import Seeded
import Testing

@Suite struct ConfigurationTests {
    static let smallest = """
        [inputs.app]
        type = "file"
        paths = ["/var/log/app/*.log"]

        [outputs.stream]
        type = "kinesis"
        stream = "app-logs"
        region = "eu-west-1"
        """

    static func read(_ text: String, _ environment: [String: String] = [:]) throws(Faults) -> Configuration {
        try Configuration(text: Array(text.utf8), file: "p.toml", environment: { environment[$0] })
    }

    /// The faults of a text, as the operator sees them.
    static func faults(_ text: String, _ environment: [String: String] = [:]) -> [String] {
        do {
            _ = try read(text, environment)
            return []
        } catch { return error.faults.map(\.description) }
    }

    static func with(agent: String = "", input: String = "", output: String = "") -> String {
        """
        [agent]
        \(agent)
        [inputs.app]
        type = "file"
        paths = ["/var/log/app/*.log"]
        \(input)
        [outputs.stream]
        type = "kinesis"
        stream = "app-logs"
        region = "eu-west-1"
        \(output)
        """
    }

    @Test func `the smallest file gives every default of the design`() throws {
        let configuration = try Self.read(Self.smallest)
        #expect(configuration.agent == Configuration().agent)
        #expect(configuration.agent.stateDirectory == "/var/lib/penstock")
        #expect(configuration.agent.memoryLimit == 256 << 20)
        #expect(configuration.agent.shutdownTimeout == .seconds(30))
        let input = try #require(configuration.inputs.first)
        #expect(configuration.inputs.count == 1)
        #expect(input.name == "app" && input.paths == ["/var/log/app/*.log"] && input.exclude == [])
        #expect(input.startAt == .end && input.onOversize == .split)
        #expect(input.maxRecord > 1_000_000 && input.maxRecord + 256 <= 1 << 20)
        #expect(input.place.line == 3 && input.place.column == 9)
        let output = try #require(configuration.outputs.first)
        #expect(output.stream == .name("app-logs") && output.region == "eu-west-1")
        #expect(output.endpoint == .region && output.wire == .auto && output.partitionKey == .spread)
        #expect(output.aggregate && output.aggregateMaxSize == 50 << 10 && output.aggregateMaxRecords == 0)
        #expect(output.linger == .milliseconds(100) && output.maxInFlight == 24 && output.rateLimit == 100)
        #expect(output.callMaxSize == 1 << 20 && output.callMaxRecords == 500)
        #expect(output.timeout == .seconds(10) && output.connectTimeout == .seconds(5))
        #expect(output.from == [] && output.profile == "" && output.caFile == "")
    }

    @Test func `every key is read`() throws {
        let configuration = try Self.read(
            """
            [agent]
            state_dir = "/s"
            memory_limit = "64MiB"
            shutdown_timeout = "5s"
            log_level = "debug"
            max_open_files = 101
            [inputs.a]
            type = "file"
            paths = ["/a", "/b/**/*.log"]
            exclude = ["/b/x.log"]
            start_at = "beginning"
            max_record = "1KB"
            on_oversize = "truncate"
            read_compressed = false
            multiline_start = '^\\d'
            multiline_timeout = "2s"
            [inputs.b]
            type = "file"
            paths = ["/c"]
            [outputs.o]
            type = "kinesis"
            from = ["a"]
            stream = "s"
            region = "us-east-2"
            endpoint = "http://127.0.0.1:4567"
            profile = "p"
            role_arn = "arn:aws:iam::123456789012:role/team/r"
            external_id = "x"
            ca_file = "/ca.pem"
            proxy = "http://u:p@proxy:3128"
            wire = "json"
            partition_key = "=key"
            ordered = true
            aggregate = false
            aggregate_max_size = "20KiB"
            aggregate_max_records = 7
            linger = "1.5s"
            max_in_flight = 3
            rate_limit = 0
            call_max_size = 100000
            call_max_records = 9
            timeout = "2s"
            connect_timeout = "500ms"
            """
        )
        var expected = Configuration()
        expected.agent.stateDirectory = "/s"
        expected.agent.memoryLimit = 64 << 20
        expected.agent.shutdownTimeout = .seconds(5)
        expected.agent.logLevel = .debug
        expected.agent.maxOpenFiles = 101
        var (a, b) = (Configuration.Input(name: "a"), Configuration.Input(name: "b"))
        (a.paths, a.exclude, a.startAt) = (["/a", "/b/**/*.log"], ["/b/x.log"], .beginning)
        (a.maxRecord, a.onOversize, a.place) = (1000, .truncate, configuration.inputs[0].place)
        (b.paths, b.place, b.maxRecord) = (["/c"], configuration.inputs[1].place, configuration.inputs[1].maxRecord)
        (a.readCompressed, a.multilineStart, a.multilineTimeout) = (false, "^\\d", .seconds(2))
        // They share what may be open.
        (a.maxOpenFiles, a.sharers, b.maxOpenFiles, b.sharers) = (50, 2, 50, 2)
        (a.file, b.file) = ("p.toml", "p.toml")
        expected.inputs = [a, b]
        var o = Configuration.Output(name: "o")
        o.fromPlace = configuration.outputs[0].fromPlace
        (o.from, o.stream, o.region, o.endpoint) = (["a"], .name("s"), "us-east-2", .url("http://127.0.0.1:4567"))
        (o.profile, o.caFile, o.wire, o.partitionKey) = ("p", "/ca.pem", .json, .literal("key"))
        (o.roleARN, o.externalID) = ("arn:aws:iam::123456789012:role/team/r", "x")
        o.proxy = "http://u:p@proxy:3128"
        o.ordered = true
        (o.aggregate, o.aggregateMaxSize, o.aggregateMaxRecords) = (false, 20 << 10, 7)
        (o.linger, o.maxInFlight, o.rateLimit) = (.milliseconds(1500), 3, 0)
        (o.callMaxSize, o.callMaxRecords) = (100_000, 9)
        (o.timeout, o.connectTimeout) = (.seconds(2), .milliseconds(500))
        expected.outputs = [o]
        #expect(configuration == expected)
    }

    @Test func `every fault is told at once, in order, with its place, key, and the nearest known key`() {
        let faults = Self.faults(
            """
            [agent]
            stat_dir = "/s"
            memory_limit = "1KiB"

            [inputs.app]
            type = "file"
            pahts = ["/x"]
            start_at = "middle"

            [outputs.stream]
            type = "kinesis"
            linger = 5
            max_in_flight = "many"
            """
        )
        let places = faults.map { $0.split(separator: " ").prefix(2).joined(separator: " ") }
        #expect(
            places == [
                "p.toml:2:1: agent.stat_dir:", "p.toml:3:16: agent.memory_limit:", "p.toml:5:1: inputs.app.paths:",
                "p.toml:7:1: inputs.app.pahts:", "p.toml:8:12: inputs.app.start_at:",
                "p.toml:10:1: outputs.stream.stream:", "p.toml:10:1: outputs.stream.region:",
                "p.toml:12:10: outputs.stream.linger:", "p.toml:13:17: outputs.stream.max_in_flight:",
            ],
            "\(faults)"
        )
        #expect(faults.first?.hasSuffix("did you mean \"state_dir\"?") == true)
        #expect(faults.count > 3 && faults[3].hasSuffix("did you mean \"paths\"?"))
    }

    @Test(arguments: [
        "state_dir = 1", "state_dir = \"relative\"", "memory_limit = true", "memory_limit = \"47MiB\"",
        "memory_limit = \"2TiB\"", "memory_limit = \"64MiBs\"", "memory_limit = -1", "shutdown_timeout = 30",
        "shutdown_timeout = \"30\"", "shutdown_timeout = \"-1s\"", "shutdown_timeout = \"2h\"",
        "log_level = \"loud\"", "log_level = []", "unknown = 1",
    ])
    func `one wrong value of the agent is one fault at its line`(line: String) {
        let faults = Self.faults(Self.with(agent: line))
        #expect(faults.count == 1, "\(faults)")
        #expect(faults.first?.hasPrefix("p.toml:2:") == true, "\(faults)")
        #expect(faults.first?.contains(": agent.\(line.prefix { $0 != " " }): ") == true, "\(faults)")
    }

    @Test(arguments: [
        "exclude = \"/x\"", "exclude = [1]", "exclude = [\"x\"]", "start_at = \"End\"", "max_record = 0",
        "max_record = \"11MiB\"", "on_oversize = \"drop\"", "multiline = true",
    ])
    func `one wrong value of an input is one fault at its line`(line: String) {
        let faults = Self.faults(Self.with(input: line))
        #expect(faults.count == 1 && faults.first?.hasPrefix("p.toml:6:") == true, "\(faults)")
    }

    @Test(arguments: [
        "from = [\"nobody\"]", "stream_arn = \"arn:aws:kinesis:eu-west-1:1:stream/s\"", "endpoint = \"localhost\"",
        "wire = \"xml\"", "partition_key = \"\"", "partition_key = \"=\"", "partition_key = \"hots\"",
        "ordered = 1", "ordered = true", "partition_key = \"random\"\nordered = true",
        "partition_key = \"source\"\ncompression = \"gzip\"\nordered = true",
        "aggregate = 1", "aggregate_max_size = \"1MiB\"", "aggregate_max_records = -1", "linger = \"61s\"",
        "max_in_flight = 0", "max_in_flight = 1001", "rate_limit = -1", "rate_limit = 50.0", "call_max_size = 1",
        "call_max_records = 501", "timeout = \"1ms\"", "connect_timeout = \"1\"", "profile = 1", "linger_ = 1",
        "role_arn = \"arn:aws:iam::1:user/u\"", "role_arn = \"r\"", "external_id = \"x\"", "fips = 1",
        "proxy = \"proxy:3128\"", "proxy = \"socks5://proxy:1080\"", "endpoint = \"http://h\"\nfips = true",
        "endpoint = \"embedded\"\ndual_stack = true",
        "[outputs.other]\ntype = \"kinesis\"\nstream = \"s\"\nregion = \"r\"",
    ])
    func `one wrong value of an output is one fault`(line: String) {
        let faults = Self.faults(Self.with(output: line))
        #expect(faults.count == 1, "\(faults)")
    }

    @Test func `records of up to 10 MiB less the key are allowed where the memory holds them`() throws {
        for (text, bytes) in [
            ("1MiB", Limits.longestRecord()), ("1048576B", Limits.longestRecord()), ("1048577B", 1_048_577),
            ("5MiB", 5 << 20), ("10MiB", Limits.longestRecord(of: 10 << 20)),
        ] {
            let input = try Self.read(Self.with(input: "max_record = \"\(text)\"")).inputs[0]
            #expect(input.maxRecord == bytes && input.hasLongRecords == (bytes > 1 << 20), "\(text)")
            #expect(input.ringBytes / 2 >= bytes + 64 && input.ringBytes.nonzeroBitCount == 1)
        }
        #expect(Limits.longestRecord(of: 10 << 20) + 1024 == 10 << 20)
        #expect(try Self.read(Self.smallest).inputs[0].ringBytes == 2 << 20)

        let long = Self.with(agent: "memory_limit = \"64MiB\"", input: "max_record = \"10MiB\"")
        let faults = Self.faults(long)
        #expect(faults.count == 1)
        #expect(faults.first?.hasPrefix("p.toml:6:14: inputs.app.max_record: records of ") == true, "\(faults)")
        // What it says to set is enough, and a MiB less is not.
        let words = faults.first?.split(separator: "\"").first { $0.hasSuffix("MiB") } ?? ""
        let least = try #require(Int(words.dropLast(3)))
        #expect(least < 256)
        #expect(Self.faults(long.replacing("64MiB", with: "\(least)MiB")).isEmpty)
        #expect(Self.faults(long.replacing("64MiB", with: "\(least - 1)MiB")).count == 1)
        // An input that goes nowhere needs nothing.
        let other = "[inputs.b]\ntype = \"file\"\npaths = [\"/b\"]\n"
        #expect(
            Self.faults(long.replacing("[outputs.stream]", with: other + "[outputs.stream]\nfrom = [\"b\"]")).isEmpty
        )
    }

    @Test func `a partition key may have 256 characters, of any size`() throws {
        let key = String(repeating: "é", count: 256)
        #expect(
            try Self.read(Self.with(output: "partition_key = \"=\(key)\"")).outputs[0].partitionKey == .literal(key)
        )
        #expect(Self.faults(Self.with(output: "partition_key = \"=\(key)x\"")).count == 1)
        for (text, mode) in [
            ("spread", Configuration.PartitionKey.spread), ("source", .source), ("host", .host), ("random", .random),
            ("=spread", .literal("spread")),
        ] {
            #expect(try Self.read(Self.with(output: "partition_key = \"\(text)\"")).outputs[0].partitionKey == mode)
        }
    }

    @Test func `the environment stands in for its names, and a missing one is a fault`() throws {
        let text = Self.with(agent: "state_dir = \"/${A}/x${B}\"", output: "linger = \"${L}\"")
        let configuration = try Self.read(text, ["A": "a", "B": "", "L": "7ms"])
        #expect(configuration.agent.stateDirectory == "/a/x")
        #expect(configuration.outputs[0].linger == .milliseconds(7))
        let faults = Self.faults(text, ["B": "b", "L": "7ms"])
        #expect(faults.count == 1 && faults[0].contains("the environment has no A"), "\(faults)")
        #expect(Self.faults(Self.with(agent: "state_dir = \"/${A\"")).count == 1)
        // What stands in is not looked at again.
        #expect(try Self.read(Self.with(agent: "state_dir = \"/${A}\""), ["A": "${B}"]).agent.stateDirectory == "/${B}")
    }

    @Test func `a stream has a name or an ARN, which brings its region`() throws {
        let arn = "arn:aws:kinesis:ap-south-1:123456789012:stream/s"
        func text(_ output: String) -> String {
            "[inputs.a]\ntype = \"file\"\npaths = [\"/a\"]\n[outputs.o]\ntype = \"kinesis\"\n\(output)"
        }
        let output = try Self.read(text("stream_arn = \"\(arn)\"")).outputs[0]
        #expect(output.stream == .arn(arn) && output.region == "ap-south-1")
        #expect(Self.faults(text("stream_arn = \"\(arn)\"\nstream = \"s\"")).count == 1)
        #expect(Self.faults(text("region = \"r\"")).count == 1)
        #expect(Self.faults(text("stream_arn = \"arn:aws:s3:::x\"\nregion = \"r\"")).count == 1)
        #expect(Self.faults(text("stream = \"no spaces\"\nregion = \"r\"")).count == 1)
        #expect(Self.faults(text("stream = \"\(String(repeating: "s", count: 129))\"\nregion = \"r\"")).count == 1)
        // The region's order: key, ARN, AWS_REGION, AWS_DEFAULT_REGION; an endpoint of one's own needs none.
        #expect(try Self.read(text("stream = \"s\""), ["AWS_REGION": "r1"]).outputs[0].region == "r1")
        #expect(try Self.read(text("stream = \"s\""), ["AWS_DEFAULT_REGION": "r2"]).outputs[0].region == "r2")
        #expect(Self.faults(text("stream = \"s\"")).count == 1)
        #expect(Self.faults(text("stream = \"s\"\nregion = \"eu west\"")).count == 1)
        #expect(Self.faults(text("stream_arn = \"\(arn)\"\nregion = \"ap-south-2\"")).count == 1)
        #expect(Self.faults(text("stream_arn = \"\(arn.replacing("aws:", with: "aws-cn:"))\"")).count == 1)
        let embedded = try Self.read(text("stream = \"s\"\nendpoint = \"embedded\"")).outputs[0]
        #expect(embedded.endpoint == .embedded && !embedded.region.isEmpty)
    }

    @Test func `the environment may name the endpoint and the certificates to trust`() throws {
        let text = Self.with()
        func output(_ environment: [String: String], _ line: String = "") throws -> Configuration.Output {
            try Self.read(Self.with(output: line), environment).outputs[0]
        }
        #expect(try Self.read(text).outputs[0].endpoint == .region)
        #expect(try output(["AWS_ENDPOINT_URL": "http://a"]).endpoint == .url("http://a"))
        let both = ["AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_KINESIS": "http://k", "AWS_CA_BUNDLE": "/b.pem"]
        #expect(try output(both).endpoint == .url("http://k"))
        #expect(try output(both).caFile == "/b.pem")
        #expect(try output(both, "endpoint = \"http://own\"\nca_file = \"/own\"").endpoint == .url("http://own"))
        #expect(try output(both, "endpoint = \"http://own\"\nca_file = \"/own\"").caFile == "/own")
        let ignored = both.merging(["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "True"]) { $1 }
        #expect(try output(ignored).endpoint == .region)
        #expect(Self.faults(text, ["AWS_ENDPOINT_URL": "nowhere"]).count == 1)
    }

    @Test func `a password in a proxy is in no fault`() {
        let faults = Self.faults(Self.with(output: "proxy = \"https://u:hunter2@proxy\""))
        #expect(faults.count == 1 && !faults[0].contains("hunter2"), "\(faults)")
    }

    @Test func `a syntax error has its place`() {
        #expect(Self.faults("[agent]\nstate_dir = \n").first?.hasPrefix("p.toml:2:") == true)
        #expect(Self.faults("[agent]\na = 1\na = 2").first?.hasPrefix("p.toml:3:") == true)
        #expect(Self.faults("\u{1}").first?.hasPrefix("p.toml:1:") == true)
        #expect(Self.faults(String(repeating: "[", count: 5000)).count == 1)
    }

    @Test(arguments: [
        "", "agent = 1", "[inputs]", "inputs = []\noutputs = 3", "[inputs]\na = 1\n[outputs]\nb = \"x\"",
        "[inputs.a]\n[outputs.o]", "# nothing", "[[inputs]]\n[[outputs]]", "inputs.a.b.c = 1",
    ])
    func `a file without an input or an output says what to add`(text: String) {
        let faults = Self.faults(text)
        #expect(faults.count >= 2, "\(faults)")
        #expect(faults.allSatisfy { !$0.contains(":0:") }, "\(faults)")
    }

    @Test func `a table without a type says so`() {
        let text = Self.smallest.replacing("type = \"file\"\n", with: "").replacing("type = \"kinesis\"\n", with: "")
        let faults = Self.faults(text)
        #expect(faults.map { $0.contains("needs a type") } == [true, true], "\(faults)")
    }

    @Test func `a file that is not there is a fault that names the option`() {
        #expect {
            try Configuration(file: "/no/such/file.toml")
        } throws: { error in
            (error as? Faults)?.faults.first?.description.contains("--config") == true
        }
    }

    /// An environment that has every name.
    private static func anything(_ name: String) -> String? {
        name == "AWS_REGION" ? "eu-west-1" : name.hasPrefix("AWS_") ? nil : "value"
    }

    @Test func `what the project ships has no faults`() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "config")
        let examples = try FileManager.default.contentsOfDirectory(atPath: root.appending(path: "examples").path)
        let files = ["penstock.toml"] + examples.filter { $0.hasSuffix(".toml") }.map { "examples/\($0)" }
        for file in files {
            let text = Array(try Data(contentsOf: root.appending(path: file)))
            do { _ = try Configuration(text: text, file: file, environment: Self.anything) } catch {
                Issue.record("\(error.faults.map(\.description))")
            }
        }
        let folder = root.appending(path: "examples/conf.d")
        let additions = try FileManager.default.contentsOfDirectory(atPath: folder.path)
        for file in additions {
            let text = Array(try Data(contentsOf: folder.appending(path: file)))
            let addition = Configuration.Addition(file: file, text: text)
            let main = Array(Self.smallest.utf8)
            do {
                _ = try Configuration(text: main, file: "p", additions: [addition], environment: Self.anything)
            } catch {
                Issue.record("\(error.faults.map(\.description))")
            }
        }
        #expect(!additions.isEmpty)
        // Its commented keys are keys, with the values that hold without them.
        let path = root.appending(path: "penstock.toml")
        let text = try String(contentsOf: path, encoding: .utf8)
        let commented = text.split(separator: "\n").map { line in
            let isKey = line.contains(" = ") && !line.hasSuffix(".") || line.hasPrefix("# [")
            return line.hasPrefix("# ") && isKey ? line.dropFirst(2) : line
        }
        var whole = try Self.read(commented.joined(separator: "\n"))
        let plain = try Self.read(text)
        #expect(whole.agent.isAdminNamed && !plain.agent.isAdminNamed)
        (whole.agent.isAdminNamed, whole.agent.adminTokenFilePlace) = (false, plain.agent.adminTokenFilePlace)
        #expect(whole.agent == plain.agent && whole.outputs == plain.outputs)
        #expect(whole.inputs.count == 2 && plain.inputs.count == 1)
        for input in whole.inputs { #expect(input.maxRecord == plain.inputs[0].maxRecord) }
        var socket = Configuration.SocketSettings()
        socket.listen = whole.inputs[1].socket?.listen ?? []
        #expect(whole.inputs[1].socket == socket && socket.listen.count == 3)
    }

    @Test func `the configuration in the README has no faults`() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let readme = try String(contentsOf: root.appending(path: "README.md"), encoding: .utf8)
        let blocks = readme.components(separatedBy: "```toml\n").dropFirst()
        #expect(!blocks.isEmpty)
        for block in blocks {
            let text = try #require(block.components(separatedBy: "```").first)
            let configuration = try Self.read(text)
            #expect(configuration.outputs[0].stream == .name("app-logs"))
        }
    }

    @Test func `a partition key out of JSON is named by its path`() throws {
        let configuration = try Self.read(Self.with(output: #"partition_key = "json:/device/a~1b""#))
        let pointer = try #require(JSONPointer("/device/a~1b"))
        #expect(configuration.outputs[0].partitionKey == .field(pointer))
        for wrong in ["json:", "json:device", "json:/a~2b", "json"] {
            let faults = Self.faults(Self.with(output: "partition_key = \"\(wrong)\""))
            #expect(faults.count == 1 && faults[0].contains("outputs.stream.partition_key: must"), "\(faults)")
            #expect(faults[0].contains("json:/"), "\(faults)")
        }
    }

    @Test func `compression is one of three`() throws {
        for compression in Compression.allCases {
            let configuration = try Self.read(Self.with(output: "compression = \"\(compression.rawValue)\""))
            #expect(configuration.outputs[0].compression == compression)
        }
        #expect(try Self.read(Self.smallest).outputs[0].compression == .none)
        let faults = Self.faults(Self.with(output: #"compression = "zstd""#))
        #expect(
            faults.count == 1 && faults[0].contains(#""zstd" is none of "none", "gzip", "gzip_record""#),
            "\(faults)"
        )
    }
}

@Suite struct UnitsTests {
    @Test func `sizes and durations read as people write them`() {
        let sizes: [(String, Int?)] = [
            ("0", 0), ("7", 7), ("1B", 1), ("1KB", 1000), ("1KiB", 1024), ("2MB", 2_000_000), ("2MiB", 2 << 20),
            ("1.5GiB", 3 << 29), ("1GB", 1_000_000_000), ("1TiB", 1 << 40), ("5 KiB", 5120), ("", nil), ("KiB", nil),
            ("1kb", nil), ("1 2", nil), ("-1", nil), ("1e3", nil), ("0x10", nil), ("1.2.3KB", nil), ("inf", nil),
            ("99999999TiB", nil), ("１", nil), ("1KiB ", nil),
        ]
        for (text, bytes) in sizes { #expect(Units.bytes(text) == bytes, "\(text)") }
        let durations: [(String, Duration?)] = [
            ("1ns", .nanoseconds(1)), ("200us", .microseconds(200)), ("200µs", .microseconds(200)),
            ("100ms", .milliseconds(100)), ("1.5s", .milliseconds(1500)), ("5m", .seconds(300)),
            ("2h", .seconds(7200)), ("1d", .seconds(86_400)), ("10", nil), ("s", nil), ("1 s", .seconds(1)),
            ("1M", nil), ("-1s", nil), ("99999999999h", nil),
        ]
        for (text, duration) in durations { #expect(Units.duration(text) == duration, "\(text)") }
    }

    @Test func `what is written reads as the same`() {
        var random = Random()
        for _ in 0..<2000 {
            let bytes = random.below(1 << random.below(50))
            #expect(Units.bytes(Units.text(bytes: bytes)) == bytes, random.note)
            let duration = Duration.nanoseconds(random.below(1 << random.below(50)))
            #expect(Units.duration(Units.text(duration: duration)) == duration, random.note)
        }
        #expect(Units.text(bytes: 50 << 10) == "50KiB" && Units.text(duration: .seconds(300)) == "5m")
    }
}
