public import Bytes
internal import CMD5

// Concurrency: belongs to its lane's thread, like the pool its memory comes from.

/// A finished aggregate, or a single record, with all that sending it, settling it and sending it again needs.
@safe
public final class SealedAggregate {
    private let bytes: PooledBytes
    private let data: Range<Int>
    /// Whether the place for the checksum, behind the protobuf of an aggregate, is empty.
    private var owesChecksum: Bool
    public let recordCount: Int
    /// Bytes of the user records, without framing and keys.
    public let userBytes: Int
    public let key: Key
    /// The lowest and the highest hash key of its records: a shard whose range holds both holds them all.
    public let hashes: ClosedRange<HashKey>
    /// When its oldest record was taken in.
    public let firstReceipt: Instant
    /// Where its records came from: what settles when it does.
    public private(set) var origin: Origin
    /// Whether it shares its origin: it holds some of what another aggregate held.
    public private(set) var isPiece = false
    /// Whether it came back from the spool: what has waited so long waits behind what is new.
    public private(set) var isBacklog: Bool

    /// The stretches that an aggregate's records came from.
    ///
    /// When the aggregate is regrouped into several they share it, and settle it together.
    public final class Origin {
        /// In the order of each source.
        public let runs: [Run]
        /// Whether a copy is on the disk, or on its way there.
        public var hasCopy = false
        /// Where it lies, once it does.
        public var copy: SpoolLocation?
        /// Whether the sources' positions have passed the runs already: the copy on disk is safe.
        public var arePositionsSettled = false
        /// Aggregates that have not settled.
        public var unsettled = 1

        private let charge: PoolCharge
        /// Bytes of a sealed aggregate beside its data and its runs, about.
        private static let objects = 512

        init(runs: [Run], pool: BufferPool) {
            self.runs = runs
            charge = PoolCharge(runs.capacity * MemoryLayout<Run>.stride + Self.objects, to: pool)
        }
    }

    /// Says that it holds a part of what `other` held.
    package func becomePiece(of other: SealedAggregate) {
        (origin, isPiece, isBacklog) = (other.origin, true, other.isBacklog)
    }

    /// The same records for another place, if the agent chose theirs: all under `Aggregator.anyPartitionKey` and one
    /// explicit hash key.
    ///
    /// A block of records needs no change but that of the key: it is one record to Kinesis.
    ///
    /// A new one, because a copy of this one's memory may be on its way to the disk. It settles what this would have.
    package func moved(to hash: HashKey, pool: BufferPool) -> SealedAggregate? {
        guard let place = key.explicitHashKey, hashes == place...place else { return nil }
        var (front, newFront): ([UInt8], [UInt8]) = ([], [])
        let isPlain = recordCount == 1 || withData { $0.count > 2 && $0[0] == 0x1f && $0[1] == 0x8b }
        if isPlain {
            guard key.partitionKey == Aggregator.anyPartitionKey else { return nil }
        } else {
            (front, newFront) = (Self.front(of: place), Self.front(of: hash))
            let isOurs = withData { data in
                data.count > front.count && data[front.count] == 0x1a
                    && front.indices.allSatisfy { data[$0] == front[$0] }
            }
            guard isOurs else { return nil }
        }
        let count = newFront.count + data.count - front.count
        let copy = PooledBytes(atLeast: max(1, count), from: pool)
        unsafe newFront.withUnsafeBytes { newFront in
            if let base = newFront.baseAddress { unsafe copy.base.copyMemory(from: base, byteCount: newFront.count) }
        }
        unsafe (copy.base + newFront.count).copyMemory(
            from: bytes.base + data.lowerBound + front.count,
            byteCount: data.count - front.count
        )
        let moved = SealedAggregate(
            bytes: copy,
            data: 0..<count,
            owesChecksum: !isPlain,
            recordCount: recordCount,
            userBytes: userBytes,
            key: Key(partitionKey: key.partitionKey, explicitHashKey: hash),
            hashes: hash...hash,
            origin: origin,
            firstReceipt: firstReceipt,
            isBacklog: isBacklog
        )
        moved.isPiece = isPiece
        return moved
    }

    /// The bytes in front of the records of an aggregate whose place the agent chose.
    private static func front(of hash: HashKey) -> [UInt8] {
        let digits = Array(hash.description.utf8)
        let key = Aggregator.anyPartitionKey
        return AggregateWriter.magic + [0x0a, UInt8(key.count)] + key + [0x12, UInt8(digits.count)] + digits
    }

    /// What the Kinesis record is addressed by.
    public struct Key: Equatable, Sendable {
        public var partitionKey: [UInt8]
        /// Where an aggregate goes; nil for a single record that its partition key places.
        public var explicitHashKey: HashKey?

