public import Bytes
internal import CText

/// The KPL's aggregated record, written as finished bytes while records arrive.
///
///     F3 89 9A C2 | protobuf AggregatedRecord | MD5 of the protobuf
///
/// Records are appended as protobuf behind room for the key tables, which are written in front of them at the seal: the
/// result is what libprotobuf-c would pack, byte for byte, and its size is known before each append. One record alone is
/// sealed as it is, without framing. Within one aggregate give all records an explicit hash key or none (aws_kinesis_agg
/// misreads a mixture).
///
/// Format: https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md
@safe
public struct AggregateWriter: ~Copyable {
    public static let magic: [UInt8] = [0xf3, 0x89, 0x9a, 0xc2]
    static let checksumSize = 16

    /// Bytes of a sealed aggregate at most; only a record that is larger by itself passes it.
    public var maxSize: Int { didSet { end = 0 } }
    /// Records of an aggregate at most; 0: as many as fit.
    public let maxRecords: Int

    public private(set) var recordCount = 0
    /// Bytes of user data: the records without framing and keys.
    public private(set) var userBytes = 0
    /// When the oldest record was taken in.
    public private(set) var firstReceipt: Instant?

    /// Another one for each aggregate of this writer.
    private(set) var serial: UInt64 = 1

    private var memory: PooledBytes
    private let pool: BufferPool
    private var used = leastHeadroom
    /// Up to where records may go without another look at what limits them; 0: that is not known.
    private var end = 0
    /// Beside what else a record under a known key touches: in the same lines of the cache.
    private var runs = RunList()
    /// Bytes kept free in front of the records for the magic and the key tables.
    private var headroom = leastHeadroom
    /// Bytes that both key tables take in front of the records.
    private var tablesSize = 0
    private var partitionKeys = KeyTable(tag: 1)
    private var explicitHashKeys = KeyTable(tag: 2)
    private var firstKey: RecordKey?
    private var hashes = HashKey.lowest...HashKey.lowest
    /// Where the payload of the first record lies: what is sent if no other joins it.
    private var firstPayload = 0..<0
    /// What to start the next aggregate with: as much as this shard needed last time.
    private var usualSize = 0
    /// For the key tables and the runs.
    private var charge: PoolCharge
    private let keepsTables: Bool

    /// Where nothing says that it should be more.
    private static let leastHeadroom = 320
    /// Runs whose memory is kept for the next aggregate: half as many as records of 50 bytes fill one.
    private static let keptRuns = 512
    /// Bytes kept free behind them, so that fixed-width stores may overshoot; the checksum goes there in the end.
    private static let tailroom = 32

    /// - Parameters:
    ///   - maxSize: bytes of a sealed aggregate.
    ///   - maxRecords: records of one; 0: as many as fit.
    ///   - pool: where its memory comes from; what it holds beside that is charged to it.
    ///   - keepsTables: whether the memory of the key tables and runs is kept for the next aggregate, as few busy writers
    ///     should.
    public init(maxSize: Int, maxRecords: Int = 0, pool: BufferPool, keepsTables: Bool = true) {
        (self.maxSize, self.maxRecords, self.pool, self.keepsTables) = (maxSize, maxRecords, pool, keepsTables)
        memory = PooledBytes(emptyFrom: pool)
        charge = PoolCharge(to: pool)
    }

    public var isEmpty: Bool { recordCount == 0 }

    /// Bytes the aggregate would have if it were sealed now, as an aggregate (with framing).
    public var size: Int {
        Self.magic.count + tablesSize + (used - headroom) + Self.checksumSize
    }

    /// Bytes the aggregate would have with one more record of `count` bytes under `key`.
    public func size(adding count: Int, under key: borrowing RecordKey) -> Int {
        let place = place(of: key.partitionKey.span, key.explicitHashKey.span)
        return size + cost(adding: count, key.partitionKey.span, key.explicitHashKey.span, place)
    }

    /// Appends a record, unless that would make it too large.
    ///
    /// The first record of an aggregate is always taken, whatever its size. Costs no allocation while the aggregate has
    /// memory and the key is known.
    /// - Parameters:
    ///   - run: where the record came from.
    ///   - receipt: when it was taken in.
    ///   - userBytes: what it was before it was compressed; nil: it is as it was.
    /// - Returns: false when the aggregate must be sealed first.
    public mutating func append(
        _ record: Span<UInt8>,
        under key: borrowing RecordKey,
        from run: Run,
        receipt: Instant,
        standingFor userBytes: Int? = nil
    ) -> Bool {
        let isFirst = isEmpty
        let (partitionKey, explicitHashKey) = (key.partitionKey.span, key.explicitHashKey.span)
        let place = place(of: partitionKey, explicitHashKey)
        guard append(record, partitionKey, explicitHashKey, place, key.hash, run, receipt) != nil else { return false }
        if isFirst { firstKey = copy key }
        if let userBytes { self.userBytes += userBytes - record.count }
        return true
    }

