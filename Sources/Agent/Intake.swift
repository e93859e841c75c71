import Bytes
import Kinesis
import Logging
import Synchronization

// Concurrency: belongs to its lane's thread; only the far ends of its rings are shared.

/// The lane's ends of the rings: takes what waits there into aggregates, and keeps the books about it.
final class Intake {
    private var ports: [Port] { didSet { look() } }
    private var output: Configuration.Output
    private var keys: SourceKeys
    private let settlement: Settlement
    private let backlog: Backlog
    private let ledger: Ledger
    private let checkpoints: Checkpoints
    private let counters: Counters
    private let log: Logger

    /// Whether some of what comes is in no file: what is lost of it is lost for good.
    private(set) var hasSockets = false
    /// Whether there are senders that cannot wait.
    private(set) var hasDatagrams = false
    /// Whether some input may have records that not every stream takes.
    private(set) var hasLongRecords = false

    /// The lane's end of a feed.
    private final class Port {
        let feed: Feed
        var reader: RingReader
        /// The input's number in the ledger.
        let account: Int

        init(_ feed: Feed, account: Int) {
            (self.feed, self.account) = (feed, account)
            reader = RingReader(feed.ring)
        }

        /// The collector has ended, and everything it wrote is taken.
        var isOver: Bool { feed.isFinished.load(ordering: .acquiring) && reader.isEmpty }
    }

    /// Which port is first next time: behind one that has more than the stream takes there may be no room for another.
    private var turn = 0
    /// Bytes taken out of a ring before calls have their turn.
    private static let drain = 128 << 10

    init(
        _ feeds: [Feed],
        _ output: Configuration.Output,
        settlement: Settlement,
        backlog: Backlog,
        ledger: Ledger,
        checkpoints: Checkpoints,
        counters: Counters,
        log: Logger
    ) {
        (self.output, self.settlement, self.backlog, self.ledger) = (output, settlement, backlog, ledger)
        (self.checkpoints, self.counters, self.log) = (checkpoints, counters, log)
        ports = feeds.map { Port($0, account: ledger.number(of: $0.input.name)) }
        keys = SourceKeys(output.partitionKey, checkpoints)
        look()
    }

    private func look() {
        hasSockets = ports.contains { $0.feed.part != .files }
        hasDatagrams = ports.contains { $0.feed.part.isOfDatagrams }
        hasLongRecords = ports.contains { $0.feed.input.hasLongRecords }
    }

    /// Whether every collector has ended and every ring is empty.
    var isOver: Bool { ports.allSatisfy(\.isOver) }

    /// Takes on another configuration.
    func adopt(_ output: Configuration.Output, and added: [Feed]) {
        ports += added.map { Port($0, account: ledger.number(of: $0.input.name)) }
        guard output != self.output else { return }
        self.output = output
        keys = SourceKeys(output.partitionKey, checkpoints)
    }

    /// Lets go of feeds that the configuration has no more, and that are read to their end.
    func forgetRetired() {
        // One is left, whatever comes: a lane without any would have ended.
        guard ports.count > 1, ports.contains(where: { $0.feed.isRetired && $0.isOver }) else { return }
        ports.removeAll { $0.feed.isRetired && $0.isOver }
    }

    /// Tells the collectors that nothing will be taken any more.
    func abandon() { for port in ports { port.feed.abandon() } }

    /// Moves what waits in the rings into aggregates.
    ///
    /// - Parameters:
    ///   - limit: bytes of a record that the stream takes; nil while that is to be waited for.
    ///   - hasRoom: whether more may be taken in, by what it comes from.
    /// - Returns: whether there was something.
    func drain(
        into staging: Staging,
        limit: Int?,
        now: Instant,
        hasRoom: (Feed.Part) -> Bool
    ) -> Bool {
        var hasDrained = false
        let first = turn
        for step in ports.indices {
            let index = (first + step) % ports.count
            let port = ports[index]
            guard mayDrain(port, limit), hasRoom(port.feed.part) else { continue }
            let taken = drain(port, into: staging, limit, now)
            guard taken > 0 else { continue }
            hasDrained = true
            // Datagrams nearly always find room: their turns say nothing of the others'.
            if !port.feed.part.isOfDatagrams { turn = index + 1 }
            port.feed.announceRoom(port.reader)
        }
        return hasDrained
    }

