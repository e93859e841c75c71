/// Bytes that grow at their end and keep their memory when cleared: bodies, heads, and other text for the wire.
///
/// Amortised constant cost a byte; no allocation once it has reached its usual size.
@safe
public struct ByteWriter: ~Copyable {
    @usableFromInline var memory: UnsafeMutableRawBufferPointer
    public internal(set) var count: Int {
        @inlinable get { used }
        @usableFromInline set { used = newValue }
    }
    @usableFromInline var used = 0

    /// - Parameter capacity: bytes to hold at first; 0: no memory before something is appended.
    public init(capacity: Int = 256) {
        unsafe memory =
            capacity == 0 ? .init(start: nil, count: 0) : .allocate(byteCount: max(capacity, 16), alignment: 16)
    }

    deinit { unsafe memory.deallocate() }

    /// Forgets the bytes; gives memory above `keeping` back.
    public mutating func clear(keeping: Int = .max) {
        count = 0
        guard unsafe memory.count > keeping else { return }
        unsafe memory.deallocate()
        unsafe memory =
            keeping == 0 ? .init(start: nil, count: 0) : .allocate(byteCount: max(keeping, 16), alignment: 16)
    }

    /// Forgets the bytes from `count` on.
    public mutating func truncate(to count: Int) {
        precondition((0...self.count).contains(count))
        self.count = count
    }

    /// Bytes of memory it holds.
    public var capacity: Int { unsafe memory.count }

    public mutating func append(_ byte: UInt8) {
        reserve(1)
        unsafe memory[count] = byte
        count += 1
    }

    public mutating func append(_ bytes: Span<UInt8>) {
        guard bytes.count > 0 else { return }
        reserve(bytes.count)
        unsafe bytes.withUnsafeBytes {
            unsafe (memory.baseAddress! + count).copyMemory(from: $0.baseAddress!, byteCount: $0.count)
        }
        count += bytes.count
    }

    public mutating func append(_ text: StaticString) {
        reserve(text.utf8CodeUnitCount)
        unsafe (memory.baseAddress! + count).copyMemory(from: text.utf8Start, byteCount: text.utf8CodeUnitCount)
        count += text.utf8CodeUnitCount
    }

    public mutating func append(text: String) {
        var text = text
        text.withUTF8 { utf8 in unsafe append(Span(_unsafeBytes: UnsafeRawBufferPointer(utf8))) }
    }

    /// Lends room for up to `most` bytes to `fill`, which says how many it used.
    @inlinable @inline(__always)
    public mutating func append(upTo most: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Int) {
        reserve(most)
        let used = unsafe fill(.init(start: memory.baseAddress! + count, count: most))
        precondition((0...most).contains(used))
        count += used
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
        if unsafe count + more > memory.count { grow(by: more) }
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
