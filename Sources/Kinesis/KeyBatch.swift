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
        /// Where the memory may have the key.
        fileprivate var matches: UInt32 = 0
        /// Where the memory had the key when the batch was placed; -1: nowhere.
        fileprivate var remembered = -1
        /// The key's index in the aggregate with this serial number; -1: not known.
        var (index, serial) = (-1, 0 as UInt64)

        var hasKey: Bool { !key.isEmpty }
    }

    let entries: UnsafeMutablePointer<Entry>
    private(set) var count = 0
    /// The block in which the records lie.
    private var block: UnsafeRawBufferPointer
    /// Keys that do not lie in the block as they are.
    private var decoded = ByteWriter(capacity: 0)
    private var memory = KeyMemory()
    /// Whether these records' keys were looked up there.
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
        unsafe add(data, run, key, in: block, isDecoded: false)
    }

    /// Adds a record whose partition key a field names.
    @inline(__always)
    mutating func add(_ data: Range<Int>, from run: Run, keyOf fieldKeys: borrowing FieldKeys, in record: Span<UInt8>) {
        switch fieldKeys.find(in: record) {
        case nil: unsafe add(data, run, 0..<0, in: block, isDecoded: false)
        case .plain(let range):
            let key = data.lowerBound + range.lowerBound..<data.lowerBound + range.upperBound
            unsafe add(data, run, key, in: block, isDecoded: false)
        case .escaped(let offset):
            let start = decoded.count
            // It need not be one: then nothing is added.
            _ = JSONPointer.decode(record, from: offset, into: &decoded, most: FieldKeys.most)
            unsafe add(data, run, start..<decoded.count, in: decoded.bytes, isDecoded: true)
        }
    }

    @inline(__always)
    @unsafe
    private mutating func add(
        _ data: Range<Int>,
        _ run: Run,
        _ key: Range<Int>,
        in bytes: UnsafeRawBufferPointer,
        isDecoded: Bool
    ) {
        precondition(count < Self.most)
        let entry = unsafe entries + count
        unsafe (entry.pointee.data, entry.pointee.run) = (data, run)
        unsafe (entry.pointee.key, entry.pointee.isDecoded) = (key, isDecoded)
        count += 1
        guard !key.isEmpty else { return }
        let readable = bytes.count - key.lowerBound
        let bytes = unsafe UnsafeRawBufferPointer(rebasing: bytes[key])
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
        looks = memory.isWorthALook()
        if looks {
            for index in 0..<count { unsafe entries[index].matches = memory.prefetch(entries[index].tableHash) }
        }
        var (shortCount, longCount, knownCount) = (0, 0, 0)
        for index in 0..<count {
            let entry = unsafe entries + index
            unsafe entry.pointee.remembered = -1
            guard unsafe entry.pointee.hasKey else { continue }
            if let short = unsafe entry.pointee.short {
                if looks,
                    let known = unsafe memory.place(of: short, entry.pointee.tableHash, among: entry.pointee.matches)
                {
                    unsafe (entry.pointee.hash, entry.pointee.shard, entry.pointee.remembered) = known
                    knownCount &+= 1
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
        if looks { memory.note(known: knownCount, of: knownCount + shortCount) }
        guard shortCount + longCount > 0 else { return }
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

    /// Looks up the index of a record's key in the aggregate with this serial number: for all records, once they are placed
    /// and before the first is appended.
    ///
    /// - Returns: whether the key was there lately.
    @inline(__always)
    func findIndex(of record: Int, in serial: UInt64) -> Bool {
        let entry = unsafe entries + record
        let remembered = unsafe entry.pointee.remembered
        let index = remembered < 0 ? -1 : memory.index(at: remembered, in: serial)
        unsafe (entry.pointee.index, entry.pointee.serial) = (index, serial)
        return index >= 0
    }

    /// Remembers the index that a record's key has in the aggregate with this serial number.
    @inline(__always)
    mutating func setIndex(of record: Int, in serial: UInt64, to index: Int) {
        let entry = unsafe entries + record
        // Where most keys are seen once, writing all of them down costs more than it saves.
        guard looks, let short = unsafe entry.pointee.short else { return }
        unsafe memory.remember(
            short,
            entry.pointee.tableHash,
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
