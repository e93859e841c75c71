import Synchronization

/// The last warnings and errors of the log.
public final class RecentEvents: Sendable {
    public struct Event: Sendable {
        /// Milliseconds since 1970.
        public var time: Int64
        /// `warning`, `error` or `critical`.
        public var level: String
        public var message: String
        /// `key=value` pairs.
        public var details: String
    }

    private let events = Mutex<[Event]>([])
    private static let most = 50
    /// What a path or a reason may be long.
    private static let longest = 500

    public init() {}

    func add(_ event: Event) {
        var event = event
        event.details = String(event.details.prefix(Self.longest))
        events.withLock { events in
            if events.count == Self.most { events.removeFirst() }
            events.append(event)
        }
    }

    /// The oldest first.
    public var all: [Event] { events.withLock { $0 } }
}
