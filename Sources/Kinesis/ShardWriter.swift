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
    var firstReceipt: ContinuousClock.Instant? { isBlock ? block.firstReceipt : aggregate.firstReceipt }
    /// Bytes it would have if it were sealed now; of a block: about.
    var size: Int { isBlock ? block.size : aggregate.size }

    /// Appends a record, unless it must be sealed first.
    mutating func append(
        _ record: Span<UInt8>,
        under key: borrowing RecordKey,
        from run: Run,
        receipt: ContinuousClock.Instant
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

    /// Appends the lines of `block` from `offset` on, as `AggregateWriter.appendLines` does.
    mutating func appendLines(
        of block: Span<UInt8>,
        from offset: inout Int,
        longest: Int,
        under key: borrowing RecordKey,
        source: UInt32,
        position: UInt64,
        receipt: ContinuousClock.Instant
    ) -> AggregateWriter.LineStop {
        guard compression != .none else {
            return aggregate.appendLines(
                of: block,
                from: &offset,
                longest: longest,
                under: key,
                source: source,
                position: position,
                receipt: receipt
            )
        }
        // Compressing costs many times what a call a line does.
        while offset < block.count {
            let end = block.firstOffset(of: 10, from: offset) ?? block.count
            let stop = end > offset && block[end - 1] == 13 ? end - 1 : end
            guard stop - offset <= longest else { return .longLine }
            let next = min(end + 1, block.count)
            let run = Run(source: source, first: position + UInt64(offset), end: position + UInt64(next))
            guard append(block.extracting(offset..<stop), under: key, from: run, receipt: receipt) else {
                return .aggregateFull
            }
            offset = next
        }
        return .blockEnded
    }

    /// Ends it and starts the next; nil when it is empty.
    mutating func seal(_ md5: borrowing MD5) -> SealedAggregate? { isBlock ? block.seal() : aggregate.seal(md5) }
}
