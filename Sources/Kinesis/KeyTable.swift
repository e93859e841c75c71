internal import Bytes
internal import CText
import Glibc

/// The distinct keys of an open aggregate as finished protobuf: each once, in order of arrival.
///
/// Field `tag` is 1 for partition keys, 2 for explicit hash keys. Memory may be kept from one aggregate to the next, so
/// that a busy table allocates nothing. Where keys come at random to many tables, each look is a wait for memory: it
/// takes one slot, and the key if that is there.
@safe
struct KeyTable: ~Copyable {
    private(set) var encoded = ByteWriter(capacity: 0)
    private(set) var count = 0
    /// Open addressing, a power of two of them.
    ///
    /// Used past a few keys; a walk through `encoded` is faster below.
    private var slots: UnsafeMutablePointer<Slot>?
    private var slotCount = 0
    private let tag: UInt8

    private static let walked = 8

    private struct Slot {
        /// A key's index + 1 in the lowest bits, and some of its hash above them, by which most other keys are told from
        /// it without a look at them; 0 for empty.
        var mark: UInt32 = 0
        /// Where the key's length lies in `encoded`.
        var start: UInt32 = 0

        /// Of a mark, for the index; 2^14 keys are the most that an aggregate has.
        static let indexBits: UInt32 = 0x7fff
    }

    init(tag: UInt8) { self.tag = tag << 3 | 2 }

    deinit { unsafe slots?.deallocate() }

    /// The index of `key`, if the table has it.
    ///
    /// - Parameter hash: the key's, by `hash`.
    func index(of key: Span<UInt8>, _ hash: UInt64) -> Int? {
        guard count > Self.walked, let slots = unsafe slots else {
            var (at, index) = (0, 0)
            while at < encoded.count {
                let here = self.key(ofLengthAt: at + 1)
                if equal(here, key) { return index }
                (at, index) = (here.upperBound, index + 1)
            }
            return nil
        }
        var place = Int(truncatingIfNeeded: hash) & (slotCount - 1)
        while true {
            let slot = unsafe slots[place]
            guard slot.mark != 0 else { return nil }
            if (slot.mark ^ UInt32(truncatingIfNeeded: hash >> 32)) & ~Slot.indexBits == 0,
                equal(self.key(ofLengthAt: Int(slot.start)), key)
            {
                return Int(slot.mark & Slot.indexBits) - 1
            }
            place = (place + 1) & (slotCount - 1)
        }
    }

    /// Has the memory brought in which `index` will look first, and where `add` will write.
    @inline(__always)
    func prefetch(_ hash: UInt64) {
        guard let slots = unsafe slots else { return }
        unsafe ctext_prefetch(slots + (Int(truncatingIfNeeded: hash) & (slotCount - 1)))
        if let base = unsafe encoded.bytes.baseAddress { unsafe ctext_prefetch(base + encoded.count) }
    }

    /// Bytes that adding a key of `count` bytes takes.
    static func cost(of count: Int) -> Int { 1 + Varint.size(UInt64(count)) + count }

    /// Adds `key`, which the table must not have, and returns its index.
    mutating func add(_ key: Span<UInt8>, _ hash: UInt64) -> Int {
        let start = encoded.count + 1
        unsafe encoded.append(upTo: Self.cost(of: key.count)) { room in
            unsafe room.storeBytes(of: tag, as: UInt8.self)
            let begin = unsafe Varint.store(UInt64(key.count), at: room.baseAddress! + 1)
            unsafe key.withUnsafeBytes { key in
                if let from = key.baseAddress { unsafe begin.copyMemory(from: from, byteCount: key.count) }
            }
            return room.count
        }
        count += 1
        if count > Self.walked + 1, count * 2 <= slotCount {
            insert(hash, index: count - 1, start)
        } else if count > Self.walked {
            insertAll()
        }
        return count - 1
    }

    /// Bytes of memory it holds.
    @inline(__always)
    var footprint: Int { encoded.capacity + slotCount * MemoryLayout<Slot>.stride }

    mutating func removeAll(keepingMemory: Bool) {
        encoded.clear(keeping: keepingMemory ? .max : 0)
        if !keepingMemory {
            unsafe slots?.deallocate()
            unsafe (slots, slotCount) = (nil, 0)
        } else if count > Self.walked {
            unsafe slots?.update(repeating: Slot(), count: slotCount)
        }
        count = 0
    }

    /// Puts every key into the slots, of which there are more now if they had become too few.
    private mutating func insertAll() {
        if count * 2 > slotCount {
            unsafe slots?.deallocate()
            slotCount = max(64, slotCount * 2)
            unsafe slots = .allocate(capacity: slotCount)
            unsafe slots!.initialize(repeating: Slot(), count: slotCount)
        }
        var (at, index) = (0, 0)
        while at < encoded.count {
            let here = key(ofLengthAt: at + 1)
            insert(encoded.withBytes(here) { Self.hash($0) }, index: index, at + 1)
            (at, index) = (here.upperBound, index + 1)
        }
    }

    private func insert(_ hash: UInt64, index: Int, _ start: Int) {
        guard let slots = unsafe slots else { return }
        var place = Int(truncatingIfNeeded: hash) & (slotCount - 1)
        while unsafe slots[place].mark != 0 { place = (place + 1) & (slotCount - 1) }
        let mark = UInt32(truncatingIfNeeded: hash >> 32) & ~Slot.indexBits | UInt32(index + 1)
        unsafe slots[place] = Slot(mark: mark, start: UInt32(start))
    }

    /// Where the key lies whose length stands there.
    @inline(__always)
    private func key(ofLengthAt start: Int) -> Range<Int> {
        let bytes = unsafe encoded.bytes
        var (at, count, shift) = (start, 0, 0)
        while unsafe bytes[at] > 127 {
            unsafe count |= Int(bytes[at] & 127) << shift
            (at, shift) = (at + 1, shift + 7)
        }
        unsafe count |= Int(bytes[at]) << shift
        return at + 1..<at + 1 + count
    }

    private func equal(_ here: Range<Int>, _ key: Span<UInt8>) -> Bool {
        guard here.count == key.count else { return false }
        guard key.count > 0 else { return true }
        return unsafe key.withUnsafeBytes { key in
            unsafe memcmp(encoded.bytes.baseAddress! + here.lowerBound, key.baseAddress!, key.count) == 0
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
