internal import Bytes

// Concurrency: belongs to its lane's thread, like the pool its memory comes from.

/// A finished aggregate, or a single record, with all that sending it, settling it and sending it again needs.
@safe
public final class SealedAggregate {
    private let bytes: PooledBytes
    private let data: Range<Int>
    public let recordCount: Int
    /// Bytes of the user records, without framing and keys.
    public let userBytes: Int
    public let key: Key
    /// The lowest and the highest hash key of its records: a shard whose range holds both holds them all.
    public let hashes: ClosedRange<HashKey>
    /// The shard it was filled for: every record of it lies in that shard's range, as the map was then.
    public let shard: ShardID
    /// Where its records came from, in the order of each source.
    public let runs: [Run]
    /// When its oldest record was taken in.
    public let firstReceipt: ContinuousClock.Instant
    /// What it was regrouped from, if it was: that settles as a whole, once all that became of it has settled.
    public var origin: Origin?

    /// An aggregate whose records travel on in several others.
    public final class Origin {
        public let runs: [Run]
        /// Aggregates that have not settled.
        public var unsettled: Int

        public init(runs: [Run], unsettled: Int) { (self.runs, self.unsettled) = (runs, unsettled) }
    }

    /// What the Kinesis record is addressed by.
    public struct Key: Equatable, Sendable {
        public var partitionKey: [UInt8]
        /// Where an aggregate goes; nil for a single record that its partition key places.
        public var explicitHashKey: HashKey?
    }

    /// The KPL's partition key of every aggregate: "a".
    public static let aggregatePartitionKey = Array("a".utf8)

    init(
        bytes: consuming PooledBytes,
        data: Range<Int>,
        recordCount: Int,
        userBytes: Int,
        key: Key,
        hashes: ClosedRange<HashKey>,
        shard: ShardID,
        runs: [Run],
        firstReceipt: ContinuousClock.Instant
    ) {
        self.bytes = bytes
        (self.data, self.recordCount, self.userBytes, self.key) = (data, recordCount, userBytes, key)
        (self.hashes, self.shard, self.runs, self.firstReceipt) = (hashes, shard, runs, firstReceipt)
    }

    /// Bytes that count against a call's and a shard's limits: data and partition key.
    public var size: Int { data.count + key.partitionKey.count }

    /// Bytes of data.
    public var dataCount: Int { data.count }

    /// Bytes of memory it holds.
    public var footprint: Int { bytes.capacity }

    /// Lends the data: what goes into the Kinesis record.
    public func withData<Result, Failure: Error>(
        _ body: (Span<UInt8>) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try bytes.withBytes(data, body)
    }

    /// The data's memory, which stays where it is as long as this object lives: for a call that sends it in place.
    @unsafe
    public var unsafeData: UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(start: bytes.base + data.lowerBound, count: data.count)
    }
}