    /// The same under a partition key that places the record at `hash`.
    ///
    /// - Parameter tableHash: the key's, by `KeyTable.hash`.
    /// - Returns: the key's index in this aggregate; nil when the aggregate must be sealed first.
    mutating func append(
        _ record: Span<UInt8>,
        under partitionKey: Span<UInt8>,
        _ tableHash: UInt64,
        at hash: HashKey,
        from run: Run,
        receipt: Instant
    ) -> Int? {
        let known = partitionKeys.index(of: partitionKey, tableHash)
        if let known {
            let isAppended = unsafe record.withUnsafeBytes {
                // Of an empty record any place will do.
                unsafe append(
                    $0.baseAddress ?? UnsafeRawPointer(memory.base),
                    count: $0.count,
                    underKnown: known,
                    from: run
                )
            }
            guard isAppended else { return nil }
            // It may stand there with an explicit hash key.
            include(hash)
            return known
        }
        let index = partitionKeys.count
        let keyCost = KeyTable.cost(of: partitionKey.count)
        let frame = RecordFrame(index, nil)
        let length = frame.length(of: record.count)
        let next = used &+ keyCost &+ RecordFrame.size(ofLength: length)
        guard next <= end, hasRoomForKey, !isEmpty else {
            let isFirst = isEmpty
            let place = Place(
                partition: nil,
                partitionHash: tableHash,
                explicit: nil,
                explicitHash: 0,
                hasExplicit: false
            )
            guard append(record, partitionKey, Span(), place, hash, run, receipt) != nil else { return nil }
            if isFirst { firstKey = RecordKey(copying: partitionKey, hash: hash) }
            findEnd()
            return index
        }
        include(hash)
        _ = partitionKeys.add(partitionKey, tableHash)
        tablesSize += keyCost
        end -= keyCost
        unsafe record.withUnsafeBytes {
            unsafe putNext($0.baseAddress ?? UnsafeRawPointer(memory.base), $0.count, frame, length)
        }
        _ = runs.add(run)
        updateCharge()
        return index
    }

    /// The same under the partition key with an index that `append` returned since the last seal.
    ///
    /// - Parameters:
    ///   - record: where the record lies.
    ///   - count: its bytes.
    @inline(__always)
    @unsafe
    mutating func append(_ record: UnsafeRawPointer, count: Int, underKnown index: Int, from run: Run) -> Bool {
        if let head = RecordFrame.head(index, count: count), used &+ head.size &+ count <= end {
            let out = unsafe memory.base + used
            unsafe out.storeBytes(of: head.bits.littleEndian, as: UInt64.self)
            unsafe RecordFrame.copy(record, count, to: out + head.size)
            tookNext(count, till: used &+ head.size &+ count)
        } else {
            let frame = RecordFrame(index, nil)
            let length = frame.length(of: count)
            let cost = RecordFrame.size(ofLength: length)
            if used &+ cost > end, !makeRoom(cost) { return false }
            unsafe putNext(record, count, frame, length)
        }
        if runs.add(run) { updateCharge() }
        return true
    }

    /// Looks at all that limits the aggregate; false if it has no room for so many bytes of a record.
    private mutating func makeRoom(_ count: Int) -> Bool {
        guard size + count <= maxSize, hasRoomForRecord else { return false }
        reserve(count)
        findEnd()
        return true
    }

    private mutating func findEnd() {
        // Where records are counted, each is looked at.
        end = maxRecords == 0 ? min(used + maxSize - size, memory.capacity - Self.tailroom) : 0
    }

    /// Has memory brought that is written soon: what appending a record of `count` bytes looks at, and where those behind it go.
    ///
    /// Whoever appends to many aggregates does this for some records at once, so that they wait for memory together.
    /// - Parameter tableHash: the partition key's, by `KeyTable.hash`, where its index is not known.
    @inline(__always)
    func prefetch(_ count: Int, _ tableHash: UInt64?) {
        guard !isEmpty else { return }
        if let tableHash { partitionKeys.prefetch(tableHash) }
        runs.prefetchEnd()
        // This one's lines were brought for those before it: memory is slower than one batch. Those of a long record are brought
        // by the processor, which sees them written one after the other.
        let end = unsafe memory.base + used
        unsafe ctext_prefetch(end + 128)
        unsafe ctext_prefetch(end + 192)
        if count > 63 { unsafe ctext_prefetch(end + 256) }
        if count > 127 { unsafe ctext_prefetch(end + 320) }
        if count > 191 { unsafe ctext_prefetch(end + 384) }
        if count > 255 { unsafe ctext_prefetch(end + 448) }
    }

