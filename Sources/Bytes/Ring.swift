public import Synchronization

// Concurrency: exactly one thread holds the `RingWriter` and one the `RingReader`. They share the memory and the two
// cursors of `Ring`; the writer owns what lies between `taken` and `written + free`, the reader the rest.

/// The memory between one writing and one reading thread: entries of bytes behind a `RingEntry`, in one allocation.
///
/// An entry that would cross the end starts again at the front, so a reader always sees it in one piece. Make the two
/// ends with `RingWriter(ring)` and `RingReader(ring)`, once each.
@safe
public final class Ring: @unchecked Sendable {
    @usableFromInline let bytes: UnsafeMutableRawPointer
    @usableFromInline let written: UnsafeMutablePointer<Atomic<Int>>
    @usableFromInline let taken: UnsafeMutablePointer<Atomic<Int>>
    private let ends = Atomic<Int>(0)

    /// Bytes the ring holds, headers included.
    public let capacity: Int

    /// - Parameter capacity: bytes to hold, a power of two of at least 256.
    public init(capacity: Int) {
        precondition(capacity >= 256 && capacity.nonzeroBitCount == 1, "capacity must be a power of two")
        self.capacity = capacity
        // The two cursors lie two cache lines apart (adjacent lines are fetched in pairs), ahead of the entries.
        let memory = UnsafeMutableRawPointer.allocate(byteCount: capacity + 512, alignment: 128)
        unsafe written = memory.bindMemory(to: Atomic<Int>.self, capacity: 1)
        unsafe taken = (memory + 256).bindMemory(to: Atomic<Int>.self, capacity: 1)
        unsafe written.initialize(to: Atomic(0))
        unsafe taken.initialize(to: Atomic(0))
        unsafe bytes = memory + 512
    }

    deinit { unsafe UnsafeMutableRawPointer(written).deallocate() }

    /// The largest payload one entry may have: with more, an entry might not fit however empty the ring is.
    public var largestPayload: Int { capacity / 2 - RingEntry.size }

    /// Bytes waiting for the reader, as any thread may see them: a moment old.
    public var waiting: Int {
        // The reader's cursor first: read last, it may have passed what we saw of the writer's.
        let taken = unsafe taken.pointee.load(ordering: .acquiring)
        return unsafe min(written.pointee.load(ordering: .relaxed) - taken, capacity)
    }

    fileprivate func claim(_ end: Int) {
        let before = ends.bitwiseOr(end, ordering: .relaxed).oldValue
        precondition(before & end == 0, "a ring has one writer and one reader")
    }

    /// Bytes an entry takes, with its header and up to eight bytes of padding.
    @inlinable @inline(__always)
    static func room(for count: Int) -> Int { (count + RingEntry.size + 7) & ~7 }
}

/// What stands before an entry's payload: where its bytes came from.
public struct RingEntry {
    /// Bytes of payload; `skip` marks the rest of the ring as unused.
    @usableFromInline var length: UInt32
    /// What the payload is; the meaning belongs to the ring's users.
    public var kind: UInt32
    /// The source, numbered by its collector.
    public var source: UInt32
    private var reserved: UInt32 = 0
    /// The position of the payload's first byte in its source.
    public var first: UInt64
    /// The position behind everything the entry stands for; bytes dropped on purpose are included.
    public var end: UInt64

    public init(kind: UInt32, source: UInt32, first: UInt64, end: UInt64) {
        (length, self.kind, self.source, self.first, self.end) = (0, kind, source, first, end)
    }

    @usableFromInline static var size: Int { 32 }
    @usableFromInline static var skip: UInt32 { .max }
}

/// The writing end of a ring: reserve room, fill it in place, commit what was filled, publish once a batch.
@safe
public struct RingWriter: ~Copyable {
    public let ring: Ring
    @usableFromInline let bytes: UnsafeMutableRawPointer
    @usableFromInline let mask: Int
    /// Where the next entry goes; nothing before `published` is ours any more.
    @usableFromInline var end = 0
    /// How far we may write by our last look at the reader's cursor: looking again costs a cache miss.
    @usableFromInline var bound: Int

    public init(_ ring: Ring) {
        ring.claim(1)
        self.ring = ring
        unsafe bytes = ring.bytes
        mask = ring.capacity - 1
        bound = ring.capacity
    }