    /// Whether `drain` would find something.
    func hasWork(limit: Int?, hasRoom: (Feed.Part) -> Bool) -> Bool {
        ports.contains { mayDrain($0, limit) && !$0.reader.isEmpty && hasRoom($0.feed.part) }
    }

    /// Whether the stream takes less than some input's records may have.
    func isCut(by limit: Int) -> Bool {
        ports.contains { longest(of: $0.feed.input, limit) < $0.feed.input.maxRecord }
    }

    /// Whether it is known how long the records may be that wait in a ring.
    private func mayDrain(_ port: Port, _ limit: Int?) -> Bool { !port.feed.input.hasLongRecords || limit != nil }

    /// Bytes of an input's record: what it may have, and the stream takes.
    private func longest(of input: Configuration.Input, _ limit: Int?) -> Int {
        guard input.hasLongRecords, let limit else { return input.maxRecord }
        return min(input.maxRecord, Limits.longestRecord(of: limit, isPacked: output.compression != .none))
    }

    private func drain(_ port: Port, into staging: Staging, _ limit: Int?, _ now: Instant) -> Int {
        let (settlement, keys, input) = (settlement, keys, port.feed.input)
        let longest = longest(of: input, limit)
        var bytes = 0
        // What is settled must have been read before, in the ledger too.
        var skipped: [RingEntry] = []
        var buried: [(line: [UInt8], run: Run)] = []
        let drained = staging.fill { aggregator, batcher in
            aggregator.limitLines(to: longest, input.onOversize.longLines)
            return port.reader.drain(Self.drain) { payload, entry in
                settlement.drained(entry.source, first: entry.first, end: entry.end, input: port.account)
                bytes += Int(entry.end - entry.first)
                switch EntryKind(rawValue: entry.kind) {
                case .lines:
                    aggregator.take(
                        lines: payload,
                        under: keys.key(of: entry.source),
                        source: entry.source,
                        position: entry.first,
                        receipt: now,
                        into: &batcher
                    )
                case .records:
                    aggregator.take(
                        records: payload,
                        under: keys.key(of: entry.source),
                        source: entry.source,
                        position: entry.first,
                        receipt: now,
                        into: &batcher
                    )
                case .keyed:
                    aggregator.take(
                        keyed: payload,
                        source: entry.source,
                        position: entry.first,
                        receipt: now,
                        into: &batcher
                    )
                case .record:
                    aggregator.take(
                        record: payload,
                        under: keys.key(of: entry.source),
                        from: Run(source: entry.source, first: entry.first, end: entry.end),
                        receipt: now,
                        into: &batcher
                    )
                case .oversize:
                    let run = Run(source: entry.source, first: entry.first, end: entry.end)
                    unsafe payload.withUnsafeBytes { buried.append((unsafe Array($0), run)) }
                case .skipped, nil: skipped.append(entry)
                }
                return true
            }
        }
        guard drained > 0 else { return 0 }
        let counts = staging.fill { aggregator, _ in aggregator.takeCounts() }
        ledger.read(.init(records: counts.records + buried.count, bytes: bytes), of: port.account)
        let setAside = staging.fill { aggregator, _ in aggregator.takeSetAside() }
        let reason = longest < input.maxRecord ? "longer than the stream takes" : "longer than max_record"
        for (line, run) in buried { backlog.bury(line, run, reason: "longer than max_record", input: input.name) }
        for (line, run) in setAside { backlog.bury(line, run, reason: reason, input: input.name) }
        for entry in skipped { settlement.skip(entry.source, first: entry.first, end: entry.end) }
        counters.lane.records.add(counts.records)
        counters.lane.bytes.add(counts.bytes)
        counters.collectors.linesOversize.add(counts.oversize)
        if counts.keyless > 0 { tellKeyless(counts.keyless, input.name) }
        return drained
    }

    private func tellKeyless(_ count: Int, _ input: String) {
        counters.lane.keyless.add(count)
        guard case .field(let pointer) = output.partitionKey else { return }
        log.warning(
            "records without the partition key are placed by chance: `penstock read --format json` shows their keys",
            metadata: ["key": "json:\(pointer.text)", "input": "\(input)", "records": "\(counters.lane.keyless.now)"]
        )
    }
}

extension Configuration.Oversize {
    fileprivate var longLines: Aggregator.LongLines {
        switch self {
        case .split: .split
        case .truncate: .truncate
        case .deadLetter: .setAside
        }
    }
}
