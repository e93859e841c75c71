internal import Bytes
internal import CMD5

// Concurrency: belongs to its lane's thread.

/// Records of a block on their way to the shards that their partition keys name.
///
/// They are placed together: MD5 takes hardly longer for as many keys as a processor has lanes than for one, and what a record
/// needs from memory arrives while others are looked at.
@safe
struct KeyBatch: ~Copyable {
    /// As many as go through the widest vectors at once.
    static let most = 32

    /// A record on its way to its shard: less than two lines of the cache.
    struct Entry {
        /// Its key's, by MD5; only where the index is not known.
        fileprivate(set) var hash = HashKey.lowest
        /// The key, if it is short.
        fileprivate var short = ShortKey.empty
        /// The key's, by `KeyTable.hash`.
        fileprivate(set) var tableHash: UInt64 = 0
        /// Its first byte's position in its source, and that of the byte behind it.
        fileprivate var (first, end) = (0 as UInt64, 0 as UInt64)
        /// Where it lies in its block.
        fileprivate var (start, count) = (0 as UInt32, 0 as UInt32)
        /// Where its partition key lies in the block, or among those that were decoded; empty if it has none.
        fileprivate var (keyStart, keyCount) = (0 as UInt32, 0 as UInt32)
        /// Where the memory may have the key.
        fileprivate var matches: UInt32 = 0
        fileprivate var (shardNumber, indexNumber) = (0 as Int32, -1 as Int32)
        fileprivate var (isShort, isDecoded) = (false, false)

        @inline(__always)
        var hasKey: Bool { keyCount > 0 }
        /// The shard that takes its key.
        @inline(__always)
        var shard: Int { Int(truncatingIfNeeded: shardNumber) }
        /// The key's index in the open aggregate of that shard; -1: not known.
        @inline(__always)
        var index: Int { Int(truncatingIfNeeded: indexNumber) }
        @inline(__always)
        var data: Range<Int> {
            let start = Int(truncatingIfNeeded: start)
            return unsafe Range(uncheckedBounds: (start, start &+ Int(truncatingIfNeeded: count)))
        }
    }

    let entries: UnsafeMutablePointer<Entry>
    private(set) var count = 0
    /// The first that has not been appended.
    var next = 0
    /// The block in which the records lie, and the source they came from.
    private var block: UnsafeRawBufferPointer
    private var source: UInt32 = 0
    /// Keys that do not lie in the block as they are.
    private var decoded = ByteWriter(capacity: 0)
    private var memory = KeyMemory()
    /// Whether these records' keys are looked up there.
    private var looks = false
    /// Those whose keys the memory does not have: the short ones from the first place on, the others from the last one back.
    private let unknown: UnsafeMutablePointer<Int>
    /// For the short ones, as MD5 takes them.
    private let blocks: UnsafeMutableRawPointer
    private let messages: UnsafeMutablePointer<cmd5_message>
    private let sums: UnsafeMutablePointer<UInt8>
    private let lanes = cmd5_best()

    init() {
        unsafe block = .init(start: nil, count: 0)
        unsafe entries = .allocate(capacity: Self.most)
        unsafe entries.initialize(repeating: Entry(), count: Self.most)
        unsafe unknown = .allocate(capacity: Self.most)
        unsafe blocks = .allocate(byteCount: Self.most * 64, alignment: 64)
        unsafe messages = .allocate(capacity: Self.most)
        unsafe sums = .allocate(capacity: Self.most * 16)
        unsafe sums.initialize(repeating: 0, count: Self.most * 16)
    }

    deinit {
        unsafe entries.deallocate()
        unsafe unknown.deallocate()
        unsafe blocks.deallocate()
        unsafe messages.deallocate()
        unsafe sums.deallocate()
    }

    @inline(__always)
    var isFull: Bool { count == Self.most }

    /// Starts with records of `block`, which stays where it is until the last of them is placed, and came from `source`.
    mutating func begin(_ block: Span<UInt8>, from source: UInt32) {
        precondition(block.count <= UInt32.max, "a block is less than 4 GiB")
        (count, next, self.source) = (0, 0, source)
        decoded.clear()
        unsafe self.block = block.withUnsafeBytes { unsafe $0 }
        looks = memory.isWorthALook()
    }

    /// Ends with them.
    mutating func end() { (count, next) = (0, 0) }

    /// Adds a record.
    ///
    /// - Parameters:
    ///   - data: where it lies in the block.
    ///   - first: its first byte's position in its source.
    ///   - end: that of the byte behind it.
    ///   - key: where its partition key lies in the block; empty if it has none.
    @inline(__always)
    mutating func add(_ data: Range<Int>, first: UInt64, end: UInt64, key: Range<Int>) {
        unsafe add(data, first, end, key, in: block, isDecoded: false)
    }

