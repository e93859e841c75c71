internal import CText

/// A stretch of a source that became records: from its first byte's position to the one behind its last.
public struct Run: Equatable, Sendable {
    public var source: UInt32
    /// User records it became.
    public var records: UInt32
    public var first: UInt64
    public var end: UInt64

    public init(source: UInt32, first: UInt64, end: UInt64, records: Int = 1) {
        (self.source, self.first, self.end, self.records) = (source, first, end, UInt32(clamping: records))
    }

    /// Bytes of the source it stands for, line ends included.
    public var bytes: Int { Int(end - first) }
}

/// The runs of an open aggregate, in order of arrival.
@safe
struct RunList: ~Copyable {
    /// In front of the first is one that no other goes on.
    private var front = unsafe nowhere
    /// Where the next one goes, and where the memory for them ends.
    private var (next, end) = unsafe (nowhere, nowhere)

    /// Of a list without memory.
    private static var nowhere: UnsafeMutablePointer<Run> { unsafe .init(bitPattern: MemoryLayout<Run>.alignment)! }

    deinit { if capacity > 0 { unsafe front.deallocate() } }

    /// Adds a run behind the others, as part of the last one if it goes on there.
    ///
    /// - Returns: whether that took memory.
    @inline(__always)
    mutating func add(_ run: Run) -> Bool {
        if unsafe next == end { return addToFull(run) }
        unsafe put(run, at: next)
        return false
    }

    @inline(__always)
    @unsafe
    private mutating func put(_ run: Run, at next: UnsafeMutablePointer<Run>) {
        let last = unsafe next - 1
        if unsafe last.pointee.end == run.first, unsafe last.pointee.source == run.source {
            unsafe last.pointee.end = run.end
            unsafe last.pointee.records &+= run.records
        } else {
            unsafe next.initialize(to: run)
            unsafe self.next = next + 1
        }
    }

    /// Adds a run where there is no room for another, or no memory yet.
    private mutating func addToFull(_ run: Run) -> Bool {
        if capacity > 0 {
            let last = unsafe next - 1
            if unsafe last.pointee.end == run.first, unsafe last.pointee.source == run.source {
                unsafe put(run, at: next)
                return false
            }
        }
        let (before, count, capacity) = (self.capacity, count, max(1, self.capacity * 2))
        let more = UnsafeMutablePointer<Run>.allocate(capacity: 1 + capacity)
        unsafe more.initialize(to: Run(source: .max, first: .max, end: .max))
        if before > 0 {
            unsafe (more + 1).moveInitialize(from: front + 1, count: count)
            unsafe front.deallocate()
        }
        unsafe (front, next, end) = (more, more + 1 + count, more + 1 + capacity)
        unsafe put(run, at: more + 1 + count)
        return true
    }

    private var count: Int { max(0, unsafe next - front - 1) }
    private var capacity: Int { max(0, unsafe end - front - 1) }

    /// Has the memory brought into which `add` will write.
    @inline(__always)
    func prefetchEnd() { unsafe ctext_prefetch(next) }

    /// Bytes of memory it holds.
    @inline(__always)
    var footprint: Int { unsafe (end - front) * MemoryLayout<Run>.stride }

    /// Those that were added, which it forgets; memory for more than `most` is given back.
    mutating func take(keeping most: Int) -> [Run] {
        guard count > 0 else { return [] }
        let all = unsafe Array(UnsafeBufferPointer(start: front + 1, count: count))
        unsafe next = front + 1
        if capacity > most {
            unsafe front.deallocate()
            unsafe (front, next, end) = (Self.nowhere, Self.nowhere, Self.nowhere)
        }
        return all
    }
}

extension [Run] {
    /// Puts them in order: by their sources, and where they begin there.
    ///
    /// Where keys choose shards, an answer has a run for each of some ten thousand records: their positions are sorted
    /// digit by digit, of which few differ in what one call holds. A tenth of the time that comparing takes.
    package mutating func sortByPosition() {
        guard let first else { return }
        var (last, isSorted) = (first, true)
        var differing = (source: 0 as UInt64, position: 0 as UInt64)
        for run in self {
            differing.source |= UInt64(run.source ^ first.source)
            differing.position |= run.first ^ first.first
            if last.source == run.source ? last.first > run.first : last.source > run.source { isSorted = false }
            last = run
        }
        guard !isSorted else { return }
        guard count > 256 else {
            return sort { $0.source == $1.source ? $0.first < $1.first : $0.source < $1.source }
        }
        var other = self
        for shift in Self.shifts(differing.position) { moveInOrder(to: &other) { Int($0.first >> shift & Self.digit) } }
        for shift in Self.shifts(differing.source) {
            moveInOrder(to: &other) { Int(UInt64($0.source) >> shift & Self.digit) }
        }
    }

    private static var digit: UInt64 { 2047 }

    /// Where the digits are that are not the same everywhere.
    private static func shifts(_ differing: UInt64) -> [UInt64] {
        stride(from: 0, to: 64, by: 11).filter { differing >> $0 & digit != 0 }
    }

    /// Sorts by a digit and keeps the order of those that have the same, by way of an array of as many.
    @inline(__always)
    private mutating func moveInOrder(to other: inout Self, by digit: (Run) -> Int) {
        unsafe withUnsafeBufferPointer { runs in
            unsafe other.withUnsafeMutableBufferPointer { other in
                unsafe withUnsafeTemporaryAllocation(of: Int.self, capacity: Int(Self.digit) + 1) { places in
                    unsafe places.initialize(repeating: 0)
                    for index in runs.indices { unsafe places[digit(runs[index])] += 1 }
                    var sum = 0
                    for index in places.indices {
                        let count = unsafe places[index]
                        unsafe places[index] = sum
                        sum += count
                    }
                    for index in runs.indices {
                        let digit = unsafe digit(runs[index])
                        let place = unsafe places[digit]
                        unsafe places[digit] = place + 1
                        unsafe other[place] = runs[index]
                    }
                }
            }
        }
        swap(&self, &other)
    }
}
