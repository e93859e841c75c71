public import Platform

extension Configuration {
    /// `[inputs.NAME]` with `type = "syslog"` or `type = "socket"`: what only those have.
    public struct SocketSettings: Equatable, Sendable {
        public var rules = Rules.syslog
        public var listen: [Listen] = []
        public var framing = Framing.auto
        public var format = Format.raw
        /// Bytes that the kernel keeps for us, for each socket.
        public var receiveBuffer = 8 << 20
        /// Sockets, and threads, for each UDP address.
        public var readers = 1
        /// How long to wait at most before datagrams are read, so that one call brings many.
        public var gather: Duration = .milliseconds(1)
        /// How long a full agent holds back the senders of Unix datagrams before it drops; nil: it never drops.
        public var unixgramFull: Duration? = .milliseconds(100)
        public var maxConnections = 10_000
        public var idleTimeout: Duration = .seconds(600)
        public var handshakeTimeout: Duration = .seconds(10)
        /// Files in PEM; empty: none.
        public var tlsCertificate = ""
        public var tlsKey = ""
        /// Whose certificates clients must show; empty: they need none.
        public var tlsClientCA = ""
        /// Of the files of Unix sockets; an empty group: the agent's.
        public var mode: UInt32 = 0o660
        public var group = ""

        public init() {}

        /// Whether a message is syslog, or just bytes.
        public enum Rules: String, Sendable { case syslog, socket }

        /// How a stream is cut into records; a datagram is one.
        public enum Framing: String, CaseIterable, Sendable {
            case auto, newline, nul
            case octetCounting = "octet_counting"
            case lengthPrefix = "length_prefix"
        }

        public enum Format: String, CaseIterable, Sendable {
            /// The message as it came.
            case raw
            /// The parsed message as one JSON object.
            case json
        }
    }

    /// An address of `listen`.
    public enum Listen: Hashable, Sendable, CustomStringConvertible {
        case udp(InternetAddress)
        case tcp(InternetAddress)
        case tls(InternetAddress)
        /// A stream, by its path.
        case unix(String)
        /// Datagrams, by their path.
        case unixgram(String)

        /// `udp://0.0.0.0:514`, `tls://[::]:6514`, `unix:///run/penstock.sock`; nil if it is none.
        public init?(_ text: String) {
            guard let colon = text.firstRange(of: "://") else { return nil }
            let (scheme, rest) = (text[..<colon.lowerBound], text[colon.upperBound...])
            switch scheme {
            case "udp", "tcp", "tls":
                guard let address = InternetAddress(rest) else { return nil }
                self = scheme == "udp" ? .udp(address) : scheme == "tcp" ? .tcp(address) : .tls(address)
            case "unix", "unixgram":
                // What a sockaddr_un holds, with the zero behind it.
                guard rest.hasPrefix("/"), rest.utf8.count <= 107, !rest.hasSuffix("/"), !rest.utf8.contains(0) else {
                    return nil
                }
                self = scheme == "unix" ? .unix(String(rest)) : .unixgram(String(rest))
            default: return nil
            }
        }

        public var description: String {
            switch self {
            case .udp(let address): "udp://\(address)"
            case .tcp(let address): "tcp://\(address)"
            case .tls(let address): "tls://\(address)"
            case .unix(let path): "unix://\(path)"
            case .unixgram(let path): "unixgram://\(path)"
            }
        }

        /// Whether what arrives is a record by itself.
        public var isDatagram: Bool {
            switch self {
            case .udp, .unixgram: true
            case .tcp, .tls, .unix: false
            }
        }

        public var isUDP: Bool { if case .udp = self { true } else { false } }

        /// Whether it is the same path, or a port of UDP at whatever address: one may be all of them.
        func sharesPlace(with other: Listen) -> Bool {
            if case .udp(let mine) = self, case .udp(let theirs) = other { return mine.port == theirs.port }
            return self == other
        }

        /// Whether two sockets cannot have both: TCP and TLS share their ports, Unix sockets their paths.
        func excludes(_ other: Listen) -> Bool {
            switch (self, other) {
            case (.udp(let mine), .udp(let theirs)): mine == theirs && mine.port != 0
            case (.tcp(let mine), .tcp(let theirs)), (.tls(let mine), .tls(let theirs)),
                (.tcp(let mine), .tls(let theirs)), (.tls(let mine), .tcp(let theirs)):
                mine == theirs && mine.port != 0
            case (.unix(let mine), .unix(let theirs)), (.unixgram(let mine), .unixgram(let theirs)),
                (.unix(let mine), .unixgram(let theirs)), (.unixgram(let mine), .unix(let theirs)):
                mine == theirs
            case (.udp, _), (.tcp, _), (.tls, _), (.unix, _), (.unixgram, _): false
            }
        }
    }
}
