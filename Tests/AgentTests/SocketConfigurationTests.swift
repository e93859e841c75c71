import Agent
import Platform
import Testing

@Suite struct SocketConfigurationTests {
    private static func read(_ inputs: String) throws -> [Configuration.Input] {
        let text = "\(inputs)\n[outputs.o]\ntype = \"kinesis\"\nstream = \"s\"\nregion = \"eu-west-1\"\n"
        return try Configuration(text: Array(text.utf8), file: "p.toml") { _ in nil }.inputs
    }

    private static func faults(_ inputs: String) -> [String] {
        do {
            _ = try read(inputs)
            return []
        } catch let faults as Faults { return faults.faults.map(\.description) } catch { return ["\(error)"] }
    }

    private static func address(_ text: String) throws -> InternetAddress { try #require(InternetAddress(text)) }

    @Test func `a type and an address are enough for the defaults of the design`() throws {
        for type in ["syslog", "socket"] {
            let input = try #require(
                try Self.read("[inputs.s]\ntype = \"\(type)\"\nlisten = [\"udp://0.0.0.0:514\"]").first
            )
            let socket = try #require(input.socket)
            let address = try Self.address("0.0.0.0:514")
            #expect(socket.rules.rawValue == type && socket.listen == [.udp(address)])
            #expect(socket.framing == .auto && socket.format == .raw)
            #expect(socket.receiveBuffer == 8 << 20 && socket.readers == 1 && socket.gather == .milliseconds(1))
            #expect(socket.unixgramFull == .milliseconds(100))
            #expect(socket.maxConnections == 10_000 && socket.idleTimeout == .seconds(600))
            #expect(socket.handshakeTimeout == .seconds(10))
            #expect(socket.tlsCertificate == "" && socket.tlsKey == "" && socket.tlsClientCA == "")
            #expect(socket.mode == 0o660 && socket.group == "")
            #expect(input.onOversize == .split && input.maxRecord > 1_000_000)
            #expect(input.place.line == 3 && input.place.column == 10)
        }
    }

