internal import CText

/// How a record stands in an aggregate: 1A, its length, the indices of its keys, 1A, its data's length, its data.
///
/// What lies between the two lengths is the same for every record under a key.
struct RecordFrame {
    /// 08 partition-key-index [10 explicit-hash-key-index] 1A, as one little-endian number: with fewer than 2^14 keys each it
    /// takes at most seven bytes.
    private let bits: UInt64
    private let count: Int

    /// - Parameters:
    ///   - partition: index of the partition key in its table.
    ///   - explicit: of the explicit hash key; nil: there is none.
    @inline(__always)
    init(_ partition: Int, _ explicit: Int?) {
        let (number, size) = Self.index(partition)
        var (bits, shift) = (0x08 | number << 8, 8 + size)
        if let explicit {
            let (number, size) = Self.index(explicit)
            bits |= 0x10 << shift | number << (shift + 8)
            shift += 8 + size
        }
        (self.bits, count) = (bits | 0x1a << shift, Int(shift / 8 + 1))
    }

    /// All that stands in front of the data of a record of `count` bytes under a partition key alone, and its size; nil where
    /// that takes more than eight bytes, or is a rare shape.
    @inline(__always)
    static func head(_ partition: Int, count: Int) -> (bits: UInt64, size: Int)? {
        guard partition < 0x80 else { return nil }
        let (partition, count) = (UInt64(truncatingIfNeeded: partition), UInt64(truncatingIfNeeded: count))
        // 1A count + 4, 08 index, 1A count: each number in a byte, or in two.
        if count < 0x7c { return (0x1a_00_08_04_1a &+ count &* 0x0100_0000_0100 &+ partition << 24, 6) }
        guard count >= 0x80, count < 0x3ff0 else { return nil }
        let bits = 0x1a_00_08_00_00_1a | twoBytes(count &+ 5) << 8 | partition << 32 | twoBytes(count) << 48
        return (bits, 8)
    }

    @inline(__always)
    private static func twoBytes(_ number: UInt64) -> UInt64 { number & 0x7f | 0x80 | (number >> 7) << 8 }

    /// An index as a variable-length number, and its size in bits.
    @inline(__always)
    private static func index(_ index: Int) -> (UInt64, UInt64) {
        let index = UInt64(index)
        return index < 0x80 ? (index, 8) : (index & 0x7f | 0x80 | (index >> 7) << 8, 16)
    }

    /// What the length says of a record of `count` bytes: all but itself and the tag in front of it.
    @inline(__always)
    func length(of count: Int) -> Int { self.count &+ Varint.size(UInt64(truncatingIfNeeded: count)) &+ count }

    /// Bytes that a record takes in the aggregate of which the length says so much.
    @inline(__always)
    static func size(ofLength length: Int) -> Int { 1 &+ Varint.size(UInt64(truncatingIfNeeded: length)) &+ length }

    /// Bytes that a record of `count` bytes takes in the aggregate.
    @inline(__always)
    func size(of count: Int) -> Int { Self.size(ofLength: length(of: count)) }

    /// Writes a record at `begin`, and returns where its data begins.
    ///
    /// Its head is written in words: up to 32 bytes behind the record must be there to be written to.
    /// - Parameters:
    ///   - record: where it lies.
    ///   - count: its bytes.
    ///   - length: of a record of so many bytes.
    @inline(__always)
    @unsafe
    func write(
        _ record: UnsafeRawPointer,
        count: Int,
        length: Int,
        at begin: UnsafeMutableRawPointer
    ) -> UnsafeMutableRawPointer {
        unsafe begin.storeBytes(of: 0x1a, as: UInt8.self)
        var out = unsafe Varint.store(UInt64(truncatingIfNeeded: length), at: begin + 1)
        unsafe out.storeBytes(of: bits, as: UInt64.self)
        unsafe out = Varint.store(UInt64(truncatingIfNeeded: count), at: out + self.count)
        unsafe Self.copy(record, count, to: out)
        return unsafe out
    }

    /// Copies a record; a short one here, for which a call would cost as much as the copy.
    @inline(__always)
    @unsafe
    static func copy(_ record: UnsafeRawPointer, _ count: Int, to out: UnsafeMutableRawPointer) {
        if 32...256 ~= count {
            unsafe ctext_copy_short(out, record, count)
        } else {
            unsafe out.copyMemory(from: record, byteCount: count)
        }
    }

    /// The same for a record that may be empty and lie nowhere.
    @inline(__always)
    @unsafe
    func write(
        _ record: UnsafeRawBufferPointer,
        length: Int,
        at begin: UnsafeMutableRawPointer
    ) -> UnsafeMutableRawPointer {
        unsafe write(record.baseAddress ?? UnsafeRawPointer(begin), count: record.count, length: length, at: begin)
    }
}