    @inline(__always)
    private mutating func append(
        _ record: Span<UInt8>,
        _ partitionKey: Span<UInt8>,
        _ explicitHashKey: Span<UInt8>,
        _ place: Place,
        _ hash: HashKey,
        _ run: Run,
        _ receipt: Instant
    ) -> Int? {
        var place = place
        if !isEmpty {
            let cost = cost(adding: record.count, partitionKey, explicitHashKey, place)
            guard size + cost <= maxSize, hasRoomForRecord, place.isKnown || hasRoomForKey else { return nil }
        }
        open(at: hash, receipt: receipt)
        add(partitionKey, explicitHashKey, hash, &place)
        let frame = place.frame
        reserve(frame.size(of: record.count))
        unsafe record.withUnsafeBytes { unsafe put($0, frame) }
        if runs.add(run) { updateCharge() }
        return place.partition
    }

    /// Appends the records of `block` from `offset` on until the block ends or the aggregate is full.
    ///
    /// The inner loop of the agent: one cut and one copy a record, no call that is not inlined, no allocation.
    /// - Parameters:
    ///   - offset: where the next record starts; moved past those that were taken.
    ///   - longest: bytes of a record at most; the loop stops before a longer one.
    ///   - source: the source the block came from.
    ///   - position: of the next record in it; moved past those that were taken.
    mutating func append<Cut: RecordCut>(
        _ block: Span<UInt8>,
        as cut: Cut.Type,
        from offset: inout Int,
        longest: Int,
        under key: borrowing RecordKey,
        source: UInt32,
        position: inout UInt64,
        receipt: Instant
    ) -> BlockStop {
        let (partitionKey, explicitHashKey) = (key.partitionKey.span, key.explicitHashKey.span)
        var place = place(of: partitionKey, explicitHashKey)
        let start = offset
        let before = recordCount
        var stop = BlockStop.blockEnded
        while offset < block.count {
            let count = Cut.next(in: block, at: offset).data.count
            if count > longest {
                stop = .longRecord
                break
            }
            if isEmpty {
                open(at: key.hash, receipt: receipt)
                firstKey = copy key
                add(partitionKey, explicitHashKey, key.hash, &place)
            } else if !place.isKnown {
                let cost = cost(adding: count, partitionKey, explicitHashKey, place)
                if size + cost > maxSize || !hasRoomForRecord || !hasRoomForKey {
                    stop = .aggregateFull
                    break
                }
                add(partitionKey, explicitHashKey, key.hash, &place)
            }
            let frame = place.frame
            if !put(block, as: cut, &offset, longest, frame) {
                stop = .aggregateFull
                break
            }
        }
        if recordCount > before {
            let end = position + UInt64(offset - start - (recordCount - before) * Cut.head)
            let run = Run(source: source, first: position, end: end, records: recordCount - before)
            if runs.add(run) { updateCharge() }
            position = end
        }
        return stop
    }

    /// Appends the lines of `block` from `offset` on, without their line ends.
    ///
    /// - Parameters:
    ///   - block: whole lines, as `LineCut` cuts them.
    ///   - position: the position of the block's first byte in its source.
    public mutating func appendLines(
        of block: Span<UInt8>,
        from offset: inout Int,
        longest: Int,
        under key: borrowing RecordKey,
        source: UInt32,
        position: UInt64,
        receipt: Instant
    ) -> BlockStop {
        var next = position + UInt64(offset)
        return append(
            block,
            as: LineCut.self,
            from: &offset,
            longest: longest,
            under: key,
            source: source,
            position: &next,
            receipt: receipt
        )
    }

    /// Why a block was left.
    public enum BlockStop: Equatable {
        /// Every record was taken.
        case blockEnded
        /// Seal, and go on.
        case aggregateFull
        /// The next record is longer than `longest`.
        case longRecord
    }

