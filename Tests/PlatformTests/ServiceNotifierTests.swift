import Platform
import Testing

@Suite struct ServiceNotifierTests {
    static func manager(_ environment: [String: String]) -> ServiceNotifier {
        ServiceNotifier(environment: { environment[$0] }, process: 42)
    }

    @Test func `a watchdog is one that is meant of this process, and has a socket`() {
        let socket = ["NOTIFY_SOCKET": "/nonexistent/notify"]
        func watchdog(_ more: [String: String]) -> Duration? {
            Self.manager(socket.merging(more) { _, new in new }).watchdog
        }
        #expect(watchdog(["WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"]) == .seconds(30))
        #expect(watchdog(["WATCHDOG_USEC": "30000000"]) == .seconds(30))
        #expect(watchdog(["WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "41"]) == nil)
        #expect(watchdog(["WATCHDOG_USEC": "soon"]) == nil)
        #expect(watchdog([:]) == nil)
        #expect(Self.manager(["WATCHDOG_USEC": "30000000"]).watchdog == nil)
    }

    @Test func `telling nobody, or somebody who is gone, is no error`() {
        Self.manager([:]).tell(.ready)
        Self.manager(["NOTIFY_SOCKET": "/nonexistent/notify"]).tell(.ready, .status("a"))
        Self.manager(["NOTIFY_SOCKET": "@" + String(repeating: "n", count: 300)]).tell(.ready)
        Self.manager(["NOTIFY_SOCKET": ""]).tell(.ready)
    }
}
