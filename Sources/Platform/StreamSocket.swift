import CLinux
import Glibc

/// Who is at the other end of a connection.
public enum Peer: Equatable, Sendable, CustomStringConvertible {
    case address(InternetAddress)
    /// Of this machine; a process in another namespace has the number 0.
    case process(Int32, user: UInt32)

    init(_ address: clinux_address) {
        self =
            switch InternetAddress(host: address.name, port: address.port) {
            case let address?: .address(address)
            case nil: .process(address.process, user: address.user)
            }
    }

    public var description: String {
        switch self {
        case .address(let address): "\(address)"
        case .process(let number, let user): "process \(number) of user \(user)"
        }
    }
}

extension clinux_address {
    var name: String {
        unsafe withUnsafeBytes(of: text) { unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}

/// A connection that was accepted.
///
/// It never blocks.
public struct StreamSocket: ~Copyable, Sendable {
    let descriptor: Descriptor
    public let peer: Peer

    init(_ descriptor: consuming Descriptor, _ peer: Peer) {
        self.descriptor = descriptor
        self.peer = peer
    }

    public var number: Int32 { descriptor.number }

    /// What came of reading.
    public enum Received: Equatable, Sendable {
        case bytes(Int)
        /// Nothing now.
        case nothing
        /// The peer has ended the connection, or it broke, which is said.
        case end(SystemError?)
    }

    /// Tells the peer that no more is wanted; what it has sent can still be read.
    ///
    /// One on this machine can send nothing any more. One elsewhere hears of it, and stops if it listens.
    public func sayEnd() {
        if case .process = peer {
            _ = shutdown(descriptor.number, Int32(SHUT_RDWR))
        } else {
            _ = shutdown(descriptor.number, Int32(SHUT_WR))
        }
    }

    public func read(into room: UnsafeMutableRawBufferPointer) -> Received {
        while true {
            let count = unsafe recv(descriptor.number, room.baseAddress, room.count, 0)
            if count > 0 { return .bytes(count) }
            if count == 0 { return .end(nil) }
            switch errno {
            case EINTR: continue
            case EAGAIN: return .nothing
            case let code: return .end(SystemError(call: "recv", code: code))
            }
        }
    }
}
