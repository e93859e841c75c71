import Admin
import Agent
import Foundation
import Kinesis
import Testing

@Suite struct ConfigurationDocumentTests {
    /// Every key, with another value than its default.
    private static let text = """
        [agent]
        state_dir = "/srv/penstock"
        memory_limit = "300MiB"
        shutdown_timeout = "31s"
        max_open_files = 4097
        log_level = "debug"
        admin = "127.0.0.2:9601"
        admin_token_file = "/etc/penstock/token"
        dead_letters = { max_size = "2GiB" }
        [inputs.app]
        type = "file"
        paths = ["/srv/*.log", "/srv/\\"a\\".txt"]
        exclude = ["/srv/x.log"]
        start_at = "beginning"
        max_record = "100KiB"
        on_oversize = "truncate"
        multiline_start = '^\\d'
        multiline_timeout = "6s"
        read_compressed = false
        [inputs.net]
        type = "socket"
        listen = ["udp://127.0.0.1:5140", "tls://127.0.0.1:6514", "unix:///run/p.sock", "unixgram:///run/q.sock"]
        framing = "nul"
        receive_buffer = "9MiB"
        readers = 2
        gather = "2ms"
        unixgram_full = "wait"
        max_connections = 9
        idle_timeout = "9m"
        handshake_timeout = "9s"
        tls_cert = "/etc/c.pem"
        tls_key = "/etc/k.pem"
        tls_client_ca = "/etc/ca.pem"
        mode = "0600"
        group = "adm"
        max_record = "90KiB"
        on_oversize = "dead_letter"
        [inputs.syslog]
        type = "syslog"
        listen = ["tcp://127.0.0.1:601", "udp://127.0.0.1:514", "unixgram:///run/s.sock"]
        format = "json"
        [outputs.out]
        type = "kinesis"
        from = ["app", "net"]
        stream_arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/app-logs"
        region = "eu-west-1"
        endpoint = "https://user:PASSWORD1@kinesis.example.com/x@y"
        profile = "ingest"
        role_arn = "arn:aws:iam::123456789012:role/ingest"
        external_id = "SECRET2"
        ca_file = "/etc/ca.pem"
        proxy = "http://user:PASSWORD3@proxy.example.com:3128"
        wire = "json"
        partition_key = "json:/device/id"
        ordered = true
        compression = "gzip_record"
        aggregate = false
        aggregate_max_size = "40KiB"
        aggregate_max_records = 7
        linger = "90ms"
        max_in_flight = 23
        rate_limit = 50
        call_max_size = "2MiB"
        call_max_records = 499
        timeout = "11s"
        connect_timeout = "6s"
        spool = { max_size = "9GiB", keep_free = "2GiB", when = "always", sync = "2s" }
        """

    /// With what an endpoint of one's own leaves no room for.
    private static let regional = text.split(separator: "\n").map {
        $0.hasPrefix("endpoint") ? "fips = true\ndual_stack = true" : String($0)
    }.joined(separator: "\n")

    private static func read(_ text: String) throws -> Configuration {
        do { return try Configuration(text: Array(text.utf8), file: "test.toml", environment: { _ in nil }) } catch {
            Issue.record("\(error.faults.map(\.description))")
            throw error
        }
    }

    /// The document as TOML, without what is empty: that is the default.
    private static func toml(_ value: WireValue) -> String {
        guard case .map(let tables) = value else { return "" }
        var text = ""
        for table in tables {
            guard case .map(let members) = table.value else { continue }
            let named = table.name == "agent" ? [WireValue.Member("", table.value)] : members
            for each in named {
                text += each.name.isEmpty ? "[agent]\n" : "[\(table.name).\(each.name)]\n"
                guard case .map(let keys) = each.value else { continue }
                for key in keys where key.value != .text("") && key.value != .list([]) {
                    text += "\(key.name) = \(literal(key.value))\n"
                }
            }
        }
        return text
    }

    private static func literal(_ value: WireValue) -> String {
        switch value {
        case .map(let members):
            "{ " + members.map { "\($0.name) = \(literal($0.value))" }.joined(separator: ", ") + " }"
        case .list(let values): "[" + values.map(literal).joined(separator: ", ") + "]"
        default: String(decoding: WireFormat.json.encode(value), as: UTF8.self)
        }
    }

    @Test(arguments: [text, regional])
    func `what is in effect can be read as a configuration, and means the same`(_ text: String) throws {
        let document = try Self.read(text).document
        #expect(try Self.read(Self.toml(document)).document == document)
        // A key that the document has not would be at its default after it.
        for line in text.split(separator: "\n") where line.contains(" = ") {
            let (key, value) = (line.prefix { $0 != " " }, line.drop { $0 != "=" }.dropFirst(2))
            guard !value.contains("PASSWORD"), !value.contains("SECRET"), key != "max_record" else { continue }
            let toml = Self.toml(document)
            #expect(toml.contains("\(key) = "), "\(key)")
            if value.hasPrefix("\"") { #expect(toml.contains("\(key) = \(value)\n"), "\(line)") }
        }
    }

    @Test func `every key of the commented configuration has its place`() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let shipped = try String(contentsOf: root.appending(path: "config/penstock.toml"), encoding: .utf8)
        let document = Self.toml(try Self.read(Self.text).document)
        var keys = 0
        for line in shipped.split(separator: "\n") {
            let line = line.hasPrefix("# ") ? line.dropFirst(2) : line
            let key = line.prefix { $0.isLetter || $0 == "_" }
            guard !key.isEmpty, line.dropFirst(key.count).hasPrefix(" = "), !line.hasSuffix(".") else { continue }
            keys += 1
            guard key != "stream" else { continue }
            #expect(document.contains("\n\(key) = "), "\(key)")
        }
        #expect(keys > 60)
    }

    @Test func `secrets are hidden`() throws {
        let text = String(decoding: WireFormat.json.encode(try Self.read(Self.text).document), as: UTF8.self)
        #expect(!text.contains("PASSWORD") && !text.contains("SECRET") && !text.contains("user"))
        #expect(text.contains(#""endpoint":"https://hidden@kinesis.example.com/x@y""#))
        #expect(text.contains(#""proxy":"http://hidden@proxy.example.com:3128""#))
        #expect(text.contains(#""external_id":"hidden""#))
    }
}