    @Test func `every key of a socket is read`() throws {
        let input = try #require(
            try Self.read(
                """
                [inputs.s]
                type = "syslog"
                listen = ["udp://[::]:514", "tcp://10.0.0.1:601", "tls://[::1]:6514", "unix:///run/a", "unixgram:///dev/log"]
                framing = "octet_counting"
                format = "json"
                receive_buffer = "1MiB"
                readers = 4
                gather = "2ms"
                unixgram_full = "wait"
                max_connections = 7
                idle_timeout = "1m"
                handshake_timeout = "1s"
                tls_cert = "/c"
                tls_key = "/k"
                tls_client_ca = "/a"
                mode = "622"
                group = "adm"
                max_record = "8KiB"
                on_oversize = "truncate"
                """
            ).first
        )
        var expected = Configuration.SocketSettings()
        expected.listen = [
            .udp(try Self.address("[::]:514")), .tcp(try Self.address("10.0.0.1:601")),
            .tls(try Self.address("[::1]:6514")), .unix("/run/a"), .unixgram("/dev/log"),
        ]
        (expected.framing, expected.format, expected.receiveBuffer) = (.octetCounting, .json, 1 << 20)
        (expected.readers, expected.gather, expected.unixgramFull) = (4, .milliseconds(2), nil)
        (expected.maxConnections, expected.idleTimeout) = (7, .seconds(60))
        expected.handshakeTimeout = .seconds(1)
        (expected.tlsCertificate, expected.tlsKey, expected.tlsClientCA) = ("/c", "/k", "/a")
        (expected.mode, expected.group) = (0o622, "adm")
        #expect(input.socket == expected)
        #expect(input.maxRecord == 8 << 10 && input.onOversize == .truncate)
        #expect(
            expected.listen.map(\.description) == [
                "udp://[::]:514", "tcp://10.0.0.1:601", "tls://[::1]:6514", "unix:///run/a", "unixgram:///dev/log",
            ]
        )
    }

    @Test(arguments: [
        "udp://localhost:514", "udp://*:514", "udp://1.2.3:514", "udp://1.2.3.4", "udp://1.2.3.4:65536",
        "udp://::1:514",
        "udp://[1.2.3.4]:514", "udp:1.2.3.4:514", "http://1.2.3.4:514", "unix://run/a", "unixgram:///a/", "unix://",
        "unixgram:///" + String(repeating: "x", count: 107), "",
    ])
    func `what is no address is refused where it stands, with examples`(_ address: String) {
        let faults = Self.faults(
            "[inputs.s]\ntype = \"syslog\"\nlisten = [\"udp://0.0.0.0:1\",\n  \"\(address)\"]"
        )
        #expect(faults.count == 1)
        #expect(faults.first?.hasPrefix("p.toml:4:3: inputs.s.listen: \"\(address)\" must be like") ?? false)
    }

    @Test(arguments: [
        ("framing = \"lines\"", "framing"), ("format = \"xml\"", "format"),
        ("receive_buffer = \"1KiB\"", "receive_buffer"),
        ("readers = 0", "readers"), ("gather = \"1s\"", "gather"), ("unixgram_full = \"never\"", "unixgram_full"),
        ("unixgram_full = \"2m\"", "unixgram_full"), ("max_connections = 0", "max_connections"),
        ("idle_timeout = \"0s\"", "idle_timeout"), ("handshake_timeout = \"1ms\"", "handshake_timeout"),
        ("tls_cert = \"/c\"", "tls_cert"), ("tls_client_ca = \"/c\"", "tls_client_ca"), ("mode = \"0888\"", "mode"),
        ("mode = \"06600\"", "mode"), ("group = \"adm\"", "group"), ("max_record = \"0B\"", "max_record"),
        ("on_oversize = \"drop\"", "on_oversize"), ("paths = [\"/a\"]", "paths"),
        ("start_at = \"end\"", "start_at"), ("gathr = \"1us\"", "gathr"),
    ])
    func `a fault of a socket's key stands where the key is`(_ line: String, _ key: String) {
        let address = key == "mode" ? "unix:///run/a" : "udp://0.0.0.0:1"
        let faults = Self.faults("[inputs.s]\ntype = \"syslog\"\nlisten = [\"\(address)\"]\n\(line)")
        #expect(faults.count == 1)
        #expect(faults.first?.contains("p.toml:4:") ?? false, "\(faults)")
        #expect(faults.first?.contains(" inputs.s.\(key): ") ?? false, "\(faults)")
    }

    @Test func `what does not fit together is refused`() {
        func one(_ text: String) -> String {
            let faults = Self.faults(text)
            return faults.count == 1 ? faults[0] : "\(faults)"
        }
        let syslog = "[inputs.s]\ntype = \"syslog\"\n"
        #expect(one(syslog).contains("needs an address at least: listen = [\"udp://0.0.0.0:514\"]"))
        #expect(one(syslog + "listen = []").contains("needs an address at least"))
        #expect(one(syslog + "listen = [\"udp://1.1.1.1:1\", \"udp://1.1.1.1:1\"]").contains("stands there before"))
        #expect(
            one(syslog + "listen = [\"tcp://1.1.1.1:1\"]\nreaders = 2").contains("readers: share a UDP address")
        )
        let both = Self.faults(syslog + "listen = [\"tls://1.1.1.1:1\"]")
        #expect(both.count == 2 && both[0].contains("tls_cert: is needed") && both[1].contains("tls_key: is needed"))
        let plain = "[inputs.p]\ntype = \"socket\"\nlisten = [\"udp://1.1.1.1:1\"]\n"
        #expect(one(plain + "format = \"json\"").contains("format: is of syslog's messages"))
        #expect(
            one(plain + syslog + "listen = [\"udp://1.1.1.1:1\"]")
                .contains("p.toml:6:10: inputs.s.listen: inputs.p has udp://1.1.1.1:1 already")
        )
        #expect(
            one("[inputs.s]\ntype = \"sylog\"\nlisten = [\"udp://1.1.1.1:1\"]").contains("type: \"sylog\" is none of")
        )
    }
}
