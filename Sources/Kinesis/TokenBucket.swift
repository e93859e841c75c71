public import Bytes

/// Allows `rate` units a second, and up to `burst` at once.
public struct TokenBucket: Sendable {
    public let rate: Double
    public let burst: Double
    private var level: Double
    private var filled: Instant

    public init(rate: Double, burst: Double, now: Instant) {
        (self.rate, self.burst, level, filled) = (rate, burst, burst, now)
    }

    /// How long until `amount` may be taken; nil when it may be taken now.
    ///
    /// More than `burst` is due when the bucket is full: it then overdraws, and what follows waits longer.
    public mutating func wait(for amount: Double, now: Instant) -> Duration? {
        if now > filled {
            level = min(burst, level + rate * ((now - filled) / .seconds(1)))
            filled = now
        }
        let needed = min(amount, burst)
        guard level < needed else { return nil }
        // Rounded up: a wait that rounds to nothing, or ends just short, would make its caller spin. A year is for ever.
        return .nanoseconds(Int64(min((needed - level) / rate * 1e9, 3.2e16)) + 1)
    }

    /// Goes on where `earlier` was; nil: begins empty.
    public mutating func takeOver(_ earlier: TokenBucket?, now: Instant) {
        var earlier = earlier
        _ = earlier?.wait(for: 0, now: now)
        level = min(burst, earlier?.level ?? 0)
    }

    /// Takes `amount`, which `wait(for:now:)` has allowed.
    public mutating func take(_ amount: Double) { level -= amount }
}
