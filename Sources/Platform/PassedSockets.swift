import CLinux
import Glibc

/// The sockets that systemd, or whoever started this process, has opened for it (sd_listen_fds(3)).
///
/// They stay open as long as the process runs: what arrives while nobody reads waits in them.
public enum PassedSockets {
    public struct Socket: Equatable, Sendable {
        public var number: Int32
        /// `FileDescriptorName=` of its unit; `unknown` for none.
        public var name: String
        public var isDatagram: Bool
        public var place: Place

        public init(number: Int32, name: String, isDatagram: Bool, place: Place) {
            (self.number, self.name, self.isDatagram, self.place) = (number, name, isDatagram, place)
        }
    }

    /// Where a socket is bound.
    public enum Place: Equatable, Sendable, CustomStringConvertible {
        case internet(InternetAddress)
        case path(String)

        public var description: String {
            switch self {
            case .internet(let address): "\(address)"
            case .path(let path): path
            }
        }
    }

    /// Takes all of them; the second call would find the same.
    public static func all() -> [Socket] {
        // They are meant for this process, not for one that started it.
        guard Machine.environment("LISTEN_PID").flatMap({ Int32($0) }) == Machine.processNumber,
            let count = Machine.environment("LISTEN_FDS").flatMap({ Int32($0) }), (1...1024).contains(count)
        else { return [] }
        let names = Machine.environment("LISTEN_FDNAMES").map {
            $0.split(separator: ":", omittingEmptySubsequences: false)
        }
        return (0..<count).compactMap { index in
            // The first is always 3.
            let name = names.flatMap { $0.indices.contains(Int(index)) ? String($0[Int(index)]) : nil }
            return socket(3 + index, name ?? "unknown")
        }
    }

    private static func socket(_ number: Int32, _ name: String) -> Socket? {
        let isDatagram = clinux_is_datagram(number)
        var bound = clinux_address()
        guard isDatagram >= 0, clinux_adopt(number) == 0, unsafe clinux_bound(number, &bound) == 0 else { return nil }
        let place: Place
        if bound.family == 1 {
            place = .path(bound.name)
        } else {
            guard let address = InternetAddress(host: bound.name, port: bound.port) else { return nil }
            place = .internet(address)
        }
        return Socket(number: number, name: name, isDatagram: isDatagram == 1, place: place)
    }
}
