/// What Kinesis allows, in one place.
///
/// Sources: the API reference of PutRecords and PutRecordsRequestEntry, "Quotas and limits" and "Large records" in the
/// Kinesis Data Streams developer guide.
public enum Limits {
    /// Records of one PutRecords call.
    public static let callRecords = 500
    /// Bytes of one PutRecords call: data and partition keys.
    public static let callBytes = 10 << 20
    /// Bytes of one record, data and partition key, unless the stream's MaxRecordSizeInKiB says otherwise.
    public static let recordBytes = 1 << 20
    /// The largest MaxRecordSizeInKiB a stream may have, in bytes.
    public static let largestRecordBytes = 10 << 20
    /// Bytes of a user record that any partition key leaves, of a stream that takes records of `streamBytes`.
    ///
    /// - Parameter isPacked: whether it is compressed: what does not shrink grows by gzip's own bytes.
    public static func longestRecord(of streamBytes: Int = recordBytes, isPacked: Bool = false) -> Int {
        streamBytes - partitionKeyBytes - (isPacked ? max(0, streamBytes - recordBytes) >> 11 : 0)
    }
    /// Characters of a partition key.
    public static let partitionKeyCharacters = 256
    /// Bytes that so many characters of UTF-8 can take; they count against the record's limit.
    public static let partitionKeyBytes = 4 * partitionKeyCharacters
    /// Bytes a second that a shard takes: 1 MB/s, read as the KPL reads it.
    public static let shardBytesPerSecond = 1 << 20
    /// Records a second that a shard takes.
    public static let shardRecordsPerSecond = 1000
    /// Records and bytes of one GetRecords answer.
    public static let readRecords = 10_000
    public static let readBytes = 10 << 20
    /// Seconds a shard iterator lives.
    public static let iteratorSeconds = 300
}
