/// What is known of a shard, for people to look at.
public struct ShardReport: Sendable {
    public var shard: Shard
    public var tally: Tally
    /// Bytes that wait for it.
    public var bytesQueued: Int
    /// How long it is left alone yet, because it refused; nil: it is not.
    public var coolsFor: Duration?

    /// What became of what was sent to it.
    public struct Tally: Equatable, Sendable {
        /// Kinesis records that it took, and their bytes as its limits count them.
        public var records = 0
        public var bytes = 0
        /// Kinesis records that it refused: as too much, and for its own failure.
        public var throttled = 0
        public var failed = 0
    }
}
