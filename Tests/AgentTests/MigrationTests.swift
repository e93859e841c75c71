import Agent
import Kinesis
import Platform
import Seeded
import Testing

@Suite struct MigrationTests {
    static func migrate(_ json: String) throws(MigrationFault) -> Migration {
        try Migration([("agent.json", Array(json.utf8))])
    }

    /// What our reader makes of a translation: no translation is one that it refuses.
    static func read(_ toml: String) throws -> Configuration {
        do { return try Configuration(text: Array(toml.utf8), file: "p.toml", environment: { _ in nil }) } catch {
            Issue.record("\(error.faults)\n\(toml)")
            throw error
        }
    }

    /// The one configuration that comes out of an agent.json.
    static func only(_ json: String) throws -> (configuration: Configuration, toml: String, migration: Migration) {
        let migration = try migrate(json)
        try #require(migration.configurations.count == 1)
        let toml = migration.configurations[0].toml
        return (try read(toml), toml, migration)
    }

    static func flow(_ more: String = "", global: String = "") throws -> (
        input: Configuration.Input, output: Configuration.Output, toml: String, migration: Migration
    ) {
        let json = """
            { \(global.isEmpty ? "" : global + ",") "flows": [
              { "filePattern": "/tmp/app.log*", "kinesisStream": "yourstream"\(more.isEmpty ? "" : ", " + more) } ] }
            """
        let (configuration, toml, migration) = try only(json)
        return (try #require(configuration.inputs.first), try #require(configuration.outputs.first), toml, migration)
    }

    static func open(_ migration: Migration) -> [String] { migration.remarks.filter(\.isOpen).map(\.key) }

    // MARK: what is the same

    @Test func `the smallest flow reads the same files and sends each line as a record of its own`() throws {
        let (input, output, _, migration) = try Self.flow()
        #expect(input.name == "app" && input.paths == ["/tmp/app.log*"] && input.startAt == .end)
        #expect(input.exclude == ["/tmp/*.[gG][zZ]", "/tmp/*.[bB][zZ]2", "/tmp/*.[zZ][iI][pP]"])
        #expect(input.onOversize == .truncate && input.multilineStart.isEmpty)
        #expect(output.stream == .name("yourstream") && output.region == "us-east-1" && output.endpoint == .region)
        #expect(output.partitionKey == .random && !output.aggregate && output.linger == .milliseconds(100))
        #expect(!migration.isIncomplete)
        #expect(
            Set(migration.remarks.map(\.key)).isSuperset(of: [
                "records", "aggregate", "checkpointFile", "kinesis.endpoint",
            ])
        )
    }

    @Test func `every key that has an equal becomes it`() throws {
        let (input, output, toml, migration) = try Self.flow(
            """
            "initialPosition": "START_OF_FILE", "partitionKeyOption": "RANDOM", "multiLineStartPattern": "\\\\[SEQUENCE=",
            "maxBufferAgeMillis": 5000, "maxBufferSizeRecords": "250", "maxBufferSizeBytes": 4194304
            """,
            global: """
                "kinesis.endpoint": "https://kinesis.eu-west-1.amazonaws.com", "cloudwatch.emitMetrics": false,
                "assumeRoleARN": "arn:aws:iam::123456789012:role/ingest", "assumeRoleExternalId": "x 7",
                "maxSendingThreads": 40, "shutdownTimeoutMillis": 20000, "connectionTimeoutMillis": 7000,
                "socketTimeoutMillis": 15000
                """
        )
        #expect(input.startAt == .beginning && input.multilineStart == #"^\[SEQUENCE="#)
        #expect(output.linger == .seconds(5) && output.callMaxRecords == 250 && output.callMaxSize == 4 << 20)
        #expect(output.region == "eu-west-1" && output.endpoint == .region)
        #expect(output.roleARN == "arn:aws:iam::123456789012:role/ingest" && output.externalID == "x 7")
        #expect(output.maxInFlight == 40 && output.connectTimeout == .seconds(7) && output.timeout == .seconds(15))
        #expect(try Self.read(toml).agent.shutdownTimeout == .seconds(20))
        #expect(!migration.isIncomplete && !migration.remarks.contains { $0.key == "cloudwatch.emitMetrics" })
    }

