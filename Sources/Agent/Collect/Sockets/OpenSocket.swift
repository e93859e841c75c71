package import Platform
import Synchronization

/// A socket of datagrams, and the address that asked for it.
package struct OpenSocket: Sendable {
    package let listen: Configuration.Listen
    package let socket: DatagramSocket

    /// - Parameter passed: the socket that systemd has opened for it.
    package init(
        _ listen: Configuration.Listen,
        _ settings: Configuration.SocketSettings,
        passed: PassedSockets.Socket?
    ) throws(SocketFault) {
        self.listen = listen
        switch (listen, passed) {
        case (.udp, let passed?): socket = DatagramSocket(passed: passed.number, isUnix: false)
        case (.unixgram, let passed?): socket = DatagramSocket(passed: passed.number, isUnix: true)
        case (.udp(let address), nil):
            socket = try DatagramSocket(
                address,
                sharesPort: settings.readers > 1,
                receiveBuffer: settings.receiveBuffer
            )
        case (.unixgram(let path), nil):
            socket = DatagramSocket(
                try UnixSocketFile(path, isDatagram: true, mode: settings.mode, group: settings.group)
            )
        case (.tcp, _), (.tls, _), (.unix, _): preconditionFailure("\(listen) is another collector's")
        }
    }

    /// The address, with the port that the kernel has chosen where it was asked to.
    var name: String {
        guard case .udp(let address) = listen, address.port == 0 else { return listen.description }
        return "udp://" + (address.isIPv6 ? "[\(address.host)]" : address.host) + ":\(socket.port)"
    }

    /// The addresses that a feed's collector reads.
    static func addresses(of feed: Feed) -> [Configuration.Listen] {
        let listen = feed.input.socket?.listen ?? []
        switch feed.part {
        case .files, .streams: return []
        case .udp: return listen.filter(\.isUDP)
        case .unixgram: return listen.filter { if case .unixgram = $0 { true } else { false } }
        }
    }

    /// Opens what a feed's collector reads.
    ///
    /// - Parameter held: what another has now, and will give up: where that may be in the way the collector opens it itself.
    package static func all(
        of feed: Feed,
        _ passed: [Configuration.Listen: PassedSockets.Socket],
        but held: [Configuration.Listen] = []
    ) throws(SocketRegistry.Fault) -> [OpenSocket] {
        guard let settings = feed.input.socket else { return [] }
        var sockets: [OpenSocket] = []
        for address in addresses(of: feed) where !held.contains(where: { $0.sharesPlace(with: address) }) {
            do throws(SocketFault) {
                sockets.append(try OpenSocket(address, settings, passed: passed[address]))
            } catch {
                throw SocketRegistry.Fault(
                    input: feed.input.name,
                    place: "\(address)",
                    reason: "\(error)",
                    isPermission: error.isPermission
                )
            }
        }
        return sockets
    }
}

/// Sockets on their way to their collectors: nobody else may hold them, so that they close when those end.
final class SocketHandover: Sendable {
    private let sockets: Mutex<[[OpenSocket]]>

    init(_ sockets: [[OpenSocket]]) { self.sockets = Mutex(sockets) }

    func take() -> [[OpenSocket]] {
        sockets.withLock { sockets in
            defer { sockets = [] }
            return sockets
        }
    }
}
