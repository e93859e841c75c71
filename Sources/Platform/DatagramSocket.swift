internal import CLinux

/// A socket that receives datagrams; it closes when nobody holds it.
public final class DatagramSocket: Sendable {
    public let number: Int32
    public let isUnix: Bool
    /// What closes it: nothing, if somebody else keeps it open.
    private let descriptor: Descriptor?
    private let file: UnixSocketFile?
    /// Whether it was passed to this process, and stays open for the next.
    public var isPassed: Bool { file == nil && !isOwn }
    private let isOwn: Bool

    /// Binds a UDP socket; an IPv6 address takes no IPv4.
    ///
    /// - Parameters:
    ///   - sharesPort: whether others may have the same address: each sender then meets one of them.
    ///   - receiveBuffer: bytes that the kernel shall keep; it may give less.
    public init(_ address: InternetAddress, sharesPort: Bool, receiveBuffer: Int) throws(SocketFault) {
        do throws(SystemError) {
            number = try unsafe check(
                "bind",
                nil,
                clinux_udp(
                    address.host,
                    address.port,
                    address.isIPv6 ? 1 : 0,
                    sharesPort ? 1 : 0,
                    Int32(clamping: receiveBuffer)
                )
            )
        } catch { throw SocketFault(binding: error) }
        descriptor = Descriptor(number)
        (isUnix, isOwn, file) = (false, true, nil)
    }

    /// Receives what is sent to a Unix socket.
    public init(_ file: UnixSocketFile) {
        number = file.number
        descriptor = nil
        (isUnix, isOwn, self.file) = (true, false, file)
    }

    /// A socket that was passed to this process.
    public init(passed number: Int32, isUnix: Bool) {
        self.number = number
        descriptor = nil
        (self.isUnix, isOwn, file) = (isUnix, false, nil)
    }

    /// The port, which is the kernel's choice where 0 was asked for.
    public var port: UInt16 { UInt16(clamping: clinux_udp_port(number)) }

    /// Bytes that the kernel keeps: as many as were asked for, or fewer.
    public var receiveBuffer: Int { Int(clinux_receive_buffer(number)) }

    /// Has the kernel say who sent each datagram, also through a Unix socket, and if wanted when it came.
    public func tellOrigin(times: Bool) throws(SystemError) {
        _ = try check("setsockopt", nil, clinux_tell_origin(number, isUnix ? 1 : 0, times ? 1 : 0))
    }

    /// Lets nothing more into the queue, so that what is in it can be read to its end.
    ///
    /// What is sent from now on is refused; UDP's is counted with `Queue.drops`. One that was passed goes on for whoever
    /// has it next.
    public func stopReceiving() {
        guard !isPassed else { return }
        _ = clinux_stop_receiving(number, isUnix ? 1 : 0)
    }

    public struct Queue: Sendable {
        /// Bytes that wait, and that may wait, with what the kernel needs beside them.
        public var waiting: Int
        public var limit: Int
        /// Datagrams that the kernel had no room for, ever; wraps around.
        public var drops: UInt32
    }

    /// The socket's queue in the kernel; nil where it does not tell.
    public var queue: Queue? {
        var queue = clinux_queue()
        guard unsafe clinux_queue(number, &queue) == 0 else { return nil }
        return Queue(waiting: Int(queue.waiting), limit: Int(queue.limit), drops: queue.drops)
    }
}
