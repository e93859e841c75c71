extension Span<UInt8> {
    /// The eight bytes from `offset` on, the first one lowest; zeros stand for those behind the end.
    @inlinable @inline(__always)
    public func word(at offset: Int) -> UInt64 {
        // One comparison: as an unsigned number a negative offset is a very large one.
        guard UInt(bitPattern: offset) < UInt(bitPattern: Swift.max(count, 7) &- 7) else { return lastWord(at: offset) }
        return unsafe UInt64(littleEndian: bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt64.self))
    }

    /// The sixteen bytes from `offset` on; zeros stand for those behind the end.
    @inlinable @inline(__always)
    public func block(at offset: Int) -> SIMD16<UInt8> {
        guard UInt(bitPattern: offset) < UInt(bitPattern: Swift.max(count, 15) &- 15) else {
            return lastBlock(at: offset)
        }
        return unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: SIMD16<UInt8>.self)
    }

    @usableFromInline @inline(never)
    func lastWord(at offset: Int) -> UInt64 {
        precondition(offset >= 0)
        var (word, shift): (UInt64, UInt64) = (0, 0)
        for index in Swift.min(offset, count)..<count {
            word |= UInt64(self[index]) << shift
            shift += 8
        }
        return word
    }

    @usableFromInline @inline(never)
    func lastBlock(at offset: Int) -> SIMD16<UInt8> {
        precondition(offset >= 0)
        var block = SIMD16<UInt8>.zero
        for index in Swift.min(offset, count)..<count { block[index - offset] = self[index] }
        return block
    }
}
