public import Bytes

// Concurrency: an aggregator belongs to its lane's thread.

/// The open aggregates of a stream's shards: finds each record's shard and appends it there.
public struct Aggregator: ~Copyable {
    /// How a record's place is chosen.
    public enum Placement: Equatable, Sendable {
        /// To the shard with the most room; aggregates fill at once.
        case spread
        /// To a random shard for each record, by the shards' widths.
        case random
        /// By the key that comes with each block, or with each record; a record whose own is empty, or no text: as `random` does.
        case key
        /// By the value that the pointer finds in a record; a record without one: as `random` does.
        case field(JSONPointer)
    }

    public struct Limits: Sendable {
        /// Bytes of an aggregate.
        public var size = 50 << 10
        /// Records of an aggregate; 0: as many as fit.
        public var records = 0
        /// Bytes of a record; longer ones are split, truncated or set aside.
        public var record = Kinesis.Limits.longestRecord()
        /// What becomes of a line, or another record, above `record`.
        public var longLines = LongLines.split
        public var compression = Compression.none

        public init() {}
    }

    /// What becomes of a line that is longer than a record may be.
    public enum LongLines: Sendable {
        /// It is sent as several records.
        case split
        /// Its rest is dropped.
        case truncate
        /// It is not sent at all: `takeSetAside` has it.
        case setAside
    }

    private let placement: Placement
    private var limits: Limits
    public let map: ShardMap
    private var writers: FixedArray<ShardWriter>
    /// For placement without a key: each shard's own.
    private let shardKeys: [RecordKey]
    /// For placement by a field.
    private let fieldKeys: FieldKeys?
    /// For records without a key, where others have keys of their own.
    private var drawnKeys: DrawnKeys?
    /// Records that are placed by keys of their own.
    private var batch = KeyBatch()
    private let md5 = MD5()
    private var random: SplitMix64
    private var spread: Spread
    /// The shard that `spread` fills now.
    private var current = 0
    private var open: OpenShards

    /// Kinesis records sealed since the last `takeSealed`.
    private var sealed = 0
    /// User records and bytes taken in since the last `takeCounts`.
    private var records = 0
    private var bytes = 0
    private var oversize = 0
    private var keyless = 0
    private var setAside: [(line: [UInt8], run: Run)] = []

    /// With more, what each would keep for its next aggregate is too much.
    private static let fewShards = 256

    /// The partition key of records that are placed without one.
    public static let anyPartitionKey = Array("a".utf8)

    /// - Parameter seed: for `spread`'s order and `random`'s choices: agents must differ.
    public init(_ placement: Placement, _ limits: Limits, map: ShardMap, pool: BufferPool, seed: UInt64) {
        (self.placement, self.limits, self.map) = (placement, limits, map)
        random = SplitMix64(seed: seed)
        if case .field(let pointer) = placement { fieldKeys = FieldKeys(pointer) } else { fieldKeys = nil }
        let gzip = GzipWriter()
        let keepsTables = map.count <= Self.fewShards
        writers = FixedArray(count: map.count) { _ in
            ShardWriter(
                limits.compression,
                maxSize: limits.size,
                maxRecords: limits.records,
                pool: pool,
                keepsTables: keepsTables,
                gzip: gzip
            )
        }
        // All records of such an aggregate have one hash key, so whatever becomes of the shard, they stay together.
        shardKeys = map.shards.map { RecordKey(partitionKey: Self.anyPartitionKey, explicit: $0.range.lowerBound) }
        spread = Spread(count: map.count, seed: random.next())
        open = OpenShards(shards: map.count)
    }

    /// Says how long a line may be from now on, and what becomes of a longer one: inputs differ.
    public mutating func limitLines(to longest: Int, _ longLines: LongLines) {
        limits.record = longest
        limits.longLines = longLines
    }

    /// Takes the lines of a block, each a record.
    ///
    /// - Parameters:
    ///   - block: whole lines.
    ///   - key: where the placement needs one.
    ///   - position: of the block's first byte in its source.
    ///   - batcher: gets the aggregates that are full.
    public mutating func take(
        lines block: Span<UInt8>,
        under key: RecordKey?,
        source: UInt32,
        position: UInt64,
        receipt: Instant,
        into batcher: inout Batcher
    ) {
        take(block, as: LineCut.self, under: key, source, position, receipt, &batcher)
    }

    /// Takes the records of a block, each with its length in front (`RecordHead.counted` bytes).
    ///
    /// - Parameter position: of the first record in its source; the lengths do not count.
    public mutating func take(
        records block: Span<UInt8>,
        under key: RecordKey?,
        source: UInt32,
        position: UInt64,
        receipt: Instant,
        into batcher: inout Batcher
    ) {
        take(block, as: CountedCut.self, under: key, source, position, receipt, &batcher)
    }