    @Test(arguments: [
        ("https://kinesis.us-west-2.amazonaws.com", "us-west-2", Configuration.Endpoint.region, false, false),
        ("kinesis.cn-north-1.amazonaws.com.cn", "cn-north-1", .region, false, false),
        ("https://kinesis-fips.us-east-2.amazonaws.com/", "us-east-2", .region, true, false),
        ("https://kinesis.eu-west-1.api.aws", "eu-west-1", .region, false, true),
        ("https://kinesis.us-gov-west-1.amazonaws.com", "us-gov-west-1", .region, false, false),
        (
            "https://vpce-0a1b.kinesis.eu-west-3.vpce.amazonaws.com", "eu-west-3",
            .url("https://vpce-0a1b.kinesis.eu-west-3.vpce.amazonaws.com"), false, false
        ),
        ("http://127.0.0.1:4567", "us-east-1", .url("http://127.0.0.1:4567"), false, false),
        (
            "http://kinesis.eu-west-1.amazonaws.com", "eu-west-1", .url("http://kinesis.eu-west-1.amazonaws.com"),
            false, false
        ),
    ])
    func `an endpoint becomes its region where it is the region's`(
        url: String,
        region: String,
        endpoint: Configuration.Endpoint,
        fips: Bool,
        dualStack: Bool
    ) throws {
        let (_, output, _, _) = try Self.flow(global: #""kinesis.endpoint": "\#(url)""#)
        #expect(output.region == region && output.endpoint == endpoint && output.fips == fips)
        #expect(output.dualStack == dualStack)
    }

    @Test func `patterns are Java's for the file's name and literal for its folder`() throws {
        let (input, _, _, migration) = try Self.flow(#""filePattern": ["/a/[x]/*.{log,txt}", "/b/$\\{c}\\*.log"]"#)
        #expect(
            input.paths == [
                "/a/[[]x]/*.log", "/a/[[]x]/*.txt", "/b/[$]{c}[*].log", "/a/[[]x]/.*.log", "/a/[[]x]/.log",
                "/a/[[]x]/.*.txt", "/a/[[]x]/.txt",
            ]
        )
        #expect(input.exclude.isEmpty)
        #expect(migration.remarks.contains { $0.key == "flows[0].filePattern" })
    }

    // MARK: what is not

    @Test(arguments: [
        (#""skipHeaderLines": 3"#, "skipHeaderLines"), (#""fileFooterPattern": "^END""#, "fileFooterPattern"),
        (#""dataProcessingOptions": [{"optionName": "SINGLELINE"}]"#, "dataProcessingOptions"),
        (
            #""dataProcessingOptions": [{"optionName": "CSVTOJSON", "customFieldNames": ["a", "b"], "delimiter": "\\t"}]"#,
            "dataProcessingOptions"
        ),
        (
            #""dataProcessingOptions": [{"optionName": "LOGTOJSON", "logFormat": "COMMONAPACHELOG"}]"#,
            "dataProcessingOptions"
        ),
        (
            #""dataProcessingOptions": [{"optionName": "ADDMETADATA", "metadata": {"k": {"n": 1}}}]"#,
            "dataProcessingOptions"
        ),
        (#""multiLineStartPattern": "[a-z&&[^b]]""#, "multiLineStartPattern"),
        (#""multiLineStartPattern": "^--\\n""#, "multiLineStartPattern"),
    ])
    func `what changes records and has no equal is named in the file and makes it incomplete`(
        option: String,
        key: String
    ) throws {
        let (_, _, toml, migration) = try Self.flow(option)
        #expect(Self.open(migration) == ["flows[0].\(key)"])
        #expect(toml.replacing("\n# ", with: " ").contains(" flows[0].\(key): NOT CARRIED OVER: "))
    }

    @Test(arguments: [
        "minTimeBetweenFilePollsMillis", "maxTimeBetweenFileTrackerRefreshMillis", "waitOnFullPublishQueueMillis",
        "retryInitialBackoffMillis", "retryMaxBackoffMillis", "publishQueueCapacity", "aggregatedRecordSizeBytes",
        "truncatedRecordTerminator", "noSuchKey",
    ])
    func `every other key of a flow has a remark`(key: String) throws {
        let (_, _, toml, migration) = try Self.flow(#""\#(key)": "17""#)
        #expect(migration.remarks.contains { $0.key == "flows[0].\(key)" && !$0.isOpen })
        #expect(toml.contains("# flows[0].\(key): "))
    }

    @Test(arguments: [
        "cloudwatch.endpoint", "cloudwatch.namespace", "firehose.endpoint", "maxConnections", "useHttpGzip",
        "userAgent",
        "checkpointFile", "checkpointTimeToLiveDays", "log.emitMetrics", "sendingThreadsMaxQueueSize", "noSuchKey",
    ])
    func `every other key outside the flows has a remark`(key: String) throws {
        let (_, _, toml, migration) = try Self.flow(global: #""\#(key)": "17""#)
        #expect(migration.remarks.contains { $0.key == key && !$0.isOpen })
        #expect(toml.contains("# \(key): "))
    }

    @Test func `a role's endpoint and a class for credentials are left to somebody`() throws {
        let (_, _, _, migration) = try Self.flow(
            global: """
                "assumeRoleARN": "arn:aws:iam::123456789012:role/ingest", "sts.endpoint": "https://sts.example.com",
                "userDefinedCredentialsProvider.classname": "a.B", "userDefinedCredentialsProvider.location": "/b.jar"
                """
        )
        #expect(Set(Self.open(migration)) == ["sts.endpoint", "userDefinedCredentialsProvider.classname"])
    }

    @Test func `secrets are not copied anywhere`() throws {
        let (_, _, toml, migration) = try Self.flow(
            global: #""awsAccessKeyId": "AKIDQUITESECRET", "awsSecretAccessKey": "quitesecret""#
        )
        #expect(Self.open(migration) == ["awsAccessKeyId, awsSecretAccessKey"])
        let all = toml + migration.remarks.map(\.description).joined()
        #expect(!all.lowercased().contains("quitesecret") && all.contains(".aws/credentials"))
    }

    @Test func `each stream has a configuration and a state of its own, and Firehose has none`() throws {
        let migration = try Self.migrate(
            """
            { "flows": [ { "filePattern": "/a/x.log*", "kinesisStream": "one", "maxBufferAgeMillis": 9000 },
              { "filePattern": "/a/x.log", "kinesisStream": "two" },
              { "filePattern": "/b/x.log*", "kinesisStream": "one", "maxBufferAgeMillis": 2000 },
              { "filePattern": "/c/x.log*", "deliveryStream": "hose" } ] }
            """
        )
        #expect(migration.configurations.map(\.stream) == ["one", "two"])
        let read = try migration.configurations.map { try Self.read($0.toml) }
        #expect(read.map { $0.outputs[0].stream } == [.name("one"), .name("two")])
        #expect(read.map(\.agent.stateDirectory) == ["/var/lib/penstock/stream-one", "/var/lib/penstock/stream-two"])
        #expect(read.map(\.agent.admin?.port) == [9600, 9601])
        #expect(read[0].inputs.map(\.name) == ["x", "x-2"] && read[1].inputs.map(\.paths) == [["/a/x.log"]])
        #expect(read[0].outputs[0].linger == .seconds(2) && read[1].outputs[0].linger == .milliseconds(100))
        #expect(Self.open(migration) == ["flows[3].deliveryStream"])
    }

    @Test func `flows of further files are added, as those of agent.d are`() throws {
        let flow = { (name: String) in
            Array(#"{"flows": [{"filePattern": "/\#(name)/a.log", "kinesisStream": "s"}], "x": 1}"#.utf8)
        }
        let migration = try Migration([("agent.json", flow("main")), ("more.json", flow("more"))])
        let read = try Self.read(migration.configurations[0].toml)
        #expect(read.inputs.map(\.paths) == [["/main/a.log"], ["/more/a.log"]])
        #expect(migration.remarks.contains { $0.file == "more.json" && $0.key == "x" })
    }

    // MARK: what cannot be read

    @Test(arguments: [
        ("{\n  \"flows\": [,]\n}", "agent.json:2:13: unexpected byte"),
        ("{ \"flows\": [] /* }", "agent.json:1:15: unexpected"),
        ("[]", "agent.json:1:1: must be a JSON object"), ("{}", "flows: there are none"),
        ("", "agent.json:1:1: it ends"),
        (#"{"flows": [{"kinesisStream": "s"}]}"#, "flows[0].filePattern: is missing"),
        (#"{"flows": [{"filePattern": "/a"}]}"#, "flows[0].kinesisStream: is missing"),
        (#"{"flows": [{"filePattern": "/a/", "kinesisStream": "s"}]}"#, "names a folder"),
        (#"{"flows": [{"filePattern": "a.log", "kinesisStream": "s"}]}"#, "must be an absolute path"),
        (#"{"flows": [{"filePattern": "/a{", "kinesisStream": "s"}]}"#, "has a { without its }"),
        (#"{"flows": [{"filePattern": "/a", "kinesisStream": "a b"}]}"#, "is no stream's name"),
        (
            #"{"flows": [{"filePattern": "/a", "kinesisStream": "s", "initialPosition": "MIDDLE"}]}"#,
            "is none of START_OF_FILE"
        ),
        (
            #"{"flows": [{"filePattern": "/a", "kinesisStream": "s", "maxBufferAgeMillis": "1s"}]}"#,
            "must be a whole number"
        ),
        (#"{"flows": {"filePattern": "/a"}}"#, "must be an array of objects"),
        (
            #"{"assumeRoleARN": "x", "flows": [{"filePattern": "/a", "kinesisStream": "s"}]}"#,
            "role_arn: must look like"
        ),
        (
            #"{"kinesis.endpoint": "https://u:p@h", "flows": [{"filePattern": "/a", "kinesisStream": "s"}]}"#,
            "must be a plain URL"
        ),
    ])
    func `what is no configuration is refused with its place and what to do`(json: String, words: String) throws {
        do {
            _ = try Self.migrate(json)
            Issue.record("nothing was refused")
        } catch { #expect(error.description.contains(words), "\(error)") }
    }

    @Test func `comments, a byte order mark and a key that comes twice are read as the Kinesis Agent reads them`()
        throws
    {
        let (configuration, _, _) = try Self.only(
            """
            \u{feff}{ // "flows": [
              "flows": 7, /* " */ "flows": [ /* , */
              { "filePattern": "/a//*/x.log", "kinesisStream": "s" } ] }
            """
        )
        #expect(configuration.inputs.map(\.paths) == [["/a/[*]/x.log"]])
    }

    // MARK: whatever comes

    @Test func `every translation of anything at all is one that our reader takes`() throws {
        var chance = Random()
        let letters = Array("ab*?[]{},\\-!^$\"'#\n\t/é\u{7f}=.| ()+").map(String.init)
        func text(_ most: Int) -> String {
            (0..<Int.random(in: 0...most, using: &chance)).map { _ in letters.randomElement(using: &chance)! }.joined()
        }
        func quoted(_ text: String) -> String { String(decoding: WireFormat.json.encode(.text(text)), as: UTF8.self) }
        var translated = 0
        for _ in 0..<3000 {
            let flows = (0..<Int.random(in: 1...3, using: &chance)).map { number in
                let pattern = "/" + text(2).replacing("/", with: "") + "/f" + text(8).replacing("/", with: "")
                return """
                    {"filePattern": \(quoted(pattern)), "kinesisStream": "s\(Int.random(in: 0...1, using: &chance))",
                     "multiLineStartPattern": \(quoted(text(8))), "maxBufferAgeMillis": \(Int.random(in: -9...90_000, using: &chance)),
                     "maxBufferSizeBytes": \(Int.random(in: -9...90_000_000, using: &chance)),
                     "maxBufferSizeRecords": \(Int.random(in: -9...900, using: &chance)), \(quoted(text(9))): \(quoted(text(9)))}
                    """
            }
            let json = """
                {"flows": [\(flows.joined(separator: ","))], "connectionTimeoutMillis": \(Int.random(in: -9...900_000, using: &chance)),
                 "assumeRoleARN": "arn:aws:iam::1:role/a", "assumeRoleExternalId": \(quoted(text(5).replacing("$", with: ""))),
                 \(quoted("k" + text(9))): \(quoted(text(9)))}
                """
            // What is refused, is refused by the translation itself, with its reason.
            guard let migration = try? Self.migrate(json) else { continue }
            for configuration in migration.configurations { _ = try Self.read(configuration.toml) }
            translated += 1
        }
        #expect(translated > 500, chance.note)
    }
}
