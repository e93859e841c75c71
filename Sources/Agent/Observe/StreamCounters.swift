package import Synchronization

/// What became of an input's connections.
///
/// Its collector adds, anyone reads.
package final class StreamCounters: Sendable {
    package let accepted = Atomic<Int>(0)
    package let open = Atomic<Int>(0)
    /// Closed at once, because there were `max_connections`.
    package let refused = Atomic<Int>(0)
    /// Bytes received, and the records in them.
    package let bytes = Atomic<Int>(0)
    package let records = Atomic<Int>(0)
    /// Syslog, and what was taken as it came because it is not.
    package let parsed = Atomic<Int>(0)
    package let unparsed = Atomic<Int>(0)
    /// Objects of `format = "json"` that lost the end of their message, because they are above `max_record`.
    package let objectsTruncated = Atomic<Int>(0)
    /// Records above `max_record`, and the bytes of them that truncation dropped.
    package let oversize = Atomic<Int>(0)
    package let bytesTruncated = Atomic<Int>(0)
    /// Connections that ended in the middle of a record; what had arrived of it is kept.
    package let unfinished = Atomic<Int>(0)
    /// Connections that were closed because their framing made no sense, and the bytes of them that were dropped.
    package let broken = Atomic<Int>(0)
    package let bytesDiscarded = Atomic<Int>(0)
    /// Connections closed because too many unfinished records used up the memory for them.
    package let overfull = Atomic<Int>(0)
    /// Connections closed after `idle_timeout`.
    package let idle = Atomic<Int>(0)
    package let handshakesFailed = Atomic<Int>(0)
    package let handshakesTimedOut = Atomic<Int>(0)
    /// Times at which no connection was accepted for want of descriptors or memory.
    package let acceptPauses = Atomic<Int>(0)
    /// Nanoseconds for which a full ring held the senders back.
    package let heldBack = Atomic<Int>(0)
    /// Records that were read and found no place before the agent had to end.
    package let lost = Atomic<Int>(0)

    package init() {}

    /// Every figure by its name, for a log.
    package var figures: [(name: String, value: Int)] {
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