    private mutating func take<Cut: RecordCut>(
        _ block: Span<UInt8>,
        as cut: Cut.Type,
        under key: RecordKey?,
        _ source: UInt32,
        _ start: UInt64,
        _ receipt: Instant,
        _ batcher: inout Batcher
    ) {
        var (offset, position) = (0, start)
        while offset < block.count {
            if let fieldKeys {
                takeKeyed(block, as: cut, by: fieldKeys, &offset, source, &position, receipt, &batcher)
                continue
            }
            if placement == .random {
                takeOne(of: block, as: cut, &offset, nil, source, &position, receipt, &batcher)
                continue
            }
            let shard = key.map { map.index(of: $0.hash) } ?? roomiest(batcher, receipt)
            let wasEmpty = writers[shard].isEmpty
            if wasEmpty { limitSize(of: shard, batcher, receipt) }
            let before = (writers[shard].recordCount, writers[shard].userBytes)
            let stop: AggregateWriter.BlockStop
            if let key {
                stop = writers[shard].append(
                    block,
                    as: cut,
                    from: &offset,
                    longest: limits.record,
                    under: key,
                    source: source,
                    position: &position,
                    receipt: receipt
                )
            } else {
                stop = writers[shard].append(
                    block,
                    as: cut,
                    from: &offset,
                    longest: limits.record,
                    under: shardKeys[shard],
                    source: source,
                    position: &position,
                    receipt: receipt
                )
            }
            records += writers[shard].recordCount - before.0
            bytes += writers[shard].userBytes - before.1
            if wasEmpty, !writers[shard].isEmpty { open.append(shard) }
            switch stop {
            case .blockEnded: break
            case .aggregateFull: seal(shard, &batcher)
            case .longRecord: takeOne(of: block, as: cut, &offset, key, source, &position, receipt, &batcher)
            }
        }
    }

    /// Takes the records of a block, each with its length, the length of its partition key, and that key in front
    /// (`RecordHead.keyed` bytes and the key).
    ///
    /// - Parameter position: of the first record in its source; the heads and keys do not count.
    public mutating func take(
        keyed block: Span<UInt8>,
        source: UInt32,
        position: UInt64,
        receipt: Instant,
        into batcher: inout Batcher
    ) {
        var (offset, position) = (0, position)
        // Another configuration may have come since.
        let hasKeys = placement == .key
        while offset < block.count {
            batch.begin(block, from: source)
            if hasKeys {
                batch.addKeyed(of: block, from: &offset, position: &position)
            } else {
                addOtherwise(block, &offset, &position)
            }
            placeBatch(of: block, receipt, &batcher)
        }
    }

    /// Adds records that have keys in front to the batch, under a field's where the placement wants that, or none.
    private mutating func addOtherwise(_ block: Span<UInt8>, _ offset: inout Int, _ position: inout UInt64) {
        while offset < block.count, !batch.isFull {
            let data = RecordHead.keyed(in: block, at: offset).data
            let end = position + UInt64(data.count)
            if let fieldKeys {
                batch.add(data, first: position, end: end, keyOf: fieldKeys, in: block.extracting(data))
            } else {
                batch.add(data, first: position, end: end, key: 0..<0)
            }
            (offset, position) = (data.upperBound, end)
        }
    }

    /// Takes records of a block, each under the key that it names.
    private mutating func takeKeyed<Cut: RecordCut>(
        _ block: Span<UInt8>,
        as cut: Cut.Type,
        by fieldKeys: FieldKeys,
        _ offset: inout Int,
        _ source: UInt32,
        _ position: inout UInt64,
        _ receipt: Instant,
        _ batcher: inout Batcher
    ) {
        batch.begin(block, from: source)
        while offset < block.count, !batch.isFull {
            let (data, next) = Cut.next(in: block, at: offset)
            let end = position + UInt64(next - offset - Cut.head)
            batch.add(data, first: position, end: end, keyOf: fieldKeys, in: block.extracting(data))
            (offset, position) = (next, end)
        }
        placeBatch(of: block, receipt, &batcher)
    }

