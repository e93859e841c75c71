internal import Platform

extension Configuration.SocketSettings {
    /// Reads the keys of an input with `type = "syslog"` or `"socket"`.
    init(_ rules: Rules, from table: inout TableReader) {
        self.init()
        self.rules = rules
        readListen(&table)
        table.choice("framing", into: &framing)
        table.choice("format", into: &format)
        if rules == .socket, format == .json {
            table.fault("format", "is of syslog's messages: set type = \"syslog\", or leave format = \"raw\"")
        }
        table.size("receive_buffer", in: 4 << 10...1 << 30, into: &receiveBuffer)
        table.integer("readers", in: 1...64, into: &readers)
        if readers > 1, !hasListen(where: { if case .udp = $0 { true } else { false } }) {
            table.fault(
                "readers",
                "share a UDP address: add one to listen, like \"udp://0.0.0.0:514\", or leave it out"
            )
        }
        table.duration("gather", in: .zero ... .milliseconds(100), into: &gather)
        readUnixgramFull(&table)
        table.integer("max_connections", in: 1...1_000_000, into: &maxConnections)
        table.duration("idle_timeout", in: .seconds(1) ... .seconds(7 * 86_400), into: &idleTimeout)
        table.duration("handshake_timeout", in: .milliseconds(100) ... .seconds(300), into: &handshakeTimeout)
        readTLS(&table)
        var text = "0660"
        table.text("mode", into: &text)
        if let number = UInt32(text, radix: 8), number <= 0o777, text.utf8.count <= 4 {
            mode = number
        } else {
            table.fault("mode", "must be the file's permissions in octal digits, like \"0660\"")
        }
        table.text("group", into: &group)
        for key in ["mode", "group"] where table.has(key) && !hasListen(where: \.isUnix) && !listen.isEmpty {
            table.fault(
                key,
                "is of a Unix socket's file: add one to listen, like \"unixgram:///run/penstock/log.sock\""
            )
        }
    }

    private func hasListen(where condition: (Configuration.Listen) -> Bool) -> Bool {
        listen.contains(where: condition)
    }

    private mutating func readListen(_ table: inout TableReader) {
        let example = "listen = [\"udp://0.0.0.0:514\"]"
        for (text, place) in table.placedTexts("listen") {
            guard let address = Configuration.Listen(text) else {
                table.fault(
                    at: place,
                    "\(table.path).listen",
                    "\"\(text)\" must be like \"udp://0.0.0.0:514\", \"tcp://[::1]:601\", \"tls://0.0.0.0:6514\" (an address in "
                        + "digits and a port; [::] is every IPv6 address, 0.0.0.0 every IPv4 one), "
                        + "\"unix:///run/penstock/syslog.sock\" or \"unixgram:///run/penstock/log.sock\" (107 bytes of path)"
                )
                continue
            }
            if listen.contains(where: address.excludes) {
                table.fault(at: place, "\(table.path).listen", "\"\(text)\" stands there before: once is enough")
                continue
            }
            listen.append(address)
        }
        if !table.has("listen") || table.isEmptyArray("listen") {
            table.fault("listen", "needs an address at least: \(example)")
        }
    }

    private mutating func readUnixgramFull(_ table: inout TableReader) {
        var text = "100ms"
        table.text("unixgram_full", into: &text)
        if text == "wait" {
            unixgramFull = nil
        } else if let period = Units.duration(text), (.zero ... .seconds(60)).contains(period) {
            unixgramFull = period
        } else {
            table.fault("unixgram_full", "must be a duration of 60s at most, like \"100ms\", or \"wait\" to never drop")
        }
    }

    private mutating func readTLS(_ table: inout TableReader) {
        table.text("tls_cert", into: &tlsCertificate)
        table.text("tls_key", into: &tlsKey)
        table.text("tls_client_ca", into: &tlsClientCA)
        let needsTLS = hasListen { if case .tls = $0 { true } else { false } }
        for (key, path) in [("tls_cert", tlsCertificate), ("tls_key", tlsKey), ("tls_client_ca", tlsClientCA)] {
            if path.isEmpty {
                guard needsTLS, key != "tls_client_ca" else { continue }
                table.fault(key, "is needed for tls:// in listen: name a PEM file, like \"/etc/penstock/\(key).pem\"")
            } else if !path.hasPrefix("/") {
                table.fault(key, "must be an absolute path")
            } else if !needsTLS {
                table.fault(
                    key,
                    "is for TLS alone: add an address to listen, like \"tls://0.0.0.0:6514\", or leave it out"
                )
            }
        }
    }
}

extension Configuration.Listen {
    var isUnix: Bool {
        switch self {
        case .unix, .unixgram: true
        case .udp, .tcp, .tls: false
        }
    }
}
