import Bytes
import Platform

// Concurrency: belongs to its collector's thread; the socket and the counters are shared.

/// A socket that a collector reads, and how it goes with it.
final class DatagramSource {
    let socket: DatagramSocket
    let counters: DatagramCounters
    /// How long a full agent leaves what comes in the kernel's queue before it drops; nil: as long as it takes.
    private let patience: Duration?
    var slots = SlotSize(head: 4)
    /// Since when the ring has had no room.
    private(set) var fullSince: Instant?
    private(set) var isDropping = false
    private var drops: UInt32
    /// Whether what the kernel drops is this reader's to count.
    private let countsDrops: Bool

    /// The queue of a UDP socket loses what comes when it is full: half of it is what may wait.
    private static let patienceOfUDP: Duration = .milliseconds(100)

    /// - Parameter reader: which of the input's readers has it: of a socket that was passed all have the same one.
    init(_ socket: DatagramSocket, _ counters: DatagramCounters, unixgramFull: Duration?, reader: Int) {
        (self.socket, self.counters) = (socket, counters)
        countsDrops = !socket.isUnix && (reader == 0 || !socket.isPassed)
        patience = socket.isUnix ? unixgramFull : Self.patienceOfUDP
        // What a socket that was passed has dropped before was another's to count.
        drops = socket.isPassed ? socket.queue?.drops ?? 0 : 0
    }

    /// Notes that there was no room; true when what comes is to be dropped.
    func wasFull(_ now: Instant) -> Bool {
        guard let since = fullSince else {
            // The lane may be about to make some.
            fullSince = now
            return false
        }
        if isDropping { return true }
        guard let patience else { return false }
        isDropping = now - since >= patience || isQueueHalfFull
        return isDropping
    }

    /// Notes that there was room.
    func hadRoom() {
        guard let since = fullSince else { return }
        counters.heldBack.add(Int((Instant.now - since) / .nanoseconds(1)))
        (fullSince, isDropping) = (nil, false)
    }

    /// How long to wait before looking again whether to drop; nil: only room is worth waiting for.
    func nextLook(_ now: Instant) -> Duration? {
        guard let fullSince, !isDropping, let patience else { return nil }
        let left = max(.zero, patience - (now - fullSince))
        return socket.isUnix ? left : min(left, .milliseconds(5))
    }

    private var isQueueHalfFull: Bool {
        guard !socket.isUnix, let queue = socket.queue else { return false }
        return queue.waiting > queue.limit / 2
    }

    /// Counts what the kernel has dropped since the last call, and returns it.
    func countDrops() -> Int {
        guard countsDrops, let queue = socket.queue else { return 0 }
        let count = Int(queue.drops &- drops)
        drops = queue.drops
        if count > 0 { counters.droppedByKernel.add(count) }
        return count
    }
}
