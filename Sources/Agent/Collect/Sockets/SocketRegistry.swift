package import Platform
import Synchronization

// Concurrency: the supervisor and whoever starts the agent open and close; each call holds the lock.

/// The sockets that inputs listen on: opened, or passed by systemd.
///
/// They outlive the collectors that read them, so that another configuration can take an address over from the one before
/// while connections wait in it.
package final class SocketRegistry: Sendable {
    private let passed: [PassedSockets.Socket]
    private let open = Mutex<[Configuration.Listen: ListeningSocket]>([:])

    /// Why an input cannot listen, and what to do.
    package struct Fault: Error, CustomStringConvertible {
        package var input: String
        package var place: String
        package var reason: String
        package var isPermission = false

        package var description: String { "input \(input): \(place): \(reason)" }
    }

    package init(passed: [PassedSockets.Socket] = PassedSockets.all()) { self.passed = passed }

    /// What an input of streams listens on; sockets that are open already stay.
    package func streams(of input: Configuration.Input) throws(Fault) -> StreamSockets {
        let settings = input.socket ?? .init()
        let given = matching(input)
        var sockets = StreamSockets([])
        for listen in settings.listen where !listen.isDatagram {
            let socket: ListeningSocket
            do throws(SocketFault) {
                socket =
                    if let passed = given[listen] { ListeningSocket(passed: passed) } else {
                        try opened(listen, settings)
                    }
            } catch {
                throw Fault(input: input.name, place: "\(listen)", reason: "\(error)", isPermission: error.isPermission)
            }
            // One that takes IPv4 and IPv6 may stand for both.
            if !sockets.listening.contains(where: { $0.socket.number == socket.number }) {
                sockets.listening.append((listen, socket))
            }
            if case .tls = listen, sockets.certificates == nil {
                do { sockets.certificates = try StreamSockets.Certificates(settings) } catch {
                    throw Fault(input: input.name, place: error.path, reason: error.reason)
                }
            }
        }
        return sockets
    }

    private func opened(
        _ listen: Configuration.Listen,
        _ settings: Configuration.SocketSettings
    ) throws(SocketFault) -> ListeningSocket {
        if let place = listen.place, let socket = open.withLock({ $0[place] }) {
            try socket.own(mode: settings.mode, group: settings.group)
            return socket
        }
        let socket: ListeningSocket
        switch listen {
        case .tcp(let address), .tls(let address): socket = try ListeningSocket(address)
        case .unix(let path):
            let file = try UnixSocketFile(path, isDatagram: false, mode: settings.mode, group: settings.group)
            socket = try ListeningSocket(file)
        case .udp, .unixgram: preconditionFailure("datagrams are no streams")
        }
        if let place = listen.place { open.withLock { $0[place] = socket } }
        return socket
    }

    /// Closes what none of those inputs listens on.
    package func close(allBut inputs: [Configuration.Input]) {
        let kept = Set(inputs.flatMap { $0.socket?.listen ?? [] }.compactMap(\.place))
        let closed = open.withLock { open in
            let closed = open.filter { !kept.contains($0.key) }
            for listen in closed.keys { open[listen] = nil }
            return closed
        }
        // The last reference goes outside of the lock: files are removed with it.
        _ = consume closed
    }

    // MARK: passed sockets

    /// Those of an input's addresses for which a socket was passed: bound to the same address, or named like the input.
    package func matching(_ input: Configuration.Input) -> [Configuration.Listen: PassedSockets.Socket] {
        var matches: [Configuration.Listen: PassedSockets.Socket] = [:]
        let listen = input.socket?.listen ?? []
        for address in listen { matches[address] = passed.first { address.isPlace(of: $0, exactly: true) } }
        for address in listen where matches[address] == nil {
            matches[address] = passed.first { address.isPlace(of: $0, exactly: false) }
        }
        var rest = passed.filter { socket in socket.name == input.name && !matches.values.contains(socket) }
        for address in listen where matches[address] == nil {
            guard let index = rest.firstIndex(where: { address.isKind(of: $0) }) else { continue }
            matches[address] = rest.remove(at: index)
        }
        return matches
    }

    /// What all inputs of streams among those listen on, by their names; nothing stays open that was not before if one
    /// cannot.
    package func streams(
        of inputs: [Configuration.Input],
        beside kept: [Configuration.Input] = []
    ) throws(Fault) -> [String: StreamSockets] {
        var streams: [String: StreamSockets] = [:]
        do throws(Fault) {
            for input in inputs where input.hasStreams { streams[input.name] = try self.streams(of: input) }
        } catch {
            streams = [:]
            close(allBut: kept)
            throw error
        }
        return streams
    }

    /// Sockets that were passed and are none of those inputs'.
    package func unclaimed(by inputs: [Configuration.Input]) -> [PassedSockets.Socket] {
        let claimed = inputs.flatMap { Array(matching($0).values) }
        return passed.filter { !claimed.contains($0) }
    }
}

extension Configuration.Input {
    var hasStreams: Bool { socket?.listen.contains { !$0.isDatagram } ?? false }
}

extension Configuration {
    /// Files of TLS that cannot be used, each as a fault.
    public var unusableFiles: [Fault] {
        inputs.compactMap { input -> Fault? in
            guard let settings = input.socket, !settings.tlsCertificate.isEmpty else { return nil }
            do throws(TLSIdentity.Fault) { _ = try StreamSockets.Certificates(settings) } catch {
                let key =
                    switch error.use {
                    case .certificate: "tls_cert"
                    case .key: "tls_key"
                    case .clientCA: "tls_client_ca"
                    }
                return Fault(
                    file: input.file,
                    place: input.place,
                    key: "inputs.\(input.name).\(key)",
                    message: "\(error)"
                )
            }
            return nil
        }
    }
}

extension Configuration.Listen {
    /// What only one socket can have: the same for TCP and TLS, which share their ports; nil where the kernel chooses one.
    fileprivate var place: Self? {
        switch self {
        case .tcp(let address), .tls(let address): address.port == 0 ? nil : .tcp(address)
        case .udp, .unix, .unixgram: self
        }
    }

    /// Whether a socket speaks what is meant.
    fileprivate func isKind(of socket: PassedSockets.Socket) -> Bool {
        switch (self, socket.place) {
        case (.udp, .internet), (.unixgram, .path): socket.isDatagram
        case (.tcp, .internet), (.tls, .internet), (.unix, .path): !socket.isDatagram
        case (.udp, .path), (.tcp, .path), (.tls, .path), (.unix, .internet), (.unixgram, .internet): false
        }
    }

    /// Whether a socket is bound here; unless `exactly`, also one of every IPv6 address that takes IPv4 as well.
    fileprivate func isPlace(of socket: PassedSockets.Socket, exactly: Bool) -> Bool {
        guard isKind(of: socket) else { return false }
        switch (self, socket.place) {
        case (.udp(let mine), .internet(let theirs)), (.tcp(let mine), .internet(let theirs)),
            (.tls(let mine), .internet(let theirs)):
            return mine == theirs
                || (!exactly && mine.port == theirs.port && theirs.host == "::" && mine.host == "0.0.0.0")
        case (.unix(let mine), .path(let theirs)), (.unixgram(let mine), .path(let theirs)): return mine == theirs
        case (_, .internet), (_, .path): return false
        }
    }
}