    /// Lends room for an entry of up to `count` bytes to `fill`, which says how many it used; they become the next entry.
    ///
    /// Nothing is written when `fill` returns nil. The reader sees the entry after `publish`.
    /// - Returns: false when the ring lacks the room now; `fill` was not called.
    @inlinable @inline(__always)
    public mutating func write<Failure: Error>(
        upTo count: Int,
        _ fill: (UnsafeMutableRawBufferPointer) throws(Failure) -> (used: Int, entry: RingEntry)?
    ) throws(Failure) -> Bool {
        precondition(count <= ring.largestPayload, "an entry may take half the ring at most")
        let need = Ring.room(for: count)
        var start = end
        if (start & mask) + need > mask + 1 { start = (start | mask) + 1 }
        if start + need > bound {
            unsafe bound = ring.taken.pointee.load(ordering: .acquiring) + mask + 1
            if start + need > bound { return false }
        }
        let at = unsafe bytes + (start & mask)
        guard let filled = unsafe try fill(.init(start: at + RingEntry.size, count: count)) else { return true }
        precondition(0 <= filled.used && filled.used <= count)
        var entry = filled.entry
        entry.length = UInt32(truncatingIfNeeded: filled.used)
        if start != end { unsafe bytes.storeBytes(of: RingEntry.skip, toByteOffset: end & mask, as: UInt32.self) }
        unsafe at.storeBytes(of: entry, as: RingEntry.self)
        end = start + Ring.room(for: filled.used)
        return true
    }

    /// Copies `payload` in as the next entry; false when the ring lacks the room.
    @inlinable
    public mutating func write(_ payload: Span<UInt8>, as entry: RingEntry) -> Bool {
        unsafe write(upTo: payload.count) { (room: UnsafeMutableRawBufferPointer) in
            unsafe payload.withUnsafeBytes { unsafe room.copyMemory(from: $0) }
            return (payload.count, entry)
        }
    }

    /// Shows the reader everything written so far.
    @inlinable @inline(__always)
    public mutating func publish() { unsafe ring.written.pointee.store(end, ordering: .releasing) }

    /// Whether the reader has taken at least half: the moment at which a waiting writer should go on.
    @inlinable
    public var isHalfFree: Bool { unsafe end - ring.taken.pointee.load(ordering: .acquiring) <= (mask + 1) / 2 }

    /// Whether an entry of up to `count` bytes finds room now.
    public func hasRoom(for count: Int) -> Bool {
        let need = Ring.room(for: count)
        let start = (end & mask) + need > mask + 1 ? (end | mask) + 1 : end
        return unsafe start + need <= ring.taken.pointee.load(ordering: .acquiring) + mask + 1
    }

    /// Whether the reader has taken everything.
    @inlinable
    public var isDrained: Bool { unsafe end == ring.taken.pointee.load(ordering: .acquiring) }
}

/// The reading end of a ring.
@safe
public struct RingReader: ~Copyable {
    public let ring: Ring
    @usableFromInline let bytes: UnsafeMutableRawPointer
    @usableFromInline let mask: Int
    @usableFromInline var start = 0

    public init(_ ring: Ring) {
        ring.claim(2)
        self.ring = ring
        unsafe bytes = ring.bytes
        mask = ring.capacity - 1
    }

    /// Lends each waiting entry to `body`, oldest first, until about `most` bytes are read or `body` returns false;
    /// an entry for which it returns false stays, to be lent again.
    ///
    /// One acquire and one release a call, however many entries.
    /// - Returns: bytes freed, headers included.
    @inlinable @inline(__always)
    public mutating func drain(_ most: Int, _ body: (Span<UInt8>, RingEntry) -> Bool) -> Int {
        let from = start
        let written = unsafe ring.written.pointee.load(ordering: .acquiring)
        let stop = written - from > most ? from + most : written
        var at = from
        while at < stop {
            let place = unsafe bytes + (at & mask)
            if unsafe place.load(as: UInt32.self) == RingEntry.skip {
                at = (at | mask) + 1
                continue
            }
            let entry = unsafe place.load(as: RingEntry.self)
            let count = Int(entry.length)
            let payload = unsafe UnsafeRawBufferPointer(start: place + RingEntry.size, count: count)
            guard unsafe body(Span(_unsafeBytes: payload), entry) else { break }
            at += Ring.room(for: count)
        }
        start = at
        if at != from { unsafe ring.taken.pointee.store(at, ordering: .releasing) }
        return at - from
    }

    /// Whether nothing waits.
    @inlinable
    public var isEmpty: Bool { unsafe start == ring.written.pointee.load(ordering: .acquiring) }

    /// Whether at least half of the ring is free: the moment at which to wake a waiting writer.
    @inlinable
    public var isHalfFree: Bool { unsafe ring.written.pointee.load(ordering: .relaxed) - start <= (mask + 1) / 2 }
}
