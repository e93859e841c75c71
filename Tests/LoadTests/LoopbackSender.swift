import Glibc

/// Sends to a port on loopback, or to a Unix socket: datagrams, or a stream.
final class LoopbackSender: Sendable {
    private let descriptor: Int32
    let isConnected: Bool

    init(port: UInt16, isStream: Bool = false) {
        descriptor = socket(AF_INET, Int32((isStream ? SOCK_STREAM : SOCK_DGRAM).rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        isConnected = Self.connect(descriptor, &address)
    }

    init(path: String, isStream: Bool = false) {
        descriptor = socket(AF_UNIX, Int32((isStream ? SOCK_STREAM : SOCK_DGRAM).rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
        isConnected = Self.connect(descriptor, &address)
    }

    deinit { _ = close(descriptor) }

    /// Nothing waits for ever.
    private static func limitWaits(_ number: Int32) {
        var limit = timeval(tv_sec: 20, tv_usec: 0)
        unsafe _ = setsockopt(number, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    private static func connect<Address>(_ number: Int32, _ address: inout Address) -> Bool {
        limitWaits(number)
        return unsafe withUnsafePointer(to: &address) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe Glibc.connect(number, $0, socklen_t(MemoryLayout<Address>.size)) == 0
            }
        }
    }

    /// False when it was not taken.
    func send(_ bytes: [UInt8]) -> Bool {
        unsafe Glibc.send(descriptor, bytes, bytes.count, Int32(truncatingIfNeeded: MSG_NOSIGNAL)) == bytes.count
    }
}
