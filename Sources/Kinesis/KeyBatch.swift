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

    /// A record on its way to its shard.
    struct Entry {
        /// Where it lies in its block.
        var data = 0..<0
        var run = Run(source: 0, first: 0, end: 0)
        /// Where its partition key lies in the block, or among those that were decoded; empty if it has none.
        fileprivate var key = 0..<0
        fileprivate var isDecoded = false
        /// The key, if it is short.
        fileprivate var short: ShortKey?
        /// The key's, by `KeyTable.hash`.
        var tableHash: UInt64 = 0
        /// The key's, by MD5, and the shard that takes it.
        var hash = HashKey.lowest
        var shard = 0
        /// Where the memory had the key, until that changes; -1: nowhere.
        fileprivate var remembered = -1

        var hasKey: Bool { !key.isEmpty }
    }

    let entries: UnsafeMutablePointer<Entry>
    private(set) var count = 0
    /// The block in which the records lie.
    private var block: UnsafeRawBufferPointer
    /// Keys that do not lie in the block as they are.
    private var decoded = ByteWriter(capacity: 0)
    private var memory = KeyMemory()
    /// `memory.changes` when these records were placed.
    private var changes: UInt64 = 0
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

    var isFull: Bool { count == Self.most }

    /// Starts with records of `block`, which stays where it is until the last of them is placed.
    @inline(__always)
    mutating func begin(_ block: Span<UInt8>) {
        count = 0
        decoded.clear()
        unsafe self.block = block.withUnsafeBytes { unsafe $0 }
    }

    /// Adds a record.
    ///
    /// - Parameters:
    ///   - data: where it lies in the block.
    ///   - key: where its partition key lies there; empty if it has none.
    @inline(__always)
    mutating func add(_ data: Range<Int>, from run: Run, key: Range<Int>) {
        add(data, run, key, isDecoded: false)
    }

    /// Adds a record whose partition key a field names.
    @inline(__always)
    mutating func add(_ data: Range<Int>, from run: Run, keyOf fieldKeys: borrowing FieldKeys, in record: Span<UInt8>) {
        switch fieldKeys.find(in: record) {
        case nil: add(data, run, 0..<0, isDecoded: false)
        case .plain(let range):
            add(data, run, data.lowerBound + range.lowerBound..<data.lowerBound + range.upperBound, isDecoded: false)
        case .escaped(let offset):
            let start = decoded.count
            // It need not be one: then nothing is added.
            _ = JSONPointer.decode(record, from: offset, into: &decoded, most: FieldKeys.most)
            add(data, run, start..<decoded.count, isDecoded: true)
        }
    }

    @inline(__always)
    private mutating func add(_ data: Range<Int>, _ run: Run, _ key: Range<Int>, isDecoded: Bool) {
        precondition(count < Self.most)
        let entry = unsafe entries + count
        unsafe (entry.pointee.data, entry.pointee.run) = (data, run)
        unsafe (entry.pointee.key, entry.pointee.isDecoded) = (key, isDecoded)
        count += 1
        guard !key.isEmpty else { return }
        let bytes = unsafe self.key(of: count - 1)
        let readable = unsafe isDecoded ? bytes.count : block.count - key.lowerBound
        let short = unsafe ShortKey(bytes, readable: readable)
        unsafe entry.pointee.short = short
        // Readers would decode another text to something else, hash that, and find the record in the wrong shard.
        guard unsafe short?.isASCII ?? false || Self.isText(bytes) else {
            unsafe entry.pointee.key = 0..<0
            return
        }
        unsafe entry.pointee.tableHash = short?.tableHash ?? KeyTable.hash(Span(_unsafeBytes: bytes))
    }

    /// Finds the shards of all records that have a key.
    mutating func place(by map: ShardMap) {
        for index in 0..<count { unsafe memory.prefetch(entries[index].tableHash) }
        changes = memory.changes
        var (shortCount, longCount) = (0, 0)
        for index in 0..<count {
            let entry = unsafe entries + index
            unsafe entry.pointee.remembered = -1
            guard unsafe entry.pointee.hasKey else { continue }
            if let short = unsafe entry.pointee.short {
                if let known = unsafe memory.place(of: short, entry.pointee.tableHash) {
                    unsafe (entry.pointee.hash, entry.pointee.shard, entry.pointee.remembered) = known
                    continue
                }
                unsafe unknown[shortCount] = index
                unsafe short.pad(into: blocks + shortCount * 64)
                shortCount += 1
            } else {
                longCount += 1
                let (bytes, place) = unsafe (key(of: index), Self.most - longCount)
                unsafe unknown[place] = index
                unsafe messages[place] = cmd5_message(
                    bytes: bytes.baseAddress,
                    count: bytes.count,
                    sum: sums + place * 16
                )
            }
        }
        unsafe cmd5_block_sums(blocks, shortCount, sums, lanes)
        unsafe cmd5_sums(messages + (Self.most - longCount), longCount, lanes)
        for place in 0..<shortCount { setHash(place, map) }
        for place in Self.most - longCount..<Self.most { setHash(place, map) }
    }

    /// Gives the record of an unknown key what MD5 says.
    @inline(__always)
    private func setHash(_ place: Int, _ map: ShardMap) {
        let entry = unsafe entries + unknown[place]
        let hash = unsafe HashKey(bytes: Span(_unsafeStart: sums + place * 16, count: 16))
        unsafe (entry.pointee.hash, entry.pointee.shard) = (hash, map.index(of: hash))
    }

    /// The index of a record's key in the aggregate with this serial number, if the key was there lately.
    @inline(__always)
    func index(of record: Int, in serial: UInt64) -> Int? {
        var entry = unsafe entries[record].remembered
        guard entry >= 0 else { return nil }
        if changes != memory.changes {
            guard let now = unsafe memory.find(entries[record].short!, entries[record].tableHash) else { return nil }
            entry = now
        }
        return memory.index(at: entry, in: serial)
    }

    /// Remembers the index that a record's key has in the aggregate with this serial number.
    mutating func setIndex(of record: Int, in serial: UInt64, to index: Int) {
        let entry = unsafe entries + record
        guard let short = unsafe entry.pointee.short else { return }
        unsafe memory.remember(
            short,
            entry.pointee.tableHash,
            isKnown: entry.pointee.remembered >= 0,
            at: entry.pointee.hash,
            shard: entry.pointee.shard,
            index: index,
            in: serial
        )
    }

    /// A record's partition key, which lies there until the batch is changed.
    @unsafe
    @inline(__always)
    func key(of index: Int) -> UnsafeRawBufferPointer {
        unsafe .init(rebasing: (entries[index].isDecoded ? decoded.bytes : block)[entries[index].key])
    }

    func recordKey(of index: Int) -> RecordKey {
        unsafe RecordKey(copying: Span(_unsafeBytes: key(of: index)), hash: entries[index].hash)
    }

    /// Whether these bytes are UTF-8.
    private static func isText(_ bytes: UnsafeRawBufferPointer) -> Bool {
        do {
            _ = try UTF8Span(validating: unsafe Span(_unsafeBytes: bytes))
            return true
        } catch {
            return false
        }
    }
}
