internal import CLinux
internal import Glibc

/// A UDP socket that sends to one address.
public final class DatagramSender: Sendable {
    private let descriptor: Descriptor

    public init(to address: InternetAddress) throws(SystemError) {
        descriptor = Descriptor(
            try unsafe check("connect", nil, clinux_udp_to(address.host, address.port, address.isIPv6 ? 1 : 0))
        )
    }

    /// Sends a datagram; false if this machine did not take it.
    public func send(_ bytes: Span<UInt8>) -> Bool {
        unsafe bytes.withUnsafeBytes {
            unsafe Glibc.send(descriptor.number, $0.baseAddress, $0.count, 0) == $0.count
        }
    }
}
