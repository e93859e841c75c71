internal import Glibc

/// An IPv4 or IPv6 address and a port.
public struct InternetAddress: Equatable, Hashable, Sendable, CustomStringConvertible {
    /// As people write it, without brackets.
    public let host: String
    public let port: UInt16
    public let isIPv6: Bool

    /// - Parameter host: digits, not a name: nothing is looked up.
    public init?(host: String, port: UInt16) {
        var bytes = InlineArray<16, UInt8>(repeating: 0)
        let isIPv6 = host.contains(":")
        guard unsafe inet_pton(isIPv6 ? AF_INET6 : AF_INET, host, &bytes) == 1 else { return nil }
        (self.host, self.port, self.isIPv6) = (host, port, isIPv6)
    }

    /// `10.0.0.1:514` or `[::1]:514`.
    public init?(_ text: some StringProtocol) {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
            return nil
        }
        let host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]"), host.contains(":") {
            self.init(host: String(host.dropFirst().dropLast()), port: port)
        } else {
            guard !host.contains(":") else { return nil }
            self.init(host: String(host), port: port)
        }
    }

    /// Whether only this machine reaches it.
    public var isLoopback: Bool { isIPv6 ? host == "::1" : host.hasPrefix("127.") }

    public var description: String { isIPv6 ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
