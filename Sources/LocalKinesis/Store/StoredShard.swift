internal import Kinesis

/// A record as it is kept: its place, and where its bytes lie.
struct StoredRecord: Sendable {
    /// Milliseconds since 1970.
    var arrival: Int64
    var partitionKey: String
    /// The body of the call that brought it.
    var body: UInt64
    /// Bytes of that body.
    var data: Range<Int>

    /// Bytes as the service counts them: data and partition key.
    var size: Int { data.count + partitionKey.utf8.count }
}

/// One shard's records, oldest first, and how fast it may be written and read.
struct StoredShard: Sendable {
    let id: ShardID
    let range: ClosedRange<HashKey>
    /// Seconds since 1970, as its sequence numbers have it: later than its parents', so that its numbers are above theirs.
    let created: Int64
    /// Milliseconds since 1970 at which it began to take records, and at which its children took over.
    ///
    /// A child opens a millisecond after its parents close: at every time exactly one shard takes a hash key.
    let opened: Int64
    private(set) var closed: Int64?
    /// The shards it came from: one after a split, two after a merge.
    let parents: [ShardID]
    /// The shards that took its place.
    private(set) var children: [ShardID] = []
    /// The index of the oldest record that is kept, or of the next that will come: the trim horizon.
    private(set) var horizon: UInt64 = 1
    /// Bytes of its records.
    private(set) var bytes = 0

    private var records: [StoredRecord] = []
    /// Records at the front of `records` that are gone already: removing each by itself would move all others.
    private var gone = 0
    private var latestArrival: Int64 = 0
    private var writePace: WritePace?
    private var readPace: ReadPace?

    /// - Parameter limited: whether the service's limits for a shard hold.
    /// - Parameter parents: closed ones.
    init(id: ShardID, range: ClosedRange<HashKey>, of parents: [StoredShard] = [], limited: Bool, now: Moment) {
        (self.id, self.range, self.parents) = (id, range, parents.map(\.id))
        created = parents.reduce(now.seconds) { max($0, $1.created + 1) }
        opened = parents.reduce(now.milliseconds) { max($0, ($1.closed ?? 0) + 1) }
        latestArrival = parents.reduce(0) { max($0, $1.latestArrival) }
        if limited { (writePace, readPace) = (WritePace(percent: 100, now: now.instant), ReadPace(now: now.instant)) }
    }

    /// Ends it: behind the millisecond `time` its hash keys are `children`'s.
    mutating func close(for children: [ShardID], at time: Int64) { (closed, self.children) = (time, children) }

    var isOpen: Bool { closed == nil }
    var count: Int { records.count - gone }
    /// The index of the record that comes next: what LATEST stands for.
    var next: UInt64 { horizon + UInt64(count) }

    /// Lets it take `percent` of what the service's shards take, whether limits are enforced or not.
    mutating func limit(to percent: Double, now: Moment) { writePace = WritePace(percent: percent, now: now.instant) }

    /// Whether the shard's limits allow a record of `size` bytes now; its cost is taken then.
    mutating func admits(_ size: Int, now: Moment) -> Bool { writePace?.admits(size, now: now.instant) ?? true }

    /// Whether the shard's limits allow a read now.
    mutating func admitsRead(now: Moment) -> Bool { readPace?.admits(now: now.instant) ?? true }

    mutating func append(_ record: StoredRecord) -> SequenceNumber {
        var record = record
        // A wall clock that is set back must not turn the order by time around.
        latestArrival = max(latestArrival, record.arrival)
        record.arrival = latestArrival
        let number = sequenceNumber(next, arrival: latestArrival)
        bytes += record.size
        records.append(record)
        return number
    }

    /// Takes the oldest record away; nil when there is none.
    mutating func removeOldest() -> StoredRecord? {
        guard gone < records.count else { return nil }
        let record = records[gone]
        // The slot stays until half of them are gone, its key should not.
        records[gone].partitionKey = ""
        gone += 1
        horizon += 1
        bytes -= record.size
        if gone > 64, gone * 2 > records.count {
            records.removeFirst(gone)
            gone = 0
        }
        return record
    }

    /// When the oldest record arrived.
    var oldestArrival: Int64? { gone < records.count ? records[gone].arrival : nil }

    /// Lends the records from `position` on, with their numbers, oldest first, until `body` returns false.
    ///
    /// A position that was trimmed continues at the trim horizon.
    /// - Returns: the position behind the last record for which `body` returned true.
    func read(from position: UInt64, _ body: (StoredRecord, SequenceNumber) -> Bool) -> UInt64 {
        var at = max(position, horizon)
        while at < next {
            let record = records[gone + Int(at - horizon)]
            guard body(record, sequenceNumber(at, arrival: record.arrival)) else { break }
            at += 1
        }
        return at
    }

    /// Charges a read of `bytes` to the shard's limits.
    mutating func charge(read bytes: Int) { readPace?.bytes.take(Double(bytes)) }

    /// When the record at `position` arrived; nil when all before it are the newest.
    func arrival(at position: UInt64) -> Int64? {
        let at = max(position, horizon)
        return at < next ? records[gone + Int(at - horizon)].arrival : nil
    }

    /// The position of the first record that arrived at `time` or later.
    func position(at time: Int64) -> UInt64 {
        var (low, high) = (gone, records.count)
        while low < high {
            let middle = (low + high) / 2
            if records[middle].arrival < time { low = middle + 1 } else { high = middle }
        }
        return horizon + UInt64(low - gone)
    }

    /// The number that stands before the shard's first record.
    var startingSequenceNumber: SequenceNumber { sequenceNumber(0, arrival: created * 1000) }

    /// The number behind a closed shard's last record.
    var endingSequenceNumber: SequenceNumber? { closed.map { sequenceNumber(UInt64(Int64.max), arrival: $0) } }

    private func sequenceNumber(_ index: UInt64, arrival: Int64) -> SequenceNumber {
        SequenceNumber(
            created: created,
            shard: UInt32(truncatingIfNeeded: id.number),
            index: index,
            time: arrival / 1000
        )
    }
}
