/// What an embedded Kinesis has done since its start.
public struct Figures: Equatable, Sendable {
    /// Calls answered, whatever the answer.
    public var calls = 0
    /// Calls answered with an error.
    public var errors = 0
    public var recordsStored = 0
    /// Bytes of the stored records: data and partition keys.
    public var bytesStored = 0
    /// Records that made room under the memory limit before anybody deleted them.
    public var recordsTrimmed = 0
    /// Records that were older than the retention.
    public var recordsExpired = 0
    /// Records refused because a shard's limits were reached.
    public var recordsThrottled = 0
    /// Bytes held in memory now, with what is kept beside the records.
    public var bytesHeld = 0

    public init() {}
}