    /// Adds records that have their lengths and partition keys in front, until the block ends or the batch is full.
    ///
    /// - Parameters:
    ///   - block: the one it began with.
    ///   - offset: where the next record's lengths lie; moved past those that were added.
    ///   - position: of that record in its source; moved as far.
    @inline(never)
    mutating func addKeyed(of block: Span<UInt8>, from offset: inout Int, position: inout UInt64) {
        var (at, first, count) = (offset, position, count)
        while at < block.count, count < Self.most {
            let (key, data) = RecordHead.keyed(in: block, at: at)
            let end = first &+ UInt64(truncatingIfNeeded: data.upperBound &- data.lowerBound)
            unsafe set(entries + count, data, first, end, key, in: self.block, isDecoded: false)
            (at, first) = (data.upperBound, end)
            count &+= 1
        }
        (offset, position, self.count) = (at, first, count)
    }

    /// Adds a record whose partition key a field names.
    @inline(__always)
    mutating func add(
        _ data: Range<Int>,
        first: UInt64,
        end: UInt64,
        keyOf fieldKeys: borrowing FieldKeys,
        in record: Span<UInt8>
    ) {
        switch fieldKeys.find(in: record) {
        case nil: unsafe add(data, first, end, 0..<0, in: block, isDecoded: false)
        case .plain(let range):
            let key = data.lowerBound + range.lowerBound..<data.lowerBound + range.upperBound
            unsafe add(data, first, end, key, in: block, isDecoded: false)
        case .escaped(let offset):
            let start = decoded.count
            // It need not be one: then nothing is added.
            _ = JSONPointer.decode(record, from: offset, into: &decoded, most: FieldKeys.most)
            unsafe add(data, first, end, start..<decoded.count, in: decoded.bytes, isDecoded: true)
        }
    }

    /// - Parameters:
    ///   - data: lies within the block.
    ///   - key: lies within `bytes`.
    @inline(__always)
    @unsafe
    private mutating func add(
        _ data: Range<Int>,
        _ first: UInt64,
        _ end: UInt64,
        _ key: Range<Int>,
        in bytes: UnsafeRawBufferPointer,
        isDecoded: Bool
    ) {
        precondition(count < Self.most)
        let entry = unsafe entries + count
        count &+= 1
        unsafe set(entry, data, first, end, key, in: bytes, isDecoded: isDecoded)
    }

    @inline(__always)
    @unsafe
    private func set(
        _ entry: UnsafeMutablePointer<Entry>,
        _ data: Range<Int>,
        _ first: UInt64,
        _ end: UInt64,
        _ key: Range<Int>,
        in bytes: UnsafeRawBufferPointer,
        isDecoded: Bool
    ) {
        let (size, keySize) = (data.upperBound &- data.lowerBound, key.upperBound &- key.lowerBound)
        unsafe (entry.pointee.first, entry.pointee.end) = (first, end)
        unsafe entry.pointee.start = UInt32(truncatingIfNeeded: data.lowerBound)
        unsafe entry.pointee.count = UInt32(truncatingIfNeeded: size)
        unsafe entry.pointee.keyStart = UInt32(truncatingIfNeeded: key.lowerBound)
        unsafe entry.pointee.keyCount = UInt32(truncatingIfNeeded: keySize)
        unsafe (entry.pointee.matches, entry.pointee.indexNumber) = (0, -1)
        unsafe (entry.pointee.isShort, entry.pointee.isDecoded) = (false, isDecoded)
        guard keySize > 0, let base = bytes.baseAddress else { return }
        let text = unsafe base + key.lowerBound
        guard keySize <= ShortKey.longest else {
            let bytes = unsafe UnsafeRawBufferPointer(start: text, count: keySize)
            unsafe entry.pointee.keyCount = Self.isText(bytes) ? UInt32(truncatingIfNeeded: keySize) : 0
            unsafe entry.pointee.tableHash = KeyTable.hash(Span(_unsafeBytes: bytes))
            return
        }
        let short = unsafe ShortKey(text, count: keySize, readable: bytes.count &- key.lowerBound)
        unsafe (entry.pointee.short, entry.pointee.isShort) = (short, true)
        let tableHash = short.tableHash
        unsafe entry.pointee.tableHash = tableHash
        if looks { unsafe entry.pointee.matches = memory.prefetch(tableHash) }
    }

