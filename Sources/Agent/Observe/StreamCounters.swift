public import Synchronization

/// What became of an input's connections.
///
/// Its collectors add, anyone reads: one that ends may still have something to write when the next has begun.
public final class StreamCounters: Sendable {
    public let input: String
    public let accepted = Atomic<Int>(0)
    public let open = Atomic<Int>(0)
    /// Closed at once, because there were `max_connections`.
    public let refused = Atomic<Int>(0)
    /// Bytes received, and the records in them.
    public let bytes = Atomic<Int>(0)
    public let records = Atomic<Int>(0)
    /// Syslog, and what was taken as it came because it is not.
    public let parsed = Atomic<Int>(0)
    public let unparsed = Atomic<Int>(0)
    /// Objects of `format = "json"` that lost the end of their message, because they are above `max_record`.
    public let objectsTruncated = Atomic<Int>(0)
    /// Records above `max_record`, and the bytes of them that truncation dropped.
    public let oversize = Atomic<Int>(0)
    public let bytesTruncated = Atomic<Int>(0)
    /// Connections that ended in the middle of a record; what had arrived of it is kept.
    public let unfinished = Atomic<Int>(0)
    /// Connections that were closed because their framing made no sense, and the bytes of them that were dropped.
    public let broken = Atomic<Int>(0)
    public let bytesDiscarded = Atomic<Int>(0)
    /// Connections closed because too many unfinished records used up the memory for them.
    public let overfull = Atomic<Int>(0)
    /// Connections closed after `idle_timeout`.
    public let idle = Atomic<Int>(0)
    public let handshakesFailed = Atomic<Int>(0)
    public let handshakesTimedOut = Atomic<Int>(0)
    /// Times at which no connection was accepted for want of descriptors or memory.
    public let acceptPauses = Atomic<Int>(0)
    /// Nanoseconds for which a full ring held the senders back.
    public let heldBack = Atomic<Int>(0)
    /// Records that were read and found no place before the agent had to end; in the ledger they are dropped.
    public let lost = Atomic<Int>(0)

    package init(_ input: String) { self.input = input }

    /// Every figure by its name, for a log.
    public var figures: [(name: String, value: Int)] {
        [
            ("connections", accepted.now), ("refused", refused.now), ("bytes", bytes.now), ("records", records.now),
            ("parsed", parsed.now), ("unparsed", unparsed.now), ("objects_truncated", objectsTruncated.now),
            ("oversize", oversize.now), ("bytes_truncated", bytesTruncated.now), ("unfinished", unfinished.now),
            ("broken", broken.now), ("bytes_discarded", bytesDiscarded.now), ("overfull", overfull.now),
            ("idle", idle.now), ("handshakes_failed", handshakesFailed.now),
            ("handshakes_timed_out", handshakesTimedOut.now), ("accept_pauses", acceptPauses.now),
            ("held_back_ms", heldBack.now / 1_000_000), ("lost", lost.now),
        ]
    }
}
