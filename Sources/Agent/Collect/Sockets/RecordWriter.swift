import Bytes
import Platform
import Synchronization

// Concurrency: belongs to its collector's thread.

/// Writes the records of streams into their input's ring; waits while it is full, so that nothing is dropped.
///
/// All connections of an input are one source: its positions count the bytes that became records, with their framing.
struct RecordWriter: ~Copyable {
    private let feed: Feed
    private let source: UInt32
    private var ring: RingWriter
    private var position: UInt64 = 0
    private var unpublished = 0

    /// Records written, and those that found no place before the lane ended, since somebody took the figures.
    private var records = 0, lost = 0
    /// How long the ring was full, all in all.
    private(set) var heldBack: Duration = .zero

    /// Bytes after which the lane shall know, however many are still coming.
    private static let batch = 128 << 10

    init(_ feed: Feed, source: UInt32) {
        (self.feed, self.source) = (feed, source)
        ring = RingWriter(feed.ring)
    }

    mutating func takeFigures() -> (records: Int, lost: Int) {
        defer { (records, lost) = (0, 0) }
        return (records, lost)
    }

    /// Adds a record.
    ///
    /// - Parameter size: its bytes in the stream, with what framed it.
    mutating func write(_ record: Span<UInt8>, size: Int, as kind: EntryKind) {
        let end = position + UInt64(max(1, size))
        let entry = RingEntry(kind: kind.rawValue, source: source, first: position, end: end)
        while !ring.write(record, as: entry) {
            guard waitForRoom(record.count) else {
                lost += 1
                return
            }
        }
        position = end
        records += 1
        unpublished += record.count + 1
        if unpublished >= Self.batch { publish() }
    }

    mutating func publish() {
        guard unpublished > 0 else { return }
        unpublished = 0
        ring.publish()
        feed.announce()
    }

    /// Sleeps until the lane has freed half of the ring, and as much as the next record needs.
    ///
    /// - Returns: false when the lane has ended, and nothing will be taken any more.
    private mutating func waitForRoom(_ count: Int) -> Bool {
        publish()
        let start = ContinuousClock.now
        defer { heldBack += .now - start }
        while !feed.isAbandoned {
            feed.isWaitingForRoom.store(true, ordering: .relaxed)
            feed.bell.prepareToSleep()
            let mayGoOn = ring.isHalfFree && ring.hasRoom(for: count)
            if !mayGoOn, !feed.isAbandoned { feed.bell.wait(atMost: .seconds(1)) }
            feed.bell.wake()
            feed.isWaitingForRoom.store(false, ordering: .relaxed)
            if mayGoOn || (ring.isHalfFree && ring.hasRoom(for: count)) { return true }
        }
        return false
    }
}
