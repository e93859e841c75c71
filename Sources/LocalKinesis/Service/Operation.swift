/// The calls that are answered: the part of `X-Amz-Target` behind the API's name.
enum Operation: String, CaseIterable, Sendable {
    case createStream = "CreateStream"
    case deleteStream = "DeleteStream"
    case listStreams = "ListStreams"
    case describeStream = "DescribeStream"
    case describeStreamSummary = "DescribeStreamSummary"
    case listShards = "ListShards"
    case splitShard = "SplitShard"
    case mergeShards = "MergeShards"
    case updateShardCount = "UpdateShardCount"
    case updateStreamMode = "UpdateStreamMode"
    case updateMaxRecordSize = "UpdateMaxRecordSize"
    case putRecord = "PutRecord"
    case putRecords = "PutRecords"
    case getShardIterator = "GetShardIterator"
    case getRecords = "GetRecords"

    /// Reads `Kinesis_20131202.PutRecords`.
    init?(target: String) {
        let parts = target.split(separator: ".", maxSplits: 1)
        guard parts.count == 2, parts[0] == "Kinesis_20131202" else { return nil }
        self.init(rawValue: String(parts[1]))
    }
}

extension Operation {
    /// What a limit of calls a second is for.
    enum Scope: Sendable {
        case account
        case stream
        case shard
    }

    /// How often it may be called, where limits are enforced.
    ///
    /// Source: the API reference of each call.
    var callLimit: (perSecond: Double, scope: Scope)? {
        switch self {
        case .createStream, .deleteStream, .listStreams, .splitShard, .mergeShards: (5, .account)
        case .describeStream, .updateShardCount: (10, .account)
        case .describeStreamSummary: (20, .account)
        case .listShards: (1000, .stream)
        case .getShardIterator: (5, .shard)
        // Limited by what they carry, or by the day, or not at all.
        case .putRecord, .putRecords, .getRecords, .updateStreamMode, .updateMaxRecordSize: nil
        }
    }
}
