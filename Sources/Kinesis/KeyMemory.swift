internal import CText

// Concurrency: belongs to its lane's thread.

/// A partition key of at most 39 bytes (the text of a UUID has 36) in registers: its bytes, zeros, and its length in the last.
struct ShortKey {
    typealias Words = (UInt64, UInt64, UInt64, UInt64, UInt64)

    static let longest = 39
    private static let size = 40
    let words: Words

    /// - Parameters:
    ///   - bytes: the key.
    ///   - readable: bytes that may be read from its first on.
    /// - Returns: nil if it is too long.
    @inline(__always)
    @unsafe
    init?(_ bytes: UnsafeRawBufferPointer, readable: Int) {
        guard bytes.count <= Self.longest, let base = bytes.baseAddress else { return nil }
        var words: Words = (0, 0, 0, 0, 0)
        if readable >= Self.size {
            unsafe words = ctext_first_of_forty(base, bytes.count).words
        } else {
            unsafe withUnsafeMutableBytes(of: &words) { unsafe $0.copyMemory(from: bytes) }
        }
        words.4 |= UInt64(bytes.count) << 56
        self.words = words
    }

    /// Bytes of the key.
    private var count: Int { Int(words.4 >> 56) }

    /// What `KeyTable.hash` says of it.
    @inline(__always)
    var tableHash: UInt64 {
        var hash = KeyTable.start(count)
        KeyTable.mix(words.0, into: &hash)
        if count > 8 { KeyTable.mix(words.1, into: &hash) }
        if count > 16 { KeyTable.mix(words.2, into: &hash) }
        if count > 24 { KeyTable.mix(words.3, into: &hash) }
        if count > 32 { KeyTable.mix(words.4 & 0x00ff_ffff_ffff_ffff, into: &hash) }
        return hash
    }

    /// Writes it as the only block of its MD5 (RFC 1321), of 64 bytes: it, 0x80, zeros, and how many bits it has.
    @inline(__always)
    @unsafe
    func pad(into block: UnsafeMutableRawPointer) {
        let rest = (words.4 & 0x00ff_ffff_ffff_ffff, 0 as UInt64, 0 as UInt64, UInt64(count * 8))
        unsafe block.storeBytes(of: (words.0, words.1, words.2, words.3), as: (UInt64, UInt64, UInt64, UInt64).self)
        unsafe block.storeBytes(of: rest, toByteOffset: 32, as: (UInt64, UInt64, UInt64, UInt64).self)
        unsafe block.storeBytes(of: 0x80, toByteOffset: count, as: UInt8.self)
    }

    @inline(__always)
    var isASCII: Bool { (words.0 | words.1 | words.2 | words.3 | words.4) & 0x8080_8080_8080_8080 == 0 }

    @inline(__always)
    static func == (one: Self, other: Self) -> Bool {
        let differ = (
            one.words.0 ^ other.words.0, one.words.1 ^ other.words.1, one.words.2 ^ other.words.2,
            one.words.3 ^ other.words.3, one.words.4 ^ other.words.4
        )
        return differ.0 | differ.1 | differ.2 | differ.3 | differ.4 == 0
    }

    /// No key's.
    fileprivate init() { words = (0, 0, 0, 0, 0) }
}

/// The partition keys of the last records and where each leads, so that a device's next record costs neither MD5 nor a look
/// into its aggregate's table of keys.
///
/// What it says is what MD5, the shard map and the table would say again. Holds 4,096 keys in 288 KiB, from the first key on.
@safe
struct KeyMemory: ~Copyable {
    /// A line of the cache.
    private struct Entry {
        var hash: UInt128 = 0
        var key = ShortKey()
        var shard: UInt32 = 0
    }

    private static let sets = 2048
    /// Entries of a set: where a key can be.
    private static let ways = 2

    private var entries: UnsafeMutablePointer<Entry>?
    /// For each entry: the serial number of an aggregate, and its key's index there.
    private var places: UnsafeMutablePointer<UInt64>?
    private static let indexBits: UInt64 = 16

    /// How much oftener keys were known than not, of the last some thousand; below zero, hardly any is.
    private var luck = mostLuck
    private static let mostLuck = 4096
    private var turn: UInt8 = 0
    /// How often keys came in or moved.
    private(set) var changes: UInt64 = 0

    init() {}

    deinit {
        unsafe entries?.deallocate()
        unsafe places?.deallocate()
    }

    /// Has the memory brought in which `place` will look, so that several keys wait for it together.
    ///
    /// - Parameter tableHash: the key's, by `KeyTable.hash`.
    @inline(__always)
    func prefetch(_ tableHash: UInt64) {
        guard let entries = unsafe entries else { return }
        let first = unsafe entries + Self.first(tableHash)
        unsafe ctext_prefetch(first)
        unsafe ctext_prefetch(first + 1)
    }

    /// Where a key leads, and its entry here; nil if it is not known.
    @inline(__always)
    mutating func place(of key: ShortKey, _ tableHash: UInt64) -> (hash: HashKey, shard: Int, entry: Int)? {
        guard let entry = find(key, tableHash) else {
            luck = max(luck - 1, -Self.mostLuck)
            return nil
        }
        luck = min(luck + 1, Self.mostLuck)
        return unsafe (HashKey(entries![entry].hash), Int(entries![entry].shard), entry)
    }

    /// The index of an entry's key in the table of the aggregate with this serial number; nil if that is not known.
    @inline(__always)
    func index(at entry: Int, in serial: UInt64) -> Int? {
        let place = unsafe places![entry]
        return place >> Self.indexBits == serial ? Int(place & (1 << Self.indexBits - 1)) : nil
    }

    /// Remembers where a key leads and its index there, if the key is known or that seems worth it.
    ///
    /// - Parameter isKnown: whether `place` knew it a moment ago.
    mutating func remember(
        _ key: ShortKey,
        _ tableHash: UInt64,
        isKnown: Bool,
        at hash: HashKey,
        shard: Int,
        index: Int,
        in serial: UInt64
    ) {
        // Where most keys are seen once, writing them down costs more than it saves; some are, for better times.
        if !isKnown {
            turn &+= 1
            guard luck >= 0 || turn & 15 == 0 else { return }
        }
        let place = serial << Self.indexBits | UInt64(index)
        if let entry = find(key, tableHash) {
            unsafe places![entry] = place
            return
        }
        if unsafe entries == nil { makeRoom() }
        changes += 1
        // The older one of the set goes.
        let first = Self.first(tableHash)
        unsafe entries![first + 1] = entries![first]
        unsafe places![first + 1] = places![first]
        unsafe entries![first] = Entry(hash: hash.value, key: key, shard: UInt32(shard))
        unsafe places![first] = place
    }

    private mutating func makeRoom() {
        let count = Self.sets * Self.ways
        let size = count * MemoryLayout<Entry>.stride
        let room = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 64)
        unsafe entries = room.bindMemory(to: Entry.self, capacity: count)
        unsafe entries!.initialize(repeating: Entry(), count: count)
        unsafe places = .allocate(capacity: count)
        unsafe places!.initialize(repeating: 0, count: count)
    }

    private static func first(_ tableHash: UInt64) -> Int {
        Int(truncatingIfNeeded: tableHash >> 20) & (sets - 1) * ways
    }

    /// A key's entry, until `changes` does; nil if it is not known.
    @inline(__always)
    func find(_ key: ShortKey, _ tableHash: UInt64) -> Int? {
        guard let entries = unsafe entries else { return nil }
        let first = Self.first(tableHash)
        if unsafe entries[first].key == key { return first }
        return unsafe entries[first + 1].key == key ? first + 1 : nil
    }
}
