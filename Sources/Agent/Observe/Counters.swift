public import Synchronization

/// What the collectors of one agent have done.
///
/// Each adds once a batch; anyone reads.
public struct CollectorCounters: ~Copyable, Sendable {
    /// Bytes read from files and handed to the lane.
    public let bytesRead = Atomic<Int>(0)
    /// Bytes of tailed files that were not read yet, by the last look.
    public let bytesBehind = Atomic<Int>(0)
    public let filesOpen = Atomic<Int>(0)
    public let filesTruncated = Atomic<Int>(0)
    public let filesRotated = Atomic<Int>(0)
    /// Lines above `max_record` that were cut, and the bytes that truncation dropped.
    public let linesOversize = Atomic<Int>(0)
    public let bytesTruncated = Atomic<Int>(0)
    /// Bytes of files that were deleted or truncated away before they could be read.
    public let bytesLost = Atomic<Int>(0)
    public let errors = Atomic<Int>(0)

    public init() {}

    /// Every figure by its name.
    package var figures: [(name: String, value: Int)] {
        [
            ("open", filesOpen.now), ("read_bytes", bytesRead.now), ("behind_bytes", bytesBehind.now),
            ("rotated", filesRotated.now), ("truncated", filesTruncated.now), ("lines_oversize", linesOversize.now),
            ("bytes_truncated", bytesTruncated.now), ("bytes_lost", bytesLost.now), ("errors", errors.now),
        ]
    }
}

/// What one lane has done.
///
/// Its thread adds to them once a batch; anyone reads.
public struct LaneCounters: ~Copyable, Sendable {
    /// User records taken out of the rings, and their bytes.
    public let records = Atomic<Int>(0)
    public let bytes = Atomic<Int>(0)
    /// Kinesis records sealed: aggregates and single records.
    public let aggregates = Atomic<Int>(0)
    public let calls = Atomic<Int>(0)
    /// User records and bytes that Kinesis has acknowledged.
    public let recordsDelivered = Atomic<Int>(0)
    public let bytesDelivered = Atomic<Int>(0)
    public let aggregatesDelivered = Atomic<Int>(0)
    /// Kinesis records that went to the spool, because they could not be delivered.
    public let aggregatesSpooled = Atomic<Int>(0)
    /// Kinesis records that were refused and sent again.
    public let retried = Atomic<Int>(0)
    public let throttled = Atomic<Int>(0)
    /// Calls that ended without a usable answer.
    public let callsFailed = Atomic<Int>(0)
    /// User records in calls that may have been stored although no answer came: each may be in the stream twice.
    public let duplicatesPossible = Atomic<Int>(0)
    /// Kinesis records that a shard took which does not hold all their hash keys: sent again, regrouped.
    public let misplaced = Atomic<Int>(0)
    /// User records without the value that `partition_key` names: placed by chance.
    public let keyless = Atomic<Int>(0)
    public let shards = Atomic<Int>(0)
    public let inFlight = Atomic<Int>(0)
    /// Bytes of sealed aggregates that wait for a call.
    public let bytesQueued = Atomic<Int>(0)

    public init() {}

    /// A figure's name in JSON and among the metrics, and what it means.
    package struct Figure {
        package var name: String
        package var metric: String
        package var value: Int
        package var isGauge: Bool
        package var help: String

        init(_ name: String, metric: String? = nil, _ value: Int, isGauge: Bool = false, _ help: String) {
            (self.name, self.metric, self.value, self.isGauge, self.help) = (name, metric ?? name, value, isGauge, help)
        }
    }

    /// Every figure but the number of shards.
    package var figures: [Figure] {
        [
            Figure("records", records.now, "User records taken in."),
            Figure("bytes", bytes.now, "Bytes of user records taken in."),
            Figure("aggregates", aggregates.now, "Kinesis records sealed."),
            Figure("calls", calls.now, "PutRecords calls started."),
            Figure("records_delivered", metric: "delivered_records", recordsDelivered.now, "User records delivered."),
            Figure(
                "bytes_delivered",
                metric: "delivered_bytes",
                bytesDelivered.now,
                "Bytes of user records delivered."
            ),
            Figure(
                "aggregates_delivered",
                metric: "delivered_aggregates",
                aggregatesDelivered.now,
                "Kinesis records delivered."
            ),
            Figure(
                "aggregates_spooled",
                metric: "spooled_aggregates",
                aggregatesSpooled.now,
                "Kinesis records spooled."
            ),
            Figure("retried", retried.now, "Kinesis records sent again."),
            Figure("throttled", throttled.now, "Kinesis records that a shard refused as too much."),
            Figure("calls_failed", callsFailed.now, "Calls without a usable answer."),
            Figure("duplicates_possible", duplicatesPossible.now, "User records that may be in the stream twice."),
            Figure("misplaced", misplaced.now, "Kinesis records that a wrong shard took: sent again, regrouped."),
            Figure("keyless", keyless.now, "User records without the value, host or sender that partition_key names."),
            Figure("calls_in_flight", inFlight.now, isGauge: true, "Calls under way."),
            Figure("queued_bytes", bytesQueued.now, isGauge: true, "Bytes of sealed aggregates that wait for a call."),
        ]
    }
}

/// All counters of an agent.
public final class Counters: Sendable {
    public let collectors = CollectorCounters()
    public let lane = LaneCounters()
    private let sockets = Mutex<[DatagramCounters]>([])
    private let streams = Mutex<[StreamCounters]>([])

    public init() {}

    /// The counters of an input's socket: the same for all of its readers, and after a reload.
    package func datagrams(_ input: String, _ address: String) -> DatagramCounters {
        sockets.withLock { sockets in
            if let known = sockets.first(where: { $0.input == input && $0.address == address }) { return known }
            sockets.append(DatagramCounters(input, address))
            return sockets[sockets.count - 1]
        }
    }

    /// Each socket of datagrams that was ever read.
    public var datagramSockets: [DatagramCounters] { sockets.withLock { $0 } }

    /// The counters of an input's connections: the same after a reload.
    package func streams(_ input: String) -> StreamCounters {
        streams.withLock { streams in
            if let known = streams.first(where: { $0.input == input }) { return known }
            streams.append(StreamCounters(input))
            return streams[streams.count - 1]
        }
    }

    /// Each input that ever had connections.
    public var streamInputs: [StreamCounters] { streams.withLock { $0 } }
}

extension Atomic<Int> {
    /// Adds `amount`, in no order with anything else.
    func add(_ amount: Int) { add(amount, ordering: .relaxed) }

    func set(_ value: Int) { store(value, ordering: .relaxed) }

    /// The value as it is now.
    public var now: Int { load(ordering: .relaxed) }
}
