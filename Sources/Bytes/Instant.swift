import Glibc

/// A moment of the clock that nobody sets, and that goes on while the machine sleeps.
///
/// The standard library's `Instant` is opaque to other modules: what holds one is laid out at run time, and
/// every access to its fields, and every copy, goes through a table.
@frozen
public struct Instant: Hashable, Comparable, Sendable {
    /// Nanoseconds since the machine started.
    public let nanoseconds: Int64

    @inlinable
    public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    public static var now: Instant {
        var time = timespec()
        unsafe clock_gettime(CLOCK_BOOTTIME, &time)
        return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
    }

    @inlinable
    public static func < (left: Instant, right: Instant) -> Bool { left.nanoseconds < right.nanoseconds }

    @inlinable
    public static func - (left: Instant, right: Instant) -> Duration {
        .nanoseconds(left.nanoseconds - right.nanoseconds)
    }

    /// The moment after a wait: never before its end, by however little.
    public static func + (left: Instant, right: Duration) -> Instant {
        Instant(nanoseconds: left.nanoseconds.addingClamped(right.wholeNanoseconds))
    }

    public static func - (left: Instant, right: Duration) -> Instant {
        Instant(nanoseconds: left.nanoseconds.addingClamped(-right.wholeNanoseconds))
    }

    public static func += (left: inout Instant, right: Duration) { left = left + right }
    public static func -= (left: inout Instant, right: Duration) { left = left - right }
}

extension Duration {
    /// Rounded up; what is longer than three centuries is that long.
    fileprivate var wholeNanoseconds: Int64 {
        let (seconds, attoseconds) = components
        guard seconds.magnitude < 9_000_000_000 else { return seconds < 0 ? -.longest : .longest }
        let (whole, rest) = attoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        return seconds * 1_000_000_000 + whole + (rest > 0 ? 1 : 0)
    }
}

extension Int64 {
    fileprivate static let longest: Int64 = 9_000_000_000_000_000_000

    fileprivate func addingClamped(_ other: Int64) -> Int64 {
        let (sum, isOver) = addingReportingOverflow(other)
        return isOver ? (other > 0 ? .max : .min) : sum
    }
}