    /// Puts the records of the batch where their keys say.
    private mutating func placeBatch(
        of block: Span<UInt8>,
        _ receipt: Instant,
        _ batcher: inout Batcher
    ) {
        batch.place(by: map, in: writers)
        while true {
            batch.next = appendKnown(from: batch.next, of: block)
            let index = batch.next
            guard index < batch.count else { break }
            batch.forgetIndex(of: index)
            batch.next += 1
            let entry = unsafe batch.entries + index
            let record = unsafe block.extracting(unchecked: entry.pointee.data)
            if unsafe entry.pointee.hasKey, record.count <= limits.record {
                let shard = unsafe entry.pointee.shard
                if writers[shard].isEmpty { limitSize(of: shard, batcher, receipt) }
                if !append(record, index, receipt) {
                    sealFull(shard, receipt, &batcher)
                    // The first of an aggregate is always taken.
                    _ = append(record, index, receipt)
                }
                tookOne(of: record.count, in: shard, &batcher)
            } else {
                let key = unsafe entry.pointee.hasKey ? batch.recordKey(of: index) : drawnKey()
                take(record: record, under: key, from: batch.run(of: index), receipt: receipt, into: &batcher)
            }
        }
        batch.end()
    }

    /// Appends records of the batch, from one on, until one's key has no index in its shard's aggregate, or no room there.
    ///
    /// - Returns: which one that is.
    @inline(never)
    private mutating func appendKnown(from start: Int, of block: Span<UInt8>) -> Int {
        guard let base = unsafe block.withUnsafeBytes({ $0.baseAddress }) else { return start }
        let (count, longest) = (batch.count, limits.record)
        var (index, taken) = (start, 0)
        while index < count {
            let entry = unsafe batch.entries + index
            let (place, data) = unsafe (entry.pointee.index, entry.pointee.data)
            let size = data.upperBound &- data.lowerBound
            // Shards are the map's, and records were cut out of this block: neither is looked at again.
            guard place >= 0, size <= longest,
                unsafe writers[unchecked: entry.pointee.shard].append(
                    base + data.lowerBound,
                    count: size,
                    underKnown: place,
                    from: batch.run(of: index)
                )
            else { break }
            taken &+= size
            index &+= 1
        }
        records += index - start
        bytes += taken
        return index
    }

    /// Appends a record of the batch to its shard's aggregate; false if that must be sealed first.
    private mutating func append(_ record: Span<UInt8>, _ place: Int, _ receipt: Instant) -> Bool {
        let entry = unsafe batch.entries + place
        let shard = unsafe entry.pointee.shard
        let index = unsafe writers[unchecked: shard].append(
            record,
            under: Span(_unsafeBytes: batch.key(of: place)),
            entry.pointee.tableHash,
            at: entry.pointee.hash,
            from: batch.run(of: place),
            receipt: receipt
        )
        guard let index else { return false }
        batch.setIndex(of: place, in: writers[shard].serial, to: index)
        return true
    }

    /// Takes one record; a longer one than a record may be becomes what such a line does.
    ///
    /// - Parameter run: where it came from, its first byte first.
    public mutating func take(
        record: Span<UInt8>,
        under key: RecordKey?,
        from run: Run,
        receipt: Instant,
        into batcher: inout Batcher
    ) {
        if key == nil, let fieldKeys {
            batch.begin(record, from: run.source)
            batch.add(record.indices, first: run.first, end: run.end, keyOf: fieldKeys, in: record)
            return placeBatch(of: record, receipt, &batcher)
        }
        guard record.count <= limits.record else { return takeLong(record, key, run, receipt, &batcher) }
        let shard =
            switch placement {
            case .spread: roomiest(batcher, receipt)
            case .random: map.index(of: HashKey(UInt128(random.next()) << 64 | UInt128(random.next())))
            case .key, .field: key.map { map.index(of: $0.hash) } ?? roomiest(batcher, receipt)
            }
        let key = key ?? shardKeys[shard]
        if writers[shard].isEmpty { limitSize(of: shard, batcher, receipt) }
        if !writers[shard].append(record, under: key, from: run, receipt: receipt) {
            sealFull(shard, receipt, &batcher)
            // The first of an aggregate is always taken.
            _ = writers[shard].append(record, under: key, from: run, receipt: receipt)
        }
        tookOne(of: record.count, in: shard, &batcher)
    }

    /// A key for a record without the one that the placement wants; nil where it wants none.
    private mutating func drawnKey() -> RecordKey? {
        guard placement == .key || fieldKeys != nil else { return nil }
        keyless += 1
        var keys = drawnKeys.take() ?? DrawnKeys(shards: map.count)
        let key = keys.next(random.next(), map, md5)
        drawnKeys = keys
        return key
    }

    private mutating func sealFull(_ shard: Int, _ receipt: Instant, _ batcher: inout Batcher) {
        seal(shard, &batcher)
        limitSize(of: shard, batcher, receipt)
    }