        public init(partitionKey: [UInt8], explicitHashKey: HashKey?) {
            (self.partitionKey, self.explicitHashKey) = (partitionKey, explicitHashKey)
        }
    }

    /// The KPL's partition key of every aggregate: "a".
    public static let aggregatePartitionKey = Array("a".utf8)

    init(
        bytes: consuming PooledBytes,
        data: Range<Int>,
        owesChecksum: Bool = false,
        recordCount: Int,
        userBytes: Int,
        key: Key,
        hashes: ClosedRange<HashKey>,
        origin: Origin,
        firstReceipt: Instant,
        isBacklog: Bool = false
    ) {
        self.bytes = bytes
        self.owesChecksum = owesChecksum
        (self.data, self.recordCount, self.userBytes, self.key) = (data, recordCount, userBytes, key)
        (self.hashes, self.firstReceipt, self.isBacklog) = (hashes, firstReceipt, isBacklog)
        self.origin = origin
    }

    /// An aggregate as it was written to the spool, with its data copied from `data`.
    ///
    /// - Parameters:
    ///   - copy: where it lies there.
    ///   - receipt: when it came back.
    ///   - pool: where its memory comes from.
    public convenience init(
        restored data: Span<UInt8>,
        recordCount: Int,
        userBytes: Int,
        key: Key,
        hashes: ClosedRange<HashKey>,
        copy: SpoolLocation,
        receipt: Instant,
        pool: BufferPool
    ) {
        self.init(
            bytes: PooledBytes(copying: data, from: pool),
            data: 0..<data.count,
            recordCount: recordCount,
            userBytes: userBytes,
            key: key,
            hashes: hashes,
            origin: Origin(runs: [], pool: pool),
            firstReceipt: receipt,
            isBacklog: true
        )
        (origin.copy, origin.hasCopy) = (copy, true)
        origin.arePositionsSettled = true
    }

    /// A finished block of records under one key, with its data copied from `data`.
    convenience init(
        _ data: Span<UInt8>,
        recordCount: Int,
        userBytes: Int,
        key: RecordKey,
        runs: [Run],
        firstReceipt: Instant,
        pool: BufferPool
    ) {
        self.init(
            bytes: PooledBytes(copying: data, from: pool),
            data: 0..<data.count,
            recordCount: recordCount,
            userBytes: userBytes,
            key: Key(partitionKey: key.partitionKey, explicitHashKey: key.explicitHashKey.isEmpty ? nil : key.hash),
            hashes: key.hash...key.hash,
            origin: Origin(runs: runs, pool: pool),
            firstReceipt: firstReceipt
        )
    }

    /// Bytes that count against a call's and a shard's limits: data and partition key.
    public var size: Int { data.count + key.partitionKey.count }

    /// Bytes of data.
    public var dataCount: Int { data.count }

    /// Bytes of memory it holds.
    public var footprint: Int { bytes.capacity }

    /// Writes the checksums that are still owed, side by side: many cost little more than one.
    ///
    /// For who is about to read many; whoever reads one finds it whole in any case.
    package static func writeChecksums(of aggregates: some Collection<SealedAggregate>) {
        let owing = aggregates.reduce(0) { $0 + ($1.owesChecksum ? 1 : 0) }
        guard owing > 0 else { return }
        unsafe withUnsafeTemporaryAllocation(of: cmd5_message.self, capacity: owing) { messages in
            var count = 0
            for aggregate in aggregates where aggregate.owesChecksum {
                let first = aggregate.data.lowerBound + AggregateWriter.magic.count
                let end = aggregate.data.upperBound - AggregateWriter.checksumSize
                let base = unsafe aggregate.bytes.base
                unsafe messages.initializeElement(
                    at: count,
                    to: cmd5_message(bytes: base + first, count: end - first, sum: base + end)
                )
                aggregate.owesChecksum = false
                count += 1
            }
            unsafe cmd5_sums(messages.baseAddress, count, cmd5_best())
        }
    }

    /// Lends the data: what goes into the Kinesis record.
    public func withData<Result, Failure: Error>(
        _ body: (Span<UInt8>) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        Self.writeChecksums(of: CollectionOfOne(self))
        return try bytes.withBytes(data, body)
    }

    /// The data's memory, which stays where it is as long as this object lives: for a call that sends it in place.
    @unsafe
    public var unsafeData: UnsafeRawBufferPointer {
        Self.writeChecksums(of: CollectionOfOne(self))
        return unsafe UnsafeRawBufferPointer(start: bytes.base + data.lowerBound, count: data.count)
    }
}

/// Where a record of the spool lies.
public struct SpoolLocation: Hashable, Sendable {
    public var segment: UInt64
    /// Bytes from the segment's start.
    public var offset: UInt64

    public init(segment: UInt64, offset: UInt64) { (self.segment, self.offset) = (segment, offset) }
}
