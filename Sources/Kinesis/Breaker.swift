/// Whether an endpoint may be called: one that fails as a whole is probed by one call at a time, with growing pauses.
public struct Breaker: Sendable {
    private var backoff: Backoff
    /// When the first of the failures came that no success has followed.
    public private(set) var failingSince: ContinuousClock.Instant?
    /// No call starts before.
    public private(set) var heldUntil: ContinuousClock.Instant?

    public init(_ backoff: Backoff = Backoff()) { self.backoff = backoff }

    public var isFailing: Bool { failingSince != nil }

    /// Notes a call that brought no usable answer.
    ///
    /// The calls that failed together are one failure: else two dozen in flight make the longest wait at once.
    /// - Parameter chance: evenly drawn from 0 to 1.
    /// - Returns: when the next call may start.
    public mutating func failed(chance: Double, now: ContinuousClock.Instant) -> ContinuousClock.Instant {
        failingSince = failingSince ?? now
        if let heldUntil, heldUntil > now { return heldUntil }
        let until = now + backoff.next(chance: chance)
        heldUntil = until
        return until
    }

    /// Notes an answer.
    ///
    /// - Returns: whether the endpoint was failing before.
    public mutating func succeeded() -> Bool {
        defer { failingSince = nil }
        backoff.reset()
        return failingSince != nil
    }

    /// Whether a call may start, with so many in flight of so many at most.
    public func mayCall(inFlight: Int, most: Int, now: ContinuousClock.Instant) -> Bool {
        (heldUntil ?? now) <= now && inFlight < (isFailing ? 1 : most)
    }
}
