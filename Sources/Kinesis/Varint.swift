/// Protobuf's variable-length integers.
enum Varint {
    @inline(__always)
    static func size(_ value: UInt64) -> Int {
        value < 0x80 ? 1 : value < 0x4000 ? 2 : (70 &- (value | 1).leadingZeroBitCount) / 7
    }

    /// Writes `value` at `out` and returns where it ends; at most ten bytes.
    @inline(__always)
    @unsafe
    static func store(_ value: UInt64, at out: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer {
        if value < 0x80 {
            unsafe out.storeBytes(of: UInt8(truncatingIfNeeded: value), as: UInt8.self)
            return unsafe out + 1
        }
        if value < 0x4000 {
            let both = UInt16(truncatingIfNeeded: value & 0x7f | 0x80 | (value >> 7) << 8)
            unsafe out.storeBytes(of: both.littleEndian, as: UInt16.self)
            return unsafe out + 2
        }
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
