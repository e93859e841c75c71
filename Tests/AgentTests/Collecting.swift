import Agent
import Bytes
import Glibc
import Kinesis
import Logging
import Platform
import Synchronization
import Seeded
import Testing

/// A collector on a thread of its own, and what comes out of its ring.
final class Collecting {
    let feed: Feed
    let checkpoints: Checkpoints
    let counters = Counters()
    private let thread: Platform.Thread
    private var reader: RingReader
    private var isJoined = false
    /// What each source gave, in order, with the positions it gave them for.
    private(set) var sources: [UInt32: Source] = [:]
    private(set) var order: [UInt32] = []
    private(set) var records: [[UInt8]] = []

    struct Source {
        var first: UInt64
        var end: UInt64
        var bytes: [UInt8] = []
        var skipped = 0
        /// A piece that did not begin where the one before ended.
        var gap = false
    }

    init(
        _ scratch: Scratch,
        once: Bool = false,
        ring: Int = 2 << 20,
        thread name: String = "collector",
        watches: Bool = true,
        checkpoints existing: Checkpoints? = nil,
        _ change: (inout Configuration.Input) -> Void = { _ in }
    ) throws {
        var input = Configuration.Input(name: "app")
        input.paths = [scratch.path + "/*.log"]
        input.startAt = .beginning
        change(&input)
        feed = try Feed(input, ringBytes: ring, laneBell: try Doorbell())
        checkpoints = try existing ?? Checkpoints(folder: scratch.path)
        reader = RingReader(feed.ring)
        let (feed, checkpoints, counters) = (feed, checkpoints, counters)
        var log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        log.logLevel = .critical
        let logger = log
        thread = Platform.Thread(name) {
            var collector = FileCollector(
                feed,
                once: once,
                checkpoints: checkpoints,
                counters: counters,
                log: logger,
                watches: watches
            )
            collector.run()
        }
    }

    /// Takes what waits, as a lane does.
    func drain() {
        let taken = reader.drain(512 << 10) { payload, entry in
            if sources[entry.source] == nil { order.append(entry.source) }
            // Taken out, so that its bytes are not copied for each entry.
            var source = sources.removeValue(forKey: entry.source) ?? Source(first: entry.first, end: entry.first)
            source.gap = source.gap || entry.first != source.end
            source.end = entry.end
            if payload.count == 0 {
                source.skipped += Int(entry.end - entry.first)
            } else {
                let bytes = payload.indices.map { payload[$0] }
                source.gap = source.gap || entry.end - entry.first != UInt64(bytes.count)
                source.bytes += bytes
                if entry.kind == EntryKind.record.rawValue { records.append(bytes) }
            }
            sources[entry.source] = source
            return true
        }
        if taken > 0 { feed.announceRoom(reader) }
    }

    /// All bytes so far, source after source.
    var bytes: [UInt8] { order.flatMap { sources[$0]!.bytes } }
    var text: String { String(decoding: bytes, as: UTF8.self) }
    var hasGap: Bool { sources.values.contains { $0.gap } }

    /// Drains until `condition` holds, bounded.
    func until(_ limit: Duration = .seconds(20), _ condition: () -> Bool) -> Bool {
        let end = Instant.now + limit
        while .now < end {
            drain()
            if condition() { return true }
            Machine.sleep(.milliseconds(2))
        }
        return false
    }

    /// Drains until the collector has ended by itself.
    func finish(within limit: Duration = .seconds(30)) -> Bool {
        let ended = until(limit) { feed.isFinished.load(ordering: .acquiring) }
        while feed.ring.waiting > 0 { drain() }
        return ended && stop() < .seconds(1)
    }

    @discardableResult
    func stop() -> Duration {
        guard !isJoined else { return .zero }
        let start = Instant.now
        feed.stop()
        thread.join()
        isJoined = true
        while feed.ring.waiting > 0 { drain() }
        return .now - start
    }

    deinit {
        guard !isJoined else { return }
        feed.stop()
        thread.join()
    }
}