    @inline(__always)
    private mutating func tookOne(of count: Int, in shard: Int, _ batcher: inout Batcher) {
        if writers[shard].recordCount == 1 { open.append(shard) }
        records += 1
        bytes += count
        if writers[shard].recordCount == 1, writers[shard].size >= writers[shard].maxSize { seal(shard, &batcher) }
    }

    private mutating func takeOne<Cut: RecordCut>(
        of block: Span<UInt8>,
        as cut: Cut.Type,
        _ offset: inout Int,
        _ key: RecordKey?,
        _ source: UInt32,
        _ position: inout UInt64,
        _ receipt: Instant,
        _ batcher: inout Batcher
    ) {
        let (data, next) = Cut.next(in: block, at: offset)
        let end = position + UInt64(next - offset - Cut.head)
        let run = Run(source: source, first: position, end: end)
        take(record: block.extracting(data), under: key, from: run, receipt: receipt, into: &batcher)
        (offset, position) = (next, end)
    }

    /// Splits, truncates or sets aside a record that is longer than one may be.
    private mutating func takeLong(
        _ record: Span<UInt8>,
        _ key: RecordKey?,
        _ run: Run,
        _ receipt: Instant,
        _ batcher: inout Batcher
    ) {
        oversize += 1
        if limits.longLines == .setAside {
            unsafe record.withUnsafeBytes { setAside.append((unsafe Array($0), run)) }
            records += 1
            return
        }
        var offset = 0
        while offset < record.count {
            let cut = Self.cut(record, from: offset, to: record.count, most: limits.record)
            let isLast = limits.longLines == .truncate || cut == record.count
            let first = run.first + UInt64(offset)
            let piece = Run(source: run.source, first: first, end: isLast ? run.end : run.first + UInt64(cut))
            take(record: record.extracting(offset..<cut), under: key, from: piece, receipt: receipt, into: &batcher)
            if isLast { return }
            offset = cut
        }
    }

    /// Where a piece of at most `most` bytes ends so that no UTF-8 sequence is torn.
    static func cut(_ bytes: Span<UInt8>, from start: Int, to end: Int, most: Int) -> Int {
        guard end - start > most else { return end }
        var at = start + most
        while at > start + 1, at > start + most - 3, bytes[at] & 0xc0 == 0x80 { at -= 1 }
        return bytes[at] & 0xc0 == 0x80 ? start + most : at
    }

    /// Lines that were too long, since the last call.
    public mutating func takeSetAside() -> [(line: [UInt8], run: Run)] {
        guard !setAside.isEmpty else { return [] }
        defer { setAside = [] }
        return setAside
    }

    // MARK: sealing

    /// The shard to fill: chosen when an aggregate begins, and kept until it is sealed.
    private mutating func roomiest(_ batcher: borrowing Batcher, _ now: Instant) -> Int {
        if writers[current].isEmpty { current = spread.next(batcher, now: now) }
        return current
    }

    /// Says how large the next aggregate of a shard may become.
    private mutating func limitSize(of shard: Int, _ batcher: borrowing Batcher, _ now: Instant) {
        writers[shard].maxSize = batcher.pacer.aggregateSize(most: limits.size, now: now)
    }

    private mutating func seal(_ shard: Int, _ batcher: inout Batcher) {
        guard let aggregate = writers[shard].seal() else { return }
        batch.forgetIndices(in: shard)
        sealed += 1
        open.remove(shard)
        batcher.add(aggregate, to: shard)
    }

    /// Seals every open aggregate whose oldest record was taken in at `limit` or before.
    public mutating func sealDue(
        before limit: Instant,
        into batcher: inout Batcher
    ) {
        while let shard = open.oldest, writers[shard].firstReceipt! <= limit { seal(shard, &batcher) }
    }

    /// Seals what `spread` fills when a call that leaves for its linger has room for it.
    ///
    /// Its records would wait for the call after that, whose linger then began with them: half as long as it takes to fill
    /// an aggregate, on the average, at the price of a smaller one a call.
    public mutating func sealAlong(into batcher: inout Batcher, now: Instant) {
        guard placement == .spread, !open.isEmpty else { return }
        if batcher.takesAlong(writers[current].size, to: current, now: now) { seal(current, &batcher) }
    }

    /// Seals every open aggregate.
    public mutating func sealAll(into batcher: inout Batcher) {
        while let shard = open.oldest { seal(shard, &batcher) }
    }

    /// Seals the largest open aggregates, until so many bytes are sealed: when memory for open ones is used up.
    public mutating func sealLargest(_ bytes: Int, into batcher: inout Batcher) {
        var left = bytes
        for shard in open.sorted(by: { writers[$0].size > writers[$1].size }) {
            guard left > 0 else { return }
            left -= writers[shard].size
            seal(shard, &batcher)
        }
    }

