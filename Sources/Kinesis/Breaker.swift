public import Bytes

/// Whether an endpoint may be called: one that fails as a whole is probed by one call at a time, with growing pauses.
///
/// Calls that fail among others that succeed are the network's everyday: they only cost a moment's pause. When several fail
/// and none succeeds in between, or one fails for good, it is the endpoint.
public struct Breaker: Sendable {
    private var backoff: Backoff
    /// Failures that no success has followed.
    private var failures = 0
    /// When the first of the failures came, once the endpoint is held to fail.
    public private(set) var failingSince: Instant?
    private var firstFailure: Instant?
    /// No call starts before.
    public private(set) var heldUntil: Instant?

    /// Failures in a row that are a single call's affair.
    private static let tolerated = 2
    /// The longest pause after one of those.
    private static let pause: Duration = .milliseconds(25)

    public init(_ backoff: Backoff = Backoff()) { self.backoff = backoff }

    public var isFailing: Bool { failingSince != nil }

    /// Notes a call that brought no usable answer.
    ///
    /// The calls that failed together are one failure: else two dozen in flight make the longest wait at once.
    /// - Parameters:
    ///   - isPermanent: whether another call of the kind will fail as well.
    ///   - chance: evenly drawn from 0 to 1.
    /// - Returns: when the next call may start.
    public mutating func failed(isPermanent: Bool, chance: Double, now: Instant)
        -> Instant
    {
        failures += 1
        firstFailure = firstFailure ?? now
        guard isPermanent || failures > Self.tolerated || isFailing else {
            let until = max(heldUntil ?? now, now + Self.pause * chance)
            heldUntil = until
            return until
        }
        let wasFailing = isFailing
        failingSince = failingSince ?? firstFailure
        if wasFailing, let heldUntil, heldUntil > now { return heldUntil }
        let until = now + backoff.next(chance: chance)
        heldUntil = until
        return until
    }

    /// Notes an answer.
    ///
    /// - Returns: whether the endpoint was failing before.
    public mutating func succeeded() -> Bool {
        defer { (failures, failingSince, firstFailure) = (0, nil, nil) }
        backoff.reset()
        return isFailing
    }

    /// Whether a call may start, with so many in flight of so many at most.
    public func mayCall(inFlight: Int, most: Int, now: Instant) -> Bool {
        (heldUntil ?? now) <= now && inFlight < (isFailing ? 1 : most)
    }
}
