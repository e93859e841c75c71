import CLinux
import Glibc

/// Why a socket cannot be had, and what to do.
public enum SocketFault: Error, Equatable, CustomStringConvertible {
    /// Somebody else has the address or the path; with a process's number where it is known.
    case inUse(process: Int32?)
    case notASocket
    case unknownGroup(String)
    case system(SystemError)

    /// Whether another user might.
    public var isPermission: Bool {
        if case .system(let error) = self { error.code == EACCES || error.code == EPERM } else { false }
    }

    init(binding error: SystemError) { self = error.code == EADDRINUSE ? .inUse(process: nil) : .system(error) }

    public var description: String {
        switch self {
        case .inUse(let process):
            "another process\(process.map { " (\($0))" } ?? "") listens there: stop it, or choose another address"
        case .notASocket: "there is a file that is no socket: move it away, or choose another path"
        case .unknownGroup(let name): "there is no group \(name): create it, or choose another in `group`"
        case .system(let error):
            switch error.code {
            case EACCES where error.call == "bind" && error.path == nil:
                "ports below 1024 need CAP_NET_BIND_SERVICE, or a socket that systemd passes"
            case EADDRNOTAVAIL: "this machine has no such address: see `ip address`"
            case EAFNOSUPPORT: "this machine has no IPv6: choose an IPv4 address"
            case EPERM where error.call == "chown":
                "\(error): only root, or a member of the group, may give a socket's file to `group`"
            case ENOENT: "\(error): create the folder"
            default: "\(error)"
            }
        }
    }
}

/// A socket that takes connections.
///
/// Several threads may hold it, one after the other: what waits to be accepted is not lost in between. It closes, and a
/// Unix socket's file is removed, when nobody holds it.
public final class ListeningSocket: Sendable {
    private enum Base: ~Copyable {
        case internet(Descriptor)
        case file(UnixSocketFile)
        /// Somebody else's, who keeps it open.
        case passed
    }

    private let base: Base
    public let number: Int32

    /// Connections that may wait to be accepted; the kernel may allow fewer (net.core.somaxconn).
    private static let backlog: Int32 = 4096

    /// Listens on an address; an IPv6 one takes no IPv4.
    public init(_ address: InternetAddress) throws(SocketFault) {
        do throws(SystemError) {
            let descriptor = Descriptor(try check("socket", nil, clinux_socket(address.isIPv6 ? 6 : 4, 0)))
            let (number, isIPv6) = (descriptor.number, address.isIPv6 ? Int32(1) : 0)
            _ = try check("bind", nil, unsafe clinux_bind_ip(number, address.host, address.port, isIPv6, 0))
            _ = try check("listen", nil, clinux_listen(number, Self.backlog))
            self.number = number
            base = .internet(descriptor)
        } catch { throw SocketFault(binding: error) }
    }

    /// Listens on a Unix socket with a file of its own.
    public init(_ file: UnixSocketFile) throws(SocketFault) {
        do { _ = try check("listen", file.path, clinux_listen(file.number, Self.backlog)) } catch {
            throw .system(error)
        }
        number = file.number
        base = .file(file)
    }

    /// Takes over a socket that listens already, and leaves it open at the end.
    public init(passed socket: PassedSockets.Socket) {
        number = socket.number
        base = .passed
        if clinux_is_listening(number) == 0 { _ = clinux_listen(number, Self.backlog) }
    }

    /// Gives its file another mode and group, if it has one.
    public func own(mode: UInt32, group: String) throws(SocketFault) {
        switch base {
        case .file(let file): try file.own(mode: mode, group: group)
        case .internet: break
        case .passed: break
        }
    }

    /// Whether it was opened by systemd, which keeps it.
    public var isPassed: Bool {
        switch base {
        case .passed: true
        case .internet: false
        case .file: false
        }
    }

    /// Accepts nothing more: who connects from now on is told so.
    public func refuse() { shutdown(number, Int32(SHUT_RD)) }

    /// Where it is bound: the port is the kernel's where none was asked for.
    public var address: InternetAddress? {
        var bound = clinux_address()
        guard unsafe clinux_bound(number, &bound) == 0 else { return nil }
        return InternetAddress(host: bound.name, port: bound.port)
    }

    /// The next connection that waits; nil when there is none.
    public func accept() throws(SystemError) -> StreamSocket? {
        while true {
            var peer = clinux_address()
            let result = unsafe clinux_accept(number, &peer)
            if result >= 0 { return StreamSocket(Descriptor(result), Peer(peer)) }
            switch -result {
            case EAGAIN: return nil
            // It was over before it was accepted: accept(2) says that these are the connection's.
            case EINTR, ECONNABORTED, EPROTO, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, ENETUNREACH,
                EPERM:
                continue
            default: throw SystemError(call: "accept", code: -result)
            }
        }
    }
}

extension Machine {
    /// How many more descriptors this process may open, by the number the next one would have.
    public static var freeDescriptors: Int {
        let lowest = clinux_lowest_descriptor()
        return lowest < 0 ? 0 : max(0, descriptorLimit - Int(lowest))
    }
}
