internal import Bytes

/// The distinct keys of an open aggregate as finished protobuf: each once, in order of arrival.
///
/// Field `tag` is 1 for partition keys, 2 for explicit hash keys. Memory may be kept from one aggregate to the next, so
/// that a busy table allocates nothing.
struct KeyTable: ~Copyable {
    private(set) var encoded = ByteWriter(capacity: 0)
    private var keys: [(hash: UInt64, start: Int, count: Int)] = []
    /// Open addressing: index + 1 of a key, 0 for empty.
    ///
    /// Used past a few keys; a scan is faster below.
    private var slots: [UInt32] = []
    private let tag: UInt8

    private static let scanned = 8

    init(tag: UInt8) { self.tag = tag << 3 | 2 }

    var count: Int { keys.count }

    /// The index of `key`, if the table has it.
    func index(of key: Span<UInt8>) -> Int? {
        let hash = Self.hash(key)
        guard keys.count > Self.scanned else {
            return keys.indices.first { keys[$0].hash == hash && equal($0, key) }
        }
        var slot = Int(truncatingIfNeeded: hash) & (slots.count - 1)
        while slots[slot] != 0 {
            let index = Int(slots[slot]) - 1
            if keys[index].hash == hash, equal(index, key) { return index }
            slot = (slot + 1) & (slots.count - 1)
        }
        return nil
    }

    /// Bytes that adding a key of `count` bytes takes.
    static func cost(of count: Int) -> Int { 1 + Varint.size(UInt64(count)) + count }

    /// Adds `key`, which the table must not have, and returns its index.
    mutating func add(_ key: Span<UInt8>) -> Int {
        encoded.append(tag)
        Varint.append(UInt64(key.count), to: &encoded)
        keys.append((Self.hash(key), encoded.count, key.count))
        encoded.append(key)
        if keys.count > Self.scanned { place(keys.count - 1) }
        return keys.count - 1
    }

    /// Bytes of memory it holds.
    var footprint: Int { encoded.capacity + keys.capacity * 24 + slots.count * 4 }

    mutating func removeAll(keepingMemory: Bool) {
        encoded.clear(keeping: keepingMemory ? .max : 0)
        keys.removeAll(keepingCapacity: keepingMemory)
        if keepingMemory {
            for slot in slots.indices { slots[slot] = 0 }
        } else {
            slots = []
        }
    }

    private mutating func place(_ index: Int) {
        if keys.count * 2 > slots.count {
            slots = [UInt32](repeating: 0, count: max(64, slots.count * 2))
            for old in 0..<index { insert(old) }
        } else if keys.count == Self.scanned + 1 {
            for old in 0..<index { insert(old) }
        }
        insert(index)
    }

    private mutating func insert(_ index: Int) {
        var slot = Int(truncatingIfNeeded: keys[index].hash) & (slots.count - 1)
        while slots[slot] != 0 { slot = (slot + 1) & (slots.count - 1) }
        slots[slot] = UInt32(index + 1)
    }

    private func equal(_ index: Int, _ key: Span<UInt8>) -> Bool {
        let (_, start, count) = keys[index]
        guard count == key.count else { return false }
        return encoded.withBytes(start..<start + count) { stored in
            for offset in 0..<count where stored[offset] != key[offset] { return false }
            return true
        }
    }

    /// FNV-1a.
    ///
    /// Keys are the operator's, not an attacker's; a table lives for one aggregate.
    private static func hash(_ key: Span<UInt8>) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for index in key.indices { hash = (hash ^ UInt64(key[index])) &* 0x100_0000_01b3 }
        return hash ^ hash >> 32
    }
}

/// Protobuf's variable-length integers.
enum Varint {
    @inline(__always)
    static func size(_ value: UInt64) -> Int { value < 0x80 ? 1 : (70 - (value | 1).leadingZeroBitCount) / 7 }

    static func append(_ value: UInt64, to writer: inout ByteWriter) {
        var rest = value
        while rest >= 0x80 {
            writer.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        writer.append(UInt8(rest))
    }

    /// Writes `value` at `out` and returns where it ends; at most ten bytes.
    @inline(__always)
    @unsafe
    static func store(_ value: UInt64, at out: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer {
        var (rest, out) = unsafe (value, out)
        while rest >= 0x80 {
            unsafe out.storeBytes(of: UInt8(truncatingIfNeeded: rest) | 0x80, as: UInt8.self)
            unsafe out += 1
            rest >>= 7
        }
        unsafe out.storeBytes(of: UInt8(rest), as: UInt8.self)
        return unsafe out + 1
    }
}
