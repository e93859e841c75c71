/// Bytes that grow at their end and keep their memory when cleared: bodies, heads, and other text for the wire.
///
/// Amortised constant cost a byte; no allocation once it has reached its usual size.
@safe
public struct ByteWriter: ~Copyable {
    @usableFromInline var memory: UnsafeMutableRawBufferPointer
    @usableFromInline var used = 0
    @inlinable public var count: Int { used }

    /// - Parameter capacity: bytes to hold at first; 0: no memory before something is appended.
    public init(capacity: Int = 256) {
        unsafe memory =
            capacity == 0 ? .init(start: nil, count: 0) : .allocate(byteCount: max(capacity, 16), alignment: 16)
    }

    deinit { unsafe memory.deallocate() }

    /// Forgets the bytes; gives memory above `keeping` back.
    public mutating func clear(keeping: Int = .max) {
        used = 0
        guard unsafe memory.count > keeping else { return }
        unsafe memory.deallocate()
        unsafe memory =
            keeping == 0 ? .init(start: nil, count: 0) : .allocate(byteCount: max(keeping, 16), alignment: 16)
    }

    /// Forgets the bytes from `count` on.
    public mutating func truncate(to count: Int) {
        precondition((0...self.count).contains(count))
        used = count
    }

    /// Bytes of memory it holds.
    public var capacity: Int { unsafe memory.count }

    public mutating func append(_ byte: UInt8) {
        reserve(1)
        unsafe memory[count] = byte
        used += 1
    }

    public mutating func append(_ bytes: Span<UInt8>) {
        guard bytes.count > 0 else { return }
        reserve(bytes.count)
        unsafe bytes.withUnsafeBytes {
            unsafe (memory.baseAddress! + count).copyMemory(from: $0.baseAddress!, byteCount: $0.count)
        }
        used += bytes.count
    }

    public mutating func append(_ text: StaticString) {
        reserve(text.utf8CodeUnitCount)
        unsafe (memory.baseAddress! + count).copyMemory(from: text.utf8Start, byteCount: text.utf8CodeUnitCount)
        used += text.utf8CodeUnitCount
    }

    public mutating func append(text: String) {
        var text = text
        text.withUTF8 { utf8 in unsafe append(Span(_unsafeBytes: UnsafeRawBufferPointer(utf8))) }
    }

    /// Lends room for up to `most` bytes to `fill`, which says how many it used.
    @inlinable @inline(__always)
    public mutating func append(upTo most: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Int) {
        reserve(most)
        let room = unsafe UnsafeMutableRawBufferPointer(start: memory.baseAddress.map { unsafe $0 + used }, count: most)
        let filled = unsafe fill(room)
        precondition((0...most).contains(filled))
        used += filled
    }

    /// Lends the bytes written so far, or those in `range`.
    public func withBytes<Result, Failure: Error>(
        _ range: Range<Int>? = nil,
        _ body: (Span<UInt8>) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let range = range ?? 0..<count
        precondition(range.upperBound <= count)
        return try unsafe body(Span(_unsafeBytes: UnsafeRawBufferPointer(rebasing: memory[range])))
    }

    /// Lends the memory itself, for a C call that keeps the address while this value is not touched.
    @unsafe
    public var bytes: UnsafeRawBufferPointer { unsafe .init(rebasing: memory[0..<count]) }

    /// A copy of the bytes.
    public var array: [UInt8] { unsafe Array(bytes) }

    /// Makes room for `more` bytes at once, where their number is known.
    @inlinable @inline(__always)
    public mutating func reserve(_ more: Int) {
        if unsafe used + more > memory.count { grow(by: more) }
    }

    @usableFromInline
    mutating func grow(by more: Int) {
        let larger = unsafe UnsafeMutableRawBufferPointer.allocate(
            byteCount: max(count + more, memory.count * 2, 64),
            alignment: 16
        )
        if count > 0 { unsafe larger.copyMemory(from: bytes) }
        unsafe memory.deallocate()
        unsafe memory = larger
    }
}
