internal import Bytes

/// A block of records with a line end behind each, which becomes one gzip'd Kinesis record.
///
/// Gathered as it is and compressed at the seal: one compressor serves all shards, and a shard with a trickle takes no
/// more memory than its lines. The block travels under the key of its first record, and so does everything in it: whoever
/// adds records sees to it that they belong to the same shard.
@safe
struct BlockWriter: ~Copyable {
    /// Bytes of a compressed block, about.
    var maxSize: Int
    private let maxRecords: Int
    private let pool: BufferPool
    private let gzip: GzipWriter

    private(set) var recordCount = 0
    /// Bytes of the records, without the line ends behind them.
    private(set) var userBytes = 0
    private(set) var firstReceipt: Instant?

    private var memory: PooledBytes
    private var used = 0
    private var key: RecordKey?
    private var runs = RunList()
    /// What to start the next block with: as much as this shard needed last time.
    private var usualSize = 0
    /// For the runs.
    private var charge: PoolCharge

    /// - Parameters:
    ///   - maxSize: bytes of the first compressed block, about.
    ///   - maxRecords: records of one; 0: as many as fit.
    init(maxSize: Int, maxRecords: Int, pool: BufferPool, gzip: GzipWriter) {
        (self.maxSize, self.maxRecords, self.pool, self.gzip) = (maxSize, maxRecords, pool, gzip)
        memory = PooledBytes(emptyFrom: pool)
        charge = PoolCharge(to: pool)
    }

    /// Bytes it would have if it were sealed now, as far as the last blocks tell.
    var size: Int { Int(Double(used) * gzip.ratio) }

    /// Appends a record, unless that would make the block too large; the first is always taken.
    mutating func append(
        _ record: Span<UInt8>,
        under key: borrowing RecordKey,
        from run: Run,
        receipt: Instant
    ) -> Bool {
        let needed = used + record.count + 1
        if recordCount == 0 {
            self.key = copy key
            firstReceipt = receipt
        } else if needed > gzip.blockSize(packedTo: maxSize) || (maxRecords > 0 && recordCount >= maxRecords) {
            return false
        }
        if memory.capacity < needed {
            let usual = used == 0 ? usualSize : memory.capacity * 4
            memory.grow(toAtLeast: max(needed, min(usual, GzipWriter.largestBlock)), keeping: 0..<used)
        }
        unsafe record.withUnsafeBytes { record in
            let end = unsafe memory.base + used
            if let base = record.baseAddress { unsafe end.copyMemory(from: base, byteCount: record.count) }
            unsafe (end + record.count).storeBytes(of: 10, as: UInt8.self)
        }
        used = needed
        recordCount += 1
        userBytes += record.count
        if runs.add(run) { charge.bytes = runs.footprint }
        return true
    }

    /// Ends the block and starts the next; nil when it is empty.
    mutating func seal() -> SealedAggregate? {
        guard let key = key.take() else { return nil }
        let runs = runs.take(keeping: 0)
        let sealed = memory.withBytes(0..<used) { lines in
            gzip.packed(block: lines) { packed in
                SealedAggregate(
                    packed,
                    recordCount: recordCount,
                    userBytes: userBytes,
                    key: key,
                    runs: runs,
                    firstReceipt: firstReceipt!,
                    pool: pool
                )
            }
        }
        usualSize = used
        memory = PooledBytes(emptyFrom: pool)
        (recordCount, userBytes, firstReceipt, used) = (0, 0, nil, 0)
        charge.bytes = 0
        return sealed
    }
}
