/// How long to wait before trying again: decorrelated jitter.
///
/// Each wait is drawn between the first and three times the one before, so that agents that failed together do not come
/// back together ("Exponential Backoff and Jitter", AWS Architecture Blog).
public struct Backoff: Sendable {
    public let first: Duration
    public let longest: Duration
    private var last: Duration

    public init(first: Duration = .milliseconds(100), longest: Duration = .seconds(10)) {
        (self.first, self.longest, last) = (first, longest, first)
    }

    /// The next wait.
    ///
    /// - Parameter chance: evenly drawn from 0 to 1.
    public mutating func next(chance: Double) -> Duration {
        last = min(longest, first + (last * 3 - first) * chance)
        return last
    }

    /// After a success, failures count anew.
    public mutating func reset() { last = first }
}
