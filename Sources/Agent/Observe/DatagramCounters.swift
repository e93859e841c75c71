public import Synchronization

/// What became of the datagrams that were sent to one socket.
///
/// Its collectors add, anyone reads. Once the socket is drained, sent = received + dropped by the kernel, and what was received
/// is in the ledger: delivered, in flight, spooled, dead-lettered or dropped, `droppedByPolicy` among the latter.
public final class DatagramCounters: Sendable {
    public let input: String
    public let address: String
    /// Read from the kernel, and their bytes.
    public let received = Atomic<Int>(0)
    public let bytes = Atomic<Int>(0)
    /// Without a byte in them; they are records nevertheless.
    public let empty = Atomic<Int>(0)
    /// Syslog, and what was taken as it came because it is not.
    public let parsed = Atomic<Int>(0)
    public let unparsed = Atomic<Int>(0)
    /// Above `max_record`, and those of which a part was lost because they are longer than any we have memory for.
    public let oversize = Atomic<Int>(0)
    public let truncated = Atomic<Int>(0)
    /// Not received: the socket's queue was full, or its reader was stopping.
    public let droppedByKernel = Atomic<Int>(0)
    /// Received, and dropped because neither memory nor the spool had room.
    public let droppedByPolicy = Atomic<Int>(0)
    public let bytesDropped = Atomic<Int>(0)
    /// Nanoseconds for which a full agent left what came in the kernel's queue.
    public let heldBack = Atomic<Int>(0)
    /// Calls that failed.
    public let errors = Atomic<Int>(0)

    init(_ input: String, _ address: String) { (self.input, self.address) = (input, address) }

    /// Every figure by its name, for a log.
    public var figures: [(name: String, value: Int)] {
        [
            ("received", received.now), ("bytes", bytes.now), ("empty", empty.now), ("parsed", parsed.now),
            ("unparsed", unparsed.now), ("oversize", oversize.now), ("truncated", truncated.now),
            ("dropped_by_kernel", droppedByKernel.now), ("dropped_by_policy", droppedByPolicy.now),
            ("bytes_dropped", bytesDropped.now), ("held_back_ms", heldBack.now / 1_000_000), ("errors", errors.now),
        ]
    }
}
