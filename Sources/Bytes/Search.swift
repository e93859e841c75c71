public import Glibc

extension Span<UInt8> {
    /// The offset of the first `byte` at or after `start`.
    ///
    /// A plain loop looks at one byte at a time; memchr looks at many.
    @inlinable @inline(__always)
    public func firstOffset(of byte: UInt8, from start: Int = 0) -> Int? {
        unsafe withUnsafeBytes { all in
            let rest = unsafe UnsafeRawBufferPointer(rebasing: all[start...])
            return unsafe findFirst(byte, in: rest).map { start + $0 }
        }
    }
}

extension UnsafeRawBufferPointer {
    /// The offset of the last `byte`.
    @unsafe
    public func lastOffset(of byte: UInt8) -> Int? {
        // Called once a block, where the last line ends a few hundred bytes before the end: a plain loop is enough.
        var at = count
        while at > 0 {
            at -= 1
            if unsafe self[at] == byte { return at }
        }
        return nil
    }

    /// The offset of the first `byte`.
    @unsafe
    public func firstOffset(of byte: UInt8) -> Int? { unsafe findFirst(byte, in: self) }
}

@inlinable @inline(__always)
@unsafe
func findFirst(_ byte: UInt8, in bytes: UnsafeRawBufferPointer) -> Int? {
    guard let base = bytes.baseAddress, let hit = unsafe memchr(base, Int32(byte), bytes.count) else { return nil }
    return unsafe UnsafeRawPointer(hit) - base
}