    /// Ends the aggregate and starts the next; nil when it is empty.
    public mutating func seal() -> SealedAggregate? {
        guard !isEmpty, let key = firstKey.take() else { return nil }
        var bytes = PooledBytes(emptyFrom: pool)
        swap(&bytes, &memory)
        let data: Range<Int>
        if recordCount == 1 {
            data = firstPayload
        } else {
            data = writeFront(into: &bytes)
        }
        let sealed = SealedAggregate(
            bytes: bytes,
            data: data,
            owesChecksum: recordCount > 1,
            recordCount: recordCount,
            userBytes: userBytes,
            key: SealedAggregate.Key(
                partitionKey: recordCount == 1 ? key.partitionKey : SealedAggregate.aggregatePartitionKey,
                explicitHashKey: recordCount == 1 && key.explicitHashKey.isEmpty ? nil : key.hash
            ),
            hashes: hashes,
            origin: SealedAggregate.Origin(runs: runs.take(keeping: keepsTables ? Self.keptRuns : 0), pool: pool),
            firstReceipt: firstReceipt!
        )
        // One record above the limit says nothing about the next aggregate.
        usualSize = min(used + Self.tailroom, maxSize + maxSize / 8 + 512)
        // Of about as many keys: else all its records were moved for the tables, once they are known.
        headroom = max(Self.leastHeadroom, min(Self.magic.count + tablesSize + tablesSize / 8, maxSize / 2))
        (recordCount, userBytes, firstReceipt, used, end) = (0, 0, nil, headroom, 0)
        (serial, tablesSize) = (serial + 1, 0)
        partitionKeys.removeAll(keepingMemory: keepsTables)
        explicitHashKeys.removeAll(keepingMemory: keepsTables)
        updateCharge()
        return sealed
    }

    /// Writes the magic and the key tables right before the records; the checksum's place behind them is left.
    private mutating func writeFront(into bytes: inout PooledBytes) -> Range<Int> {
        let missing = max(0, Self.magic.count + tablesSize - headroom)
        if missing > 0 {
            // Many distinct keys: make room in front, once an aggregate.
            bytes.grow(
                toAtLeast: used + missing + Self.tailroom,
                keeping: headroom..<used,
                movedBy: missing
            )
        }
        let records = headroom + missing
        let end = used + missing
        let start = records - tablesSize - Self.magic.count
        var at = unsafe bytes.base + start
        unsafe Self.magic.withUnsafeBytes { unsafe at.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        unsafe at += Self.magic.count
        for table in 0..<2 {
            let encoded = unsafe table == 0 ? partitionKeys.encoded.bytes : explicitHashKeys.encoded.bytes
            guard encoded.count > 0 else { continue }
            unsafe at.copyMemory(from: encoded.baseAddress!, byteCount: encoded.count)
            unsafe at += encoded.count
        }
        return start..<end + Self.checksumSize
    }
}

extension AggregateWriter {
    /// Where a record's keys stand in the tables: those that are not there have no index yet.
    fileprivate struct Place {
        var partition: Int?
        let partitionHash: UInt64
        var explicit: Int?
        let explicitHash: UInt64
        let hasExplicit: Bool

        @inline(__always)
        var isKnown: Bool { partition != nil && (!hasExplicit || explicit != nil) }

        /// Of records under these keys; only when they are known.
        @inline(__always)
        var frame: RecordFrame { RecordFrame(partition!, hasExplicit ? explicit : nil) }
    }

    /// Keys of one kind an aggregate may hold, so that an index takes two bytes.
    private static let mostKeys = 1 << 14

    private var hasRoomForRecord: Bool { maxRecords == 0 || recordCount < maxRecords }
    private var hasRoomForKey: Bool { partitionKeys.count < Self.mostKeys && explicitHashKeys.count < Self.mostKeys }

    @inline(__always)
    private func place(of partitionKey: Span<UInt8>, _ explicitHashKey: Span<UInt8>) -> Place {
        let partitionHash = KeyTable.hash(partitionKey)
        let hasExplicit = !explicitHashKey.isEmpty
        let explicitHash = hasExplicit ? KeyTable.hash(explicitHashKey) : 0
        return Place(
            partition: partitionKeys.index(of: partitionKey, partitionHash),
            partitionHash: partitionHash,
            explicit: hasExplicit ? explicitHashKeys.index(of: explicitHashKey, explicitHash) : nil,
            explicitHash: explicitHash,
            hasExplicit: hasExplicit
        )
    }

    @inline(__always)
    private func cost(
        adding count: Int,
        _ partitionKey: Span<UInt8>,
        _ explicitHashKey: Span<UInt8>,
        _ place: Place
    ) -> Int {
        var cost = place.partition == nil ? KeyTable.cost(of: partitionKey.count) : 0
        if place.hasExplicit, place.explicit == nil { cost += KeyTable.cost(of: explicitHashKey.count) }
        let frame = RecordFrame(
            place.partition ?? partitionKeys.count,
            place.hasExplicit ? place.explicit ?? explicitHashKeys.count : nil
        )
        return cost + frame.size(of: count)
    }