    public var isEmpty: Bool { open.isEmpty }

    /// The receipt of the oldest record in an open aggregate.
    public var oldestReceipt: Instant? {
        open.oldest.map { writers[$0].firstReceipt! }
    }

    /// How many Kinesis records were sealed since the last call.
    public mutating func takeSealed() -> Int {
        defer { sealed = 0 }
        return sealed
    }

    /// User records, their bytes, lines that were too long, and records without the key they are placed by, since the last
    /// call.
    public mutating func takeCounts() -> (records: Int, bytes: Int, oversize: Int, keyless: Int) {
        defer { (records, bytes, oversize, keyless) = (0, 0, 0, 0) }
        return (records, bytes, oversize, keyless)
    }

    /// Puts aggregates that were not taken back in front of their shards' lines; those that `spread` had placed go to the
    /// shard with the most room now.
    ///
    /// - Parameters:
    ///   - refusal: the same for all of them.
    ///   - pool: where the memory of those that are placed anew comes from.
    ///   - random: for how long each shard that refused something is left alone.
    /// - Returns: those that were placed anew and what they are now, which settles in their stead; and those that no
    ///   single shard holds by this map, for the caller to regroup.
    public mutating func putBack(
        _ aggregates: [SealedAggregate],
        because refusal: Batcher.Refusal,
        into batcher: inout Batcher,
        pool: BufferPool,
        random: inout SplitMix64,
        now: Instant
    ) -> (moved: [(before: SealedAggregate, after: SealedAggregate)], homeless: [SealedAggregate]) {
        var moved: [(before: SealedAggregate, after: SealedAggregate)] = []
        var homeless: [SealedAggregate] = []
        var placed: [(shard: Int, aggregate: SealedAggregate)] = []
        for aggregate in aggregates {
            guard let shard = map.index(ofAll: aggregate.hashes) else {
                homeless.append(aggregate)
                continue
            }
            batcher.refused(aggregate, by: shard, because: refusal, chance: random.nextUnit(), now: now)
            placed.append((shard, aggregate))
        }
        // Every shard that refused is known before one is chosen.
        if placement == .spread, refusal != .unanswered {
            for (place, (_, aggregate)) in placed.enumerated() {
                let shard = spread.next(batcher, now: now)
                guard let after = aggregate.moved(to: shardKeys[shard].hash, pool: pool) else { continue }
                moved.append((aggregate, after))
                placed[place] = (shard, after)
            }
        }
        for (shard, placed) in Dictionary(grouping: placed, by: \.shard).sorted(by: { $0.key < $1.key }) {
            batcher.putBack(placed.map(\.aggregate), to: shard)
        }
        return (moved, homeless)
    }

    /// Makes aggregates by this map out of one whose records no single shard holds any more.
    ///
    /// - Returns: each with its shard; they settle the origin together.
    public func regroup(_ aggregate: SealedAggregate, pool: BufferPool) -> [(aggregate: SealedAggregate, shard: Int)] {
        // A single record has one place, whatever the map says; its content may well look like an aggregate.
        let users = aggregate.recordCount == 1 ? nil : aggregate.withData { Deaggregator().userRecords(of: $0) }
        guard let users else {
            return [(aggregate, map.index(of: aggregate.hashes.lowerBound))]
        }
        let none = Run(source: 0, first: 0, end: 0)
        var pieces: [(aggregate: SealedAggregate, shard: Int)] = []
        let shards = users.map { map.index(of: $0.hashKey(md5)) }
        for shard in Set(shards).sorted() {
            var writer = AggregateWriter(maxSize: limits.size, pool: pool)
            for (user, place) in zip(users, shards) where place == shard {
                let key =
                    user.explicitHashKey == nil
                    ? RecordKey(partitionKey: user.partitionKey, md5)
                    : RecordKey(partitionKey: user.partitionKey, explicit: user.hashKey(md5))
                if !writer.append(user.data.span, under: key, from: none, receipt: aggregate.firstReceipt) {
                    if let full = writer.seal() { pieces.append((full, shard)) }
                    _ = writer.append(user.data.span, under: key, from: none, receipt: aggregate.firstReceipt)
                }
            }
            if let last = writer.seal() { pieces.append((last, shard)) }
        }
        // Several generations of regrouping settle the first.
        aggregate.origin.unsettled += pieces.count - 1
        for piece in pieces { piece.aggregate.becomePiece(of: aggregate) }
        return pieces
    }
}
