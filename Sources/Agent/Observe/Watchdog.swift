public import Bytes

/// When to ask the threads for a sign of life, and when to pass it on to the service manager.
///
/// Four times in its period: what was asked at one turn has to be answered by the next, or no sign goes out. So a thread that
/// stands still costs the service its restart after one to one and a quarter periods.
public struct Watchdog: Sendable {
    public private(set) var due: Instant
    private let pause: Duration
    private var hasAsked = false

    public enum Act: Equatable, Sendable {
        case nothing
        case ask
        /// Everyone has answered.
        case passOnAndAsk
        /// The question stands.
        case keepSilent
    }

    public init(period: Duration, now: Instant) {
        pause = period / 4
        due = now
    }

    /// What is to be done now.
    public mutating func act(now: Instant, isAnswered: Bool) -> Act {
        guard now >= due else { return .nothing }
        due = now + pause
        defer { hasAsked = true }
        return !hasAsked ? .ask : isAnswered ? .passOnAndAsk : .keepSilent
    }
}
