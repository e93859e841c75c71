import Bytes

/// A point in time by both clocks, read together: records carry the wall clock's, intervals are measured by the other.
struct Moment: Sendable {
    /// Milliseconds since 1970, UTC.
    var milliseconds: Int64
    var instant: Instant

    var seconds: Int64 { milliseconds / 1000 }

    /// This moment, later by `duration` on both clocks.
    static func + (moment: Self, duration: Duration) -> Self {
        Moment(milliseconds: moment.milliseconds + duration.milliseconds, instant: moment.instant + duration)
    }
}

extension Duration {
    /// Whole milliseconds.
    var milliseconds: Int64 { components.seconds * 1000 + components.attoseconds / 1_000_000_000_000_000 }
}
