// Concurrency: a pool and its buffers belong to one thread (a lane's).

/// Hands out byte buffers in a few sizes and keeps what comes back, so that a busy lane stops asking the allocator.
@safe
public final class BufferPool {
    private var free: [[UnsafeMutableRawPointer]] = unsafe .init(repeating: [], count: sizes.count)

    /// Bytes in buffers that are in use now, and charged beside them.
    public private(set) var used = 0 {
        didSet { mostUsed = max(mostUsed, used) }
    }
    /// The most of them since the last `takeMostUsed`.
    public private(set) var mostUsed = 0
    /// Bytes kept for the next taker.
    public private(set) var kept = 0
    /// Buffers that were handed out so far.
    public private(set) var taken = 0
    private let mostKept: Int

    /// Growing by four wastes little for shards with a trickle; the last holds a full default aggregate (50 KiB).
    private static let sizes = [2048, 8192, 16_384, 56 * 1024]

    /// - Parameter mostKept: bytes of returned buffers to keep; the rest goes back to the system.
    public init(mostKept: Int) { self.mostKept = mostKept }

    deinit { giveBackKept() }

    /// The most bytes that were in use since the last call.
    public func takeMostUsed() -> Int {
        defer { mostUsed = used }
        return mostUsed
    }

    /// Gives the allocator what is kept for the next taker.
    public func giveBackKept() {
        for size in unsafe free.indices {
            unsafe free[size].forEach { unsafe $0.deallocate() }
            unsafe free[size].removeAll()
        }
        kept = 0
    }

    func take(atLeast count: Int) -> UnsafeMutableRawBufferPointer {
        taken += 1
        guard let size = Self.sizes.firstIndex(where: { $0 >= count }) else {
            // A record above the aggregate's size: rare, and as large as it says.
            used += count
            return .allocate(byteCount: count, alignment: 64)
        }
        let bytes = Self.sizes[size]
        used += bytes
        guard let buffer = unsafe free[size].popLast() else {
            return .allocate(byteCount: bytes, alignment: 64)
        }
        kept -= bytes
        return unsafe .init(start: buffer, count: bytes)
    }

    fileprivate func charge(_ bytes: Int) { used += bytes }

    func give(back buffer: UnsafeMutableRawBufferPointer) {
        guard let base = buffer.baseAddress else { return }
        used -= buffer.count
        guard let size = Self.sizes.firstIndex(of: buffer.count), kept + buffer.count <= mostKept else {
            unsafe buffer.deallocate()
            return
        }
        kept += buffer.count
        unsafe free[size].append(base)
    }
}

/// What is held beside a pool's buffers, counted among what is used: tables, lists, objects.
///
/// Whoever bounds memory by `BufferPool.used` would be wrong by as much as thousands of small things take.
@safe
public struct PoolCharge: ~Copyable {
    private let pool: BufferPool

    /// Bytes; given back with this value.
    public var bytes: Int {
        didSet { pool.charge(bytes - oldValue) }
    }

    public init(_ bytes: Int = 0, to pool: BufferPool) {
        (self.pool, self.bytes) = (pool, bytes)
        pool.charge(bytes)
    }

    deinit { pool.charge(-bytes) }
}

/// Bytes with one owner that grow within their pool and go back to it at the end.
@safe
public struct PooledBytes: ~Copyable {
    @usableFromInline var memory: UnsafeMutableRawBufferPointer
    private let pool: BufferPool

    /// - Parameters:
    ///   - count: bytes to hold at first; the pool may give more.
    ///   - pool: where they come from and go back to.
    public init(atLeast count: Int, from pool: BufferPool) {
        self.pool = pool
        unsafe memory = pool.take(atLeast: count)
    }

    /// A copy of `data`.
    public init(copying data: Span<UInt8>, from pool: BufferPool) {
        self.init(atLeast: max(1, data.count), from: pool)
        unsafe data.withUnsafeBytes { data in
            if let from = data.baseAddress { unsafe base.copyMemory(from: from, byteCount: data.count) }
        }
    }

    /// No bytes yet.
    public init(emptyFrom pool: BufferPool) {
        self.pool = pool
        unsafe memory = .init(start: nil, count: 0)
    }

    deinit { unsafe pool.give(back: memory) }

    @inlinable public var capacity: Int { unsafe memory.count }

    @inlinable public var base: UnsafeMutableRawPointer { unsafe memory.baseAddress! }

    /// Makes room for `count` bytes and keeps those in `used`, moved up by `shift`.
    public mutating func grow(toAtLeast count: Int, keeping used: Range<Int>, movedBy shift: Int = 0) {
        let larger = unsafe pool.take(atLeast: count)
        if !used.isEmpty {
            let kept = unsafe UnsafeRawBufferPointer(rebasing: memory[used])
            unsafe (larger.baseAddress! + used.lowerBound + shift).copyMemory(
                from: kept.baseAddress!,
                byteCount: kept.count
            )
        }
        unsafe pool.give(back: memory)
        unsafe memory = larger
    }

    /// Lends the bytes at `range`.
    @inlinable
    public func withBytes<Result, Failure: Error>(
        _ range: Range<Int>,
        _ body: (Span<UInt8>) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try unsafe body(Span(_unsafeBytes: UnsafeRawBufferPointer(rebasing: memory[range])))
    }
}
