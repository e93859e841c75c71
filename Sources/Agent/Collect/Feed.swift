import Bytes
import Platform
import Synchronization

/// What joins a collector to its lane: the ring, and a bell at each end.
final class Feed: Sendable {
    let input: Configuration.Input
    let ring: Ring
    /// Rung when the ring has something for a sleeping lane; the lane's own, the same for all its feeds.
    let laneBell: Doorbell
    /// Rung when the ring has room again, or the collector should stop.
    let bell: Doorbell
    /// Set while the collector waits until half of the ring is free.
    let isWaitingForRoom = Atomic<Bool>(false)
    /// Set once the collector has written its last entry.
    let isFinished = Atomic<Bool>(false)
    /// Set when the collector shall stop reading.
    let isStopping = Atomic<Bool>(false)

    init(_ input: Configuration.Input, ringBytes: Int, laneBell: Doorbell) throws(SystemError) {
        self.input = input
        ring = Ring(capacity: ringBytes)
        self.laneBell = laneBell
        bell = try Doorbell()
    }

    /// Tells the lane that there is something in the ring.
    func announce() { laneBell.ring() }

    /// Wakes the collector if it waits for room and there is enough: called by the lane after it has taken entries.
    func announceRoom(_ reader: borrowing RingReader) {
        guard bell.isOwnerAsleep, isWaitingForRoom.load(ordering: .relaxed), reader.isHalfFree else { return }
        bell.ring()
    }

    /// Asks the collector to stop reading.
    ///
    /// What it has read stays in the ring.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        bell.ringAlways()
    }
}

/// What an entry of a feed's ring holds.
enum EntryKind: UInt32 {
    /// Whole lines, each with its line end.
    case lines
    /// One record, without a line end.
    case record
    /// Nothing: bytes of the source that become no record.
    case skipped
}
