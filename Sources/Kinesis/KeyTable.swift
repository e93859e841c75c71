internal import Bytes
internal import CText
import Glibc

/// The distinct keys of an open aggregate as finished protobuf: each once, in order of arrival.
///
/// Field `tag` is 1 for partition keys, 2 for explicit hash keys. Memory may be kept from one aggregate to the next, so
/// that a busy table allocates nothing.
struct KeyTable: ~Copyable {
    private(set) var encoded = ByteWriter(capacity: 0)
    private var keys: [(start: UInt32, count: UInt32)] = []
    /// Open addressing: index + 1 of a key in the lowest bits and some of its hash above them, 0 for empty.
    ///
    /// Used past a few keys; a scan is faster below.
    private var slots: [UInt32] = []
    /// The bits of a slot that are an index; 2^14 keys are the most that an aggregate has.
    private static let indexBits: UInt32 = 0x7fff
    private let tag: UInt8

    private static let scanned = 8

    init(tag: UInt8) { self.tag = tag << 3 | 2 }

    var count: Int { keys.count }

    /// The index of `key`, if the table has it.
    ///
    /// - Parameter hash: the key's, by `hash`.
    func index(of key: Span<UInt8>, _ hash: UInt64) -> Int? {
        guard keys.count > Self.scanned else {
            return keys.indices.first { equal($0, key) }
        }
        var slot = Int(truncatingIfNeeded: hash) & (slots.count - 1)
        while slots[slot] != 0 {
            // Most other keys are told from this one without a look at them.
            if (slots[slot] ^ UInt32(truncatingIfNeeded: hash >> 32)) & ~Self.indexBits == 0 {
                let index = Int(slots[slot] & Self.indexBits) - 1
                if equal(index, key) { return index }
            }
            slot = (slot + 1) & (slots.count - 1)
        }
        return nil
    }

    /// Has the memory brought in which `index` will look first.
    @inline(__always)
    func prefetch(_ hash: UInt64) {
        unsafe slots.withUnsafeBufferPointer { slots in
            guard !slots.isEmpty, let base = slots.baseAddress else { return }
            unsafe ctext_prefetch(base + (Int(truncatingIfNeeded: hash) & (slots.count - 1)))
        }
    }

    /// Bytes that adding a key of `count` bytes takes.
    static func cost(of count: Int) -> Int { 1 + Varint.size(UInt64(count)) + count }

    /// Adds `key`, which the table must not have, and returns its index.
    mutating func add(_ key: Span<UInt8>, _ hash: UInt64) -> Int {
        encoded.append(tag)
        Varint.append(UInt64(key.count), to: &encoded)
        keys.append((UInt32(encoded.count), UInt32(key.count)))
        encoded.append(key)
        if keys.count > Self.scanned { place(keys.count - 1, hash) }
        return keys.count - 1
    }

    /// Bytes of memory it holds.
    var footprint: Int { encoded.capacity + keys.capacity * 8 + slots.count * 4 }

    mutating func removeAll(keepingMemory: Bool) {
        encoded.clear(keeping: keepingMemory ? .max : 0)
        keys.removeAll(keepingCapacity: keepingMemory)
        if keepingMemory {
            for slot in slots.indices { slots[slot] = 0 }
        } else {
            slots = []
        }
    }

    private mutating func place(_ index: Int, _ hash: UInt64) {
        if keys.count * 2 > slots.count {
            slots = [UInt32](repeating: 0, count: max(64, slots.count * 2))
            for old in 0..<index { insert(old, storedHash(old)) }
        } else if keys.count == Self.scanned + 1 {
            for old in 0..<index { insert(old, storedHash(old)) }
        }
        insert(index, hash)
    }

    private func storedHash(_ index: Int) -> UInt64 {
        let start = Int(keys[index].start)
        return encoded.withBytes(start..<start + Int(keys[index].count)) { Self.hash($0) }
    }

    private mutating func insert(_ index: Int, _ hash: UInt64) {
        var slot = Int(truncatingIfNeeded: hash) & (slots.count - 1)
        while slots[slot] != 0 { slot = (slot + 1) & (slots.count - 1) }
        slots[slot] = UInt32(truncatingIfNeeded: hash >> 32) & ~Self.indexBits | UInt32(index + 1)
    }

    private func equal(_ index: Int, _ key: Span<UInt8>) -> Bool {
        let (start, count) = keys[index]
        guard Int(count) == key.count else { return false }
        guard count > 0 else { return true }
        return unsafe key.withUnsafeBytes { key in
            unsafe memcmp(encoded.bytes.baseAddress! + Int(start), key.baseAddress!, key.count) == 0
        }
    }

    /// A hash of `key`'s bytes, eight at a time, each mixed by a multiplication into 128 bits; the last are zeros.
    ///
    /// Keys are the operator's, not an attacker's; a table lives for one aggregate.
    @inline(__always)
    static func hash(_ key: Span<UInt8>) -> UInt64 {
        unsafe key.withUnsafeBytes { key in
            var (hash, at) = (start(key.count), 0)
            while at + 8 <= key.count {
                mix(unsafe key.loadUnaligned(fromByteOffset: at, as: UInt64.self), into: &hash)
                at += 8
            }
            guard at < key.count else { return hash }
            var word: UInt64 = 0
            for index in at..<key.count { unsafe word |= UInt64(key[index]) << UInt64((index - at) * 8) }
            mix(word, into: &hash)
            return hash
        }
    }

    /// What the hash of a key of so many bytes starts with.
    @inline(__always)
    static func start(_ count: Int) -> UInt64 { UInt64(count) &* 0x9e37_79b9_7f4a_7c15 }

    /// Mixes eight bytes into a hash.
    @inline(__always)
    static func mix(_ word: UInt64, into hash: inout UInt64) {
        let (high, low) = (hash ^ word).multipliedFullWidth(by: 0xd6e8_feb8_6659_fd93)
        hash = high ^ low
    }
}