    private mutating func open(at hash: HashKey, receipt: Instant) {
        guard isEmpty else { return }
        memory = PooledBytes(atLeast: max(usualSize, headroom + 512), from: pool)
        firstReceipt = receipt
        hashes = hash...hash
    }

    @inline(__always)
    private mutating func include(_ hash: HashKey) {
        if !hashes.contains(hash) { hashes = min(hashes.lowerBound, hash)...max(hashes.upperBound, hash) }
    }

    private mutating func add(
        _ partitionKey: Span<UInt8>,
        _ explicitHashKey: Span<UInt8>,
        _ hash: HashKey,
        _ place: inout Place
    ) {
        include(hash)
        guard !place.isKnown else { return }
        if place.partition == nil { place.partition = partitionKeys.add(partitionKey, place.partitionHash) }
        if place.hasExplicit, place.explicit == nil {
            place.explicit = explicitHashKeys.add(explicitHashKey, place.explicitHash)
        }
        tablesSize = partitionKeys.encoded.count + explicitHashKeys.encoded.count
        end = 0
        updateCharge()
    }

    @inline(__always)
    private mutating func updateCharge() {
        let bytes = partitionKeys.footprint + explicitHashKeys.footprint + runs.footprint
        if bytes != charge.bytes { charge.bytes = bytes }
    }

    @inline(__always)
    private mutating func reserve(_ count: Int) {
        if memory.capacity < used &+ count &+ Self.tailroom { grow(by: count) }
    }

    private mutating func grow(by count: Int) {
        let needed = used + count + Self.tailroom
        // By four: the pool's sizes. What was kept free in front may be more than the tables take, and the end past what was
        // foreseen: by a little more than it needs then, or each record from there on would move all before it.
        var size = min(memory.capacity * 4, maxSize + 512)
        if size < needed { size = used == headroom ? needed : needed + needed / 16 }
        // Only the records move; the tables are not written yet.
        memory.grow(toAtLeast: size, keeping: headroom..<used)
    }

    @inline(__always)
    @unsafe
    private mutating func put(_ record: UnsafeRawBufferPointer, _ frame: RecordFrame) {
        let length = frame.length(of: record.count)
        let payload = unsafe frame.write(record, length: length, at: memory.base + used) - memory.base
        if recordCount == 0 { firstPayload = payload..<payload + record.count }
        used = payload + record.count
        recordCount += 1
        userBytes += record.count
    }

    /// The same for a record that is not the first, with room for it.
    @inline(__always)
    @unsafe
    private mutating func putNext(_ record: UnsafeRawPointer, _ count: Int, _ frame: RecordFrame, _ length: Int) {
        let base = unsafe memory.base
        let payload = unsafe frame.write(record, count: count, length: length, at: base + used) - base
        tookNext(count, till: payload &+ count)
    }

    @inline(__always)
    private mutating func tookNext(_ count: Int, till end: Int) {
        used = end
        recordCount &+= 1
        userBytes &+= count
    }

    /// Takes records until the block ends, one is longer than `longest`, or the aggregate is full, which it returns as
    /// false.
    @inline(__always)
    private mutating func put<Cut: RecordCut>(
        _ block: Span<UInt8>,
        as cut: Cut.Type,
        _ offset: inout Int,
        _ longest: Int,
        _ frame: RecordFrame
    ) -> Bool {
        // How far the records may reach: `size` is a sum of which nothing else changes here.
        let end = used + maxSize - size
        let mostRecords = maxRecords == 0 ? Int.max : maxRecords
        // In registers: through the writer each would wait for the last record's.
        var (from, at, count, bytes) = (offset, used, recordCount, 0)
        var (base, room) = unsafe (memory.base, memory.capacity - Self.tailroom)
        var isFull = false
        while from < block.count {
            let (data, next) = Cut.next(in: block, at: from)
            if data.count > longest { break }
            let length = frame.length(of: data.count)
            let cost = RecordFrame.size(ofLength: length)
            isFull = count > 0 && (at &+ cost > end || count >= mostRecords)
            if isFull { break }
            if at &+ cost > room {
                used = at
                grow(by: cost)
                unsafe (base, room) = (memory.base, memory.capacity - Self.tailroom)
            }
            let record = unsafe block.extracting(unchecked: data)
            let payload = unsafe record.withUnsafeBytes { unsafe frame.write($0, length: length, at: base + at) - base }
            if count == 0 { firstPayload = payload..<payload + data.count }
            at = payload &+ data.count
            count &+= 1
            bytes &+= data.count
            from = next
        }
        (offset, used, recordCount) = (from, at, count)
        userBytes += bytes
        return !isFull
    }
}
