internal import Bytes

/// What a shard is given next, while it is filled: an aggregate of records, packed or not, or a block of lines.
struct ShardWriter: ~Copyable {
    private let compression: Compression
    private let gzip: GzipWriter
    private var aggregate: AggregateWriter
    private var block: BlockWriter

    init(
        _ compression: Compression,
        maxSize: Int,
        maxRecords: Int,
        pool: BufferPool,
        keepsTables: Bool,
        gzip: GzipWriter
    ) {
        (self.compression, self.gzip) = (compression, gzip)
        aggregate = AggregateWriter(maxSize: maxSize, maxRecords: maxRecords, pool: pool, keepsTables: keepsTables)
        block = BlockWriter(maxSize: maxSize, maxRecords: maxRecords, pool: pool, gzip: gzip)
    }

    /// Bytes of a sealed aggregate, or compressed block, at most; of a block: about.
    var maxSize: Int {
        get { isBlock ? block.maxSize : aggregate.maxSize }
        set { if isBlock { block.maxSize = newValue } else { aggregate.maxSize = newValue } }
    }

    private var isBlock: Bool { compression == .gzip }

    var isEmpty: Bool { recordCount == 0 }
    var recordCount: Int { isBlock ? block.recordCount : aggregate.recordCount }
    /// Bytes of the records as they were taken in.
    var userBytes: Int { isBlock ? block.userBytes : aggregate.userBytes }
    var firstReceipt: Instant? { isBlock ? block.firstReceipt : aggregate.firstReceipt }
    /// Bytes it would have if it were sealed now; of a block: about.
    var size: Int { isBlock ? block.size : aggregate.size }

    /// Appends a record, unless it must be sealed first.
    mutating func append(
        _ record: Span<UInt8>,
        under key: borrowing RecordKey,
        from run: Run,
        receipt: Instant
    ) -> Bool {
        switch compression {
        case .none: return aggregate.append(record, under: key, from: run, receipt: receipt)
        case .gzip: return block.append(record, under: key, from: run, receipt: receipt)
        case .gzipRecord:
            let key = copy key
            return gzip.packed(record) { packed in
                aggregate.append(packed, under: key, from: run, receipt: receipt, standingFor: record.count)
            }
        }
    }

    /// Has the memory brought that appending will write, as `AggregateWriter.prefetch` does.
    @inline(__always)
    func prefetch(_ count: Int, _ tableHash: UInt64?) {
        if compression == .none { aggregate.prefetch(count, tableHash) }
    }

    /// Says which aggregate is open, as `AggregateWriter.serial` does; where records are compressed, none that an index is of.
    @inline(__always)
    var serial: UInt64 { compression == .none ? aggregate.serial : .max }

    /// The same under a partition key that places the record at `hash`.
    ///
    /// - Parameter tableHash: the key's, by `KeyTable.hash`.
    /// - Returns: the key's index in the open aggregate, if it has one; nil if that must be sealed first.
    mutating func append(
        _ record: Span<UInt8>,
        under partitionKey: Span<UInt8>,
        _ tableHash: UInt64,
        at hash: HashKey,
        from run: Run,
        receipt: Instant
    ) -> Int? {
        guard compression != .none else {
            return aggregate.append(record, under: partitionKey, tableHash, at: hash, from: run, receipt: receipt)
        }
        let key = RecordKey(copying: partitionKey, hash: hash)
        return append(record, under: key, from: run, receipt: receipt) ? 0 : nil
    }

    /// The same under the partition key with an index in the open aggregate, as `AggregateWriter.append` does.
    @inline(__always)
    @unsafe
    mutating func append(_ record: UnsafeRawPointer, count: Int, underKnown index: Int, from run: Run) -> Bool {
        assert(compression == .none, "an index is of no aggregate of compressed records")
        return unsafe aggregate.append(record, count: count, underKnown: index, from: run)
    }

    /// Appends the records of `block` from `offset` on, as `AggregateWriter.append` does.
    @inline(__always)
    mutating func append<Cut: RecordCut>(
        _ block: Span<UInt8>,
        as cut: Cut.Type,
        from offset: inout Int,
        longest: Int,
        under key: borrowing RecordKey,
        source: UInt32,
        position: inout UInt64,
        receipt: Instant
    ) -> AggregateWriter.BlockStop {
        guard compression != .none else {
            return aggregate.append(
                block,
                as: cut,
                from: &offset,
                longest: longest,
                under: key,
                source: source,
                position: &position,
                receipt: receipt
            )
        }
        // Compressing costs many times what a call a record does.
        while offset < block.count {
            let (data, next) = Cut.next(in: block, at: offset)
            guard data.count <= longest else { return .longRecord }
            let end = position + UInt64(next - offset - Cut.head)
            let run = Run(source: source, first: position, end: end)
            guard append(block.extracting(data), under: key, from: run, receipt: receipt) else {
                return .aggregateFull
            }
            (offset, position) = (next, end)
        }
        return .blockEnded
    }

    /// Ends it and starts the next; nil when it is empty.
    mutating func seal() -> SealedAggregate? { isBlock ? block.seal() : aggregate.seal() }
}
