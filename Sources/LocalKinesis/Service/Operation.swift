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