    /// Finds the shards of all records that have a key, and the index of each in its shard's open aggregate; has memory
    /// brought as `AggregateWriter.prefetch` does.
    mutating func place(by map: ShardMap, in writers: borrowing FixedArray<ShardWriter>) {
        var (shortCount, longCount, knownCount) = (0, 0, 0)
        for index in 0..<count {
            let entry = unsafe entries + index
            guard unsafe entry.pointee.hasKey else { continue }
            guard unsafe entry.pointee.isShort else {
                longCount += 1
                let (bytes, place) = unsafe (key(of: index), Self.most - longCount)
                unsafe unknown[place] = index
                unsafe messages[place] = cmd5_message(
                    bytes: bytes.baseAddress,
                    count: bytes.count,
                    sum: sums + place * 16
                )
                continue
            }
            let tableHash = unsafe entry.pointee.tableHash
            guard
                let place = unsafe memory.entry(of: entry.pointee.short, tableHash, among: entry.pointee.matches)
            else {
                // What is remembered is text.
                guard unsafe entry.pointee.short.isASCII || Self.isText(key(of: index)) else {
                    unsafe entry.pointee.keyCount = 0
                    continue
                }
                unsafe unknown[shortCount] = index
                unsafe entry.pointee.short.pad(into: blocks + shortCount * 64)
                shortCount &+= 1
                continue
            }
            knownCount &+= 1
            let shard = memory.shard(at: place)
            let known = unsafe memory.index(at: place, in: writers[unchecked: shard].serial)
            unsafe entry.pointee.shardNumber = Int32(truncatingIfNeeded: shard)
            unsafe entry.pointee.indexNumber = Int32(truncatingIfNeeded: known)
            if known < 0 { unsafe entry.pointee.hash = memory.hash(at: place) }
            unsafe writers[unchecked: shard].prefetch(Int(entry.pointee.count), known < 0 ? tableHash : nil)
        }
        if looks { memory.note(known: knownCount, of: knownCount + shortCount) }
        guard shortCount + longCount > 0 else { return }
        unsafe cmd5_block_sums(blocks, shortCount, sums, lanes)
        unsafe cmd5_sums(messages + (Self.most - longCount), longCount, lanes)
        for place in 0..<shortCount { setHash(place, map, writers) }
        for place in Self.most - longCount..<Self.most { setHash(place, map, writers) }
    }

    /// Gives the record of an unknown key what MD5 says.
    @inline(__always)
    private func setHash(_ place: Int, _ map: ShardMap, _ writers: borrowing FixedArray<ShardWriter>) {
        let entry = unsafe entries + unknown[place]
        let hash = sum(at: place)
        let shard = map.index(of: hash)
        unsafe (entry.pointee.hash, entry.pointee.shardNumber) = (hash, Int32(truncatingIfNeeded: shard))
        unsafe writers[unchecked: shard].prefetch(Int(entry.pointee.count), entry.pointee.tableHash)
    }

    private func sum(at place: Int) -> HashKey {
        unsafe HashKey(bytes: Span(_unsafeStart: sums + place * 16, count: 16))
    }

    /// Where a record came from.
    @inline(__always)
    func run(of index: Int) -> Run {
        let entry = unsafe entries + index
        return unsafe Run(source: source, first: entry.pointee.first, end: entry.pointee.end)
    }

    /// Remembers the index that a record's key has in the aggregate with this serial number, which its shard fills.
    mutating func setIndex(of record: Int, in serial: UInt64, to index: Int) {
        let entry = unsafe entries + record
        // Where most keys are seen once, writing all of them down costs more than it saves.
        guard looks, unsafe entry.pointee.isShort else { return }
        unsafe memory.remember(
            entry.pointee.short,
            entry.pointee.tableHash,
            at: entry.pointee.hash,
            shard: entry.pointee.shard,
            index: index,
            in: serial
        )
    }

    /// Forgets the indices that keys of records to come have in the aggregate of a shard that has been sealed.
    mutating func forgetIndices(in shard: Int) {
        for index in next..<max(next, count) where unsafe entries[index].shard == shard { forgetIndex(of: index) }
    }

    /// Forgets the index of a record's key, if it is known: the record is appended under the key itself.
    mutating func forgetIndex(of index: Int) {
        let entry = unsafe entries + index
        guard unsafe entry.pointee.index >= 0 else { return }
        unsafe entry.pointee.indexNumber = -1
        let (short, tableHash) = unsafe (entry.pointee.short, entry.pointee.tableHash)
        if let place = memory.entry(of: short, tableHash, among: memory.prefetch(tableHash)) {
            unsafe entry.pointee.hash = memory.hash(at: place)
        } else {
            // Others have driven it out meanwhile.
            unsafe short.pad(into: blocks)
            unsafe cmd5_block_sums(blocks, 1, sums, lanes)
            unsafe entry.pointee.hash = sum(at: 0)
        }
    }

    /// A record's partition key, which lies there until the batch is changed.
    @unsafe
    @inline(__always)
    func key(of index: Int) -> UnsafeRawBufferPointer {
        let entry = unsafe entries + index
        let bytes = unsafe entry.pointee.isDecoded ? decoded.bytes : block
        let start = unsafe Int(entry.pointee.keyStart)
        return unsafe .init(rebasing: bytes[start..<start + Int(entry.pointee.keyCount)])
    }

    func recordKey(of index: Int) -> RecordKey {
        unsafe RecordKey(copying: Span(_unsafeBytes: key(of: index)), hash: entries[index].hash)
    }

    /// Whether these bytes are UTF-8: readers would decode another text to something else, hash that, and find the record in
    /// the wrong shard.
    private static func isText(_ bytes: UnsafeRawBufferPointer) -> Bool {
        do {
            _ = try UTF8Span(validating: unsafe Span(_unsafeBytes: bytes))
            return true
        } catch {
            return false
        }
    }
}
