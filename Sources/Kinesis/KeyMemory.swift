internal import CText

// Concurrency: belongs to its lane's thread.

/// A partition key of at most 39 bytes (the text of a UUID has 36) in registers: its bytes, zeros, and its length in the last.
struct ShortKey {
    typealias Words = (UInt64, UInt64, UInt64, UInt64, UInt64)

    static let longest = 39
    private static let size = 40
    let words: Words

    static var empty: Self { Self(words: (0, 0, 0, 0, 0)) }

    private init(words: Words) { self.words = words }

    /// - Parameters:
    ///   - text: where the key lies.
    ///   - count: its bytes, `longest` at most.
    ///   - readable: bytes that may be read from its first on.
    @inline(__always)
    @unsafe
    init(_ text: UnsafeRawPointer, count: Int, readable: Int) {
        var words =
            unsafe readable >= Self.size ? ctext_first_of_forty(text, count).words : Self.copied(text, count)
        words.4 |= UInt64(truncatingIfNeeded: count) << 56
        self.words = words
    }

    /// The same where no forty bytes may be read.
    @inline(never)
    private static func copied(_ text: UnsafeRawPointer, _ count: Int) -> Words {
        var words: Words = (0, 0, 0, 0, 0)
        unsafe withUnsafeMutableBytes(of: &words) { unsafe $0.copyMemory(from: .init(start: text, count: count)) }
        return words
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
}

/// Partition keys of the last records and where each leads, so that a device's next record costs neither MD5 nor a look
/// into its aggregate's table of keys.
///
/// What it says is what MD5, the shard map and the table would say again. Holds 4,096 keys in 324 KiB, touched as keys come.
/// A key can be in sixteen places, of which a look takes one: a byte of each key's hash tells it from most others.
@safe
struct KeyMemory: ~Copyable {
    /// A line of the cache.
    private struct Entry {
        var key: ShortKey
        /// The serial number of an aggregate, and the key's index there.
        var place: UInt64
        var shard: UInt64
        private var unused: UInt64 = 0

        init(key: ShortKey, place: UInt64, shard: Int) {
            (self.key, self.place, self.shard) = (key, place, UInt64(shard))
        }
    }

    private static let sets = 256
    /// Entries of a set, in which a key can be: as many as a vector has bytes.
    private static let ways = 16

    /// A byte of the hash of each entry's key; 0: there is none, and the entry is no memory yet.
    private let tags: UnsafeMutablePointer<SIMD16<UInt8>>
    private let entries: UnsafeMutablePointer<Entry>
    /// What MD5 says of each entry's key.
    private let hashes: UnsafeMutablePointer<HashKey>
    private static let indexBits: UInt64 = 16

    /// How much oftener keys were known than not, of the last some thousand; below zero, hardly any is.
    private var luck = mostLuck
    private static let mostLuck = 4096
    /// Batches, counted to 255 and on from 0.
    private var turn: UInt8 = 0
    private var chance: UInt64 = 1

    init() {
        let count = Self.sets * Self.ways
        let room = UnsafeMutableRawPointer.allocate(byteCount: count * MemoryLayout<Entry>.stride, alignment: 64)
        unsafe entries = room.bindMemory(to: Entry.self, capacity: count)
        unsafe hashes = .allocate(capacity: count)
        unsafe tags = .allocate(capacity: Self.sets)
        unsafe tags.initialize(repeating: SIMD16(), count: Self.sets)
    }

    deinit {
        unsafe tags.deallocate()
        unsafe entries.deallocate()
        unsafe hashes.deallocate()
    }

    /// Whether looking up the keys of a batch, and remembering them, seems worth it: where most are seen once, now and then.
    mutating func isWorthALook() -> Bool {
        turn &+= 1
        return luck >= 0 || turn & 15 == 0
    }

    /// Notes how many keys of a batch were known.
    mutating func note(known: Int, of count: Int) {
        luck = min(max(luck + 2 * known - count, -Self.mostLuck), Self.mostLuck)
    }

    /// Where a key may be: bits for the places of its set; the first is brought from memory, so that several keys wait for it
    /// together.
    ///
    /// - Parameter tableHash: the key's, by `KeyTable.hash`.
    @inline(__always)
    func prefetch(_ tableHash: UInt64) -> UInt32 {
        let set = Self.set(tableHash)
        let matches = unsafe ctext_equal(tags[set], SIMD16(repeating: Self.tag(tableHash)))
        if matches != 0 { unsafe ctext_prefetch(entries + (set &* Self.ways &+ matches.trailingZeroBitCount)) }
        return matches
    }

    /// A key's entry here; nil if it is not known.
    ///
    /// - Parameter matches: what `prefetch` said, with no `remember` since.
    @inline(__always)
    func entry(of key: ShortKey, _ tableHash: UInt64, among matches: UInt32) -> Int? {
        let first = Self.set(tableHash) &* Self.ways
        var matches = matches
        while matches != 0 {
            let entry = first &+ matches.trailingZeroBitCount
            if unsafe entries[entry].key == key { return entry }
            matches &= matches &- 1
        }
        return nil
    }

    /// The shard that takes an entry's key.
    @inline(__always)
    func shard(at entry: Int) -> Int { unsafe Int(truncatingIfNeeded: entries[entry].shard) }

    /// What MD5 says of an entry's key.
    @inline(__always)
    func hash(at entry: Int) -> HashKey { unsafe hashes[entry] }

    /// The index of an entry's key in the table of the aggregate with this serial number; -1: that is not known.
    @inline(__always)
    func index(at entry: Int, in serial: UInt64) -> Int {
        let place = unsafe entries[entry].place
        return place >> Self.indexBits == serial ? Int(place & (1 << Self.indexBits - 1)) : -1
    }

    /// Remembers where a key leads and its index there.
    mutating func remember(
        _ key: ShortKey,
        _ tableHash: UInt64,
        at hash: HashKey,
        shard: Int,
        index: Int,
        in serial: UInt64
    ) {
        let place = serial << Self.indexBits | UInt64(index)
        let set = Self.set(tableHash)
        let matches = unsafe ctext_equal(tags[set], SIMD16(repeating: Self.tag(tableHash)))
        if let entry = entry(of: key, tableHash, among: matches) {
            unsafe entries[entry].place = place
            return
        }
        // Into a free place, or any: which one is left to chance, so that keys that come in turns do not drive out each other.
        let free = unsafe ctext_equal(tags[set], SIMD16())
        chance = chance &* 0x9e37_79b9_7f4a_7c15 &+ 1
        let way = free == 0 ? Int(chance >> 60) : free.trailingZeroBitCount
        let entry = set * Self.ways + way
        unsafe tags[set][way] = Self.tag(tableHash)
        unsafe (entries + entry).initialize(to: Entry(key: key, place: place, shard: shard))
        unsafe (hashes + entry).initialize(to: hash)
    }

    @inline(__always)
    private static func set(_ tableHash: UInt64) -> Int { Int(truncatingIfNeeded: tableHash >> 20) & (sets - 1) }

    @inline(__always)
    private static func tag(_ tableHash: UInt64) -> UInt8 { max(1, UInt8(truncatingIfNeeded: tableHash >> 48)) }
}
