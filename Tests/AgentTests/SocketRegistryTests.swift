import Agent
import Platform
import Seeded
import Testing

@Suite struct SocketRegistryTests {
    private static func passed(_ number: Int32, _ place: String, name: String = "unknown", isDatagram: Bool = false)
        -> PassedSockets.Socket
    {
        let address = InternetAddress(place)
        return .init(
            number: number,
            name: name,
            isDatagram: isDatagram,
            place: address.map { .internet($0) } ?? .path(place)
        )
    }

    /// Which of the passed sockets an input named `app` takes, by the address it lists.
    private static func matches(_ listen: [String], _ passed: [PassedSockets.Socket]) -> [String: Int32] {
        var input = Configuration.Input(name: "app")
        input.socket = .init()
        input.socket?.listen = listen.compactMap { Configuration.Listen($0) }
        let found = SocketRegistry(passed: passed).matching(input)
        return .init(uniqueKeysWithValues: found.map { ("\($0.key)", $0.value.number) })
    }

    @Test func `a passed socket takes the place of the address it is bound to`() {
        let passed = [
            Self.passed(3, "0.0.0.0:514", isDatagram: true), Self.passed(4, "0.0.0.0:514"),
            Self.passed(5, "/run/log", isDatagram: true),
            Self.passed(6, "/run/stream"),
        ]
        #expect(
            Self.matches(["udp://0.0.0.0:514", "tcp://0.0.0.0:514"], passed) == [
                "udp://0.0.0.0:514": 3, "tcp://0.0.0.0:514": 4,
            ]
        )
        #expect(Self.matches(["tls://0.0.0.0:514"], passed) == ["tls://0.0.0.0:514": 4])
        #expect(Self.matches(["unix:///run/stream", "unixgram:///run/log"], passed).values.sorted() == [5, 6])
        #expect(Self.matches(["unix:///run/log", "tcp://127.0.0.1:514", "udp://0.0.0.0:515"], passed).isEmpty)
    }

    @Test func `one of every IPv6 address stands for every IPv4 address, too`() {
        let both = [Self.passed(3, "[::]:601")]
        #expect(Self.matches(["tcp://0.0.0.0:601", "tcp://[::]:601"], both).values.sorted() == [3, 3])
        #expect(Self.matches(["tcp://127.0.0.1:601"], both).isEmpty)
        let apart = [Self.passed(3, "[::]:601"), Self.passed(4, "0.0.0.0:601")]
        #expect(Self.matches(["tcp://0.0.0.0:601"], apart).values.first == 4)
    }

    @Test func `a socket that is named like the input fits by its kind, in order`() {
        let passed = [
            Self.passed(3, "0.0.0.0:1", name: "other"), Self.passed(4, "0.0.0.0:2", name: "app"),
            Self.passed(5, "0.0.0.0:3", name: "app"), Self.passed(6, "/run/a", name: "app"),
        ]
        let found = Self.matches(
            ["tcp://0.0.0.0:601", "tls://0.0.0.0:6514", "unix:///run/b", "udp://0.0.0.0:514"],
            passed
        )
        #expect(found == ["tcp://0.0.0.0:601": 4, "tls://0.0.0.0:6514": 5, "unix:///run/b": 6])
        // An address goes before a name.
        #expect(
            Self.matches(["tcp://0.0.0.0:3", "tcp://0.0.0.0:601"], passed) == [
                "tcp://0.0.0.0:3": 5, "tcp://0.0.0.0:601": 4,
            ]
        )
    }
}
