internal import CLinux

/// Tells the service manager that has started this process, and waits for news of it (sd_notify(3)).
public struct ServiceNotifier: Sendable {
    /// A path, or `@` and an abstract name; nil: nobody waits.
    private let socket: String?
    /// How long it waits for a sign of life before it starts the service anew; nil: it needs none.
    public let watchdog: Duration?

    public enum News: Equatable, Sendable {
        case ready
        case reloading
        case stopping
        case alive
        case status(String)
        /// How much longer what is under way may take.
        case takes(Duration)
    }

    public init(
        environment: (String) -> String? = Machine.environment,
        process: Int32 = Machine.processNumber
    ) {
        socket = environment("NOTIFY_SOCKET")
        // The sign of life may be meant of another process.
        let isOurs = environment("WATCHDOG_PID").map { Int32($0) == process } ?? true
        let microseconds = environment("WATCHDOG_USEC").flatMap { Int64($0) } ?? 0
        watchdog = socket != nil && isOurs && microseconds > 0 ? .microseconds(microseconds) : nil
    }

    /// Tells all of it in one message; who does not listen misses it.
    public func tell(_ news: News...) {
        guard let socket, !news.isEmpty else { return }
        let text = Array(news.map(Self.text).joined(separator: "\n").utf8)
        _ = unsafe text.withUnsafeBytes { unsafe clinux_notify(socket, $0.baseAddress, $0.count) }
    }

    private static func text(_ news: News) -> String {
        switch news {
        case .ready: "READY=1"
        case .reloading: "RELOADING=1\nMONOTONIC_USEC=\(Machine.monotonicMicroseconds())"
        case .stopping: "STOPPING=1"
        case .alive: "WATCHDOG=1"
        case .status(let line): "STATUS=" + line.split(whereSeparator: \.isNewline).joined(separator: " ")
        case .takes(let duration): "EXTEND_TIMEOUT_USEC=\(Int64(duration.milliseconds) * 1000)"
        }
    }
}
