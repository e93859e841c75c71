package import Bytes
package import Kinesis
import Platform

/// What a lane tells of itself when somebody asks: a copy, made in its own thread.
package struct LaneReport: Sendable {
    package var time: Instant
    package var tally: LaneTally
    /// Nil until there is a shard map.
    package var shards: [ShardReport]?
    /// The receipt of the oldest live record that is not delivered.
    package var oldestReceipt: Instant?
    /// Bytes of aggregates, open, waiting and in flight, and what they may take.
    package var aggregateBytes: Int
    package var aggregateLimit: Int
    package var callsAllowed: Int
    package var format: WireFormat
    package var failingSince: Instant?
    /// Bytes a second; nil without pacing.
    package var rate: Double?
    package var isRateLimited: Bool
}

/// What a lane counts beside its counters, for its own thread.
package struct LaneTally: Sendable {
    /// From the receipt of an aggregate's oldest record to the answer of Kinesis; what came back from the spool is left out.
    package var deliveries = Histogram()
    /// PutRecords calls that were answered.
    package var calls = Histogram()
    /// Errors of calls and of records, by their codes.
    package private(set) var errors: [String: Int] = [:]

    /// A service has some thirty codes; what stands between it and us may make up any.
    private static let mostCodes = 50

    package init() {}

    package mutating func count(_ code: String) {
        let code = errors[code] != nil || errors.count < Self.mostCodes ? code : "other"
        errors[code, default: 0] += 1
    }
}

extension CallFailure {
    /// A short name for what happened, the service's own where there is one.
    package var code: String {
        switch self {
        case .service(let error): error.code.isEmpty ? "unknown" : error.code
        case .transport(let error): error.isTimeout ? "timeout" : error.certificate != nil ? "certificate" : "transport"
        case .distrusted: "distrusted"
        case .credentials: "credentials"
        }
    }
}
