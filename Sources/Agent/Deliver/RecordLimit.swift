package import Bytes
package import Kinesis

/// How long a record the stream takes: asked only where an input may have longer ones than every stream takes.
///
/// Until it is known such an input's records wait; what a stream does not tell is taken to be what every stream takes.
package struct RecordLimit {
    /// Bytes of a record with its key, as the stream has told.
    package private(set) var told: Int?

    private let stream: StreamName
    private let period: Duration
    private var isAsking = false
    private var due: Instant?
    private var backoff = Backoff(first: .milliseconds(200), longest: .seconds(30))
    /// Since when it is asked in vain, while other calls succeed.
    private var vainSince: Instant?
    private var isAssumed = false

    /// It is asked about as often as the shards are: a stream's limit may be raised.
    private static let period: Duration = .seconds(600)
    /// How long records wait for an answer that does not come.
    private static let patience: Duration = .seconds(30)

    /// - Parameters:
    ///   - kept: what the stream told an earlier run.
    ///   - chance: evenly drawn from 0 to 1: agents that started together do not ask together.
    package init(stream: StreamName, kept: Int? = nil, chance: Double) {
        (self.stream, told) = (stream, kept)
        period = Self.period * (0.75 + chance / 2)
    }

    /// Bytes of a record with its key; nil while that is to be waited for.
    package var bytes: Int? { told ?? (isAssumed ? Limits.recordBytes : nil) }

    /// The parameters of the DescribeStreamSummary call to make now, if one is to be made.
    package mutating func nextCall(now: Instant) -> WireValue? {
        guard let due = nextDue(now: now), now >= due else { return nil }
        isAsking = true
        return .object([stream.member: .text(stream.text)])
    }

    /// When `nextCall` will have something; nil while a call is out.
    package func nextDue(now: Instant) -> Instant? { isAsking ? nil : due ?? now }

    /// Asks again soon: a record was refused.
    package mutating func refresh(now: Instant) { due = min(due ?? now, now + .seconds(1)) }

    /// Takes an answer.
    ///
    /// - Returns: whether the limit is another one now; nil if the answer describes no stream, as a call that failed.
    package mutating func take(_ value: WireValue, now: Instant) -> Bool? {
        guard let summary = value["StreamDescriptionSummary"] else { return nil }
        let before = bytes
        (isAsking, due, vainSince) = (false, now + period, nil)
        backoff.reset()
        // Who does not know of longer records does not take them.
        let kibibytes = summary["MaxRecordSizeInKiB"]?.integer ?? 0
        let most = Int64(Limits.largestRecordBytes >> 10)
        told = Int(min(max(kibibytes, Int64(Limits.recordBytes >> 10)), most)) << 10
        return before != told
    }

    /// What follows of a call that failed.
    package enum Failure {
        case again
        /// From now on the stream is held to take what every stream takes.
        case assumed
    }

    /// Notes that a call brought no answer.
    ///
    /// - Parameters:
    ///   - isRefused: whether asking again will not help.
    ///   - othersFail: whether other calls do, too: then it is waited for the endpoint.
    package mutating func failed(
        isRefused: Bool,
        othersFail: Bool,
        chance: Double,
        now: Instant
    ) -> Failure {
        isAsking = false
        due = now + (isRefused ? period : backoff.next(chance: chance))
        vainSince = othersFail ? nil : vainSince ?? now
        let isLong = vainSince.map { now - $0 >= Self.patience } ?? false
        guard bytes == nil, isRefused || isLong else { return .again }
        isAssumed = true
        return .assumed
    }
}
