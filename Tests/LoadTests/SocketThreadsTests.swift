import Agent
import Bytes
import Kinesis
import Logging
import Platform
import Seeded
import Synchronization
import Testing

/// Collectors of sockets under load, with everything that other threads do to them: for the thread sanitizer, which finds races
/// in release builds alone (`make test-threads`).
@Suite(.serialized) struct SocketThreadsTests {
    /// Takes what comes out of a feed's ring, as a lane does, until its collector has ended.
    private final class Taking: Sendable {
        private let feed: Feed
        /// Records that came, and entries that were not what they should be.
        let records = Atomic<Int>(0), wrong = Atomic<Int>(0)

        init(_ feed: Feed) { self.feed = feed }

        func run() {
            var reader = RingReader(feed.ring)
            var end = UInt64(0)
            while true {
                let isLast = feed.isFinished.load(ordering: .acquiring)
                let taken = reader.drain(64 << 10) { payload, entry in
                    let (records, bytes) = Self.count(payload, isKeyed: entry.kind == EntryKind.keyed.rawValue)
                    if entry.first != end || bytes != Int(entry.end - entry.first) { wrong.add(1, ordering: .relaxed) }
                    self.records.add(records, ordering: .relaxed)
                    end = entry.end
                    return true
                }
                if taken > 0 {
                    feed.announceRoom(reader)
                } else if isLast {
                    return
                } else {
                    feed.laneBell.prepareToSleep()
                    if reader.isEmpty { feed.laneBell.wait(atMost: .milliseconds(20)) }
                    feed.laneBell.wake()
                }
            }
        }

        /// The records in an entry, and their bytes; -1 if they do not end where it does.
        private static func count(_ payload: Span<UInt8>, isKeyed: Bool) -> (records: Int, bytes: Int) {
            func number(_ at: Int) -> Int { (0..<4).reduce(0) { $0 | Int(payload[at + $1]) << (8 * $1) } }
            var (records, bytes, at) = (0, 0, 0)
            while at < payload.count {
                let length = number(at)
                at += isKeyed ? RecordHead.keyed + number(at + 4) + length : RecordHead.counted + length
                bytes += length
                records += 1
            }
            return (records, at == payload.count ? bytes : -1)
        }
    }

    private static let log: Logger = {
        var log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        log.logLevel = .trace
        return log
    }()

    private static func input(_ listen: [String], _ format: Configuration.SocketSettings.Format) throws
        -> Configuration.Input
    {
        var input = Configuration.Input(name: "sock")
        var settings = Configuration.SocketSettings()
        settings.listen = try listen.map { try #require(Configuration.Listen($0)) }
        (settings.format, settings.unixgramFull) = (format, .milliseconds(20))
        (input.socket, input.maxRecord) = (settings, 10_000)
        return input
    }

    /// As a reload does, again and again, until something is over.
    private static func change(_ feeds: [Feed], while isOn: () -> Bool) {
        var random = Random()
        let end = Instant.now + .seconds(60)
        while isOn(), .now < end {
            for feed in feeds { feed.keys = [Feed.Keying.none, .peer, .host].randomElement(using: &random)! }
            Machine.sleep(.milliseconds(3))
        }
    }

    private static func message(_ number: Int) -> [UInt8] {
        Array("<13>1 2026-11-21T08:00:00Z host\(number % 50) app - - - message \(number)".utf8)
    }

    @Test(.timeLimit(.minutes(2)), arguments: [Configuration.SocketSettings.Format.raw, .json])
    func `collectors of datagrams count what they receive, whatever other threads do`(
        _ format: Configuration.SocketSettings.Format
    ) throws {
        let folder = try Folder.createTemporary("penstock-test-")
        defer { Folder.removeTree(folder) }
        let input = try Self.input(["udp://127.0.0.1:0", "unixgram://\(folder)/log.sock"], format)
        // For each its own: the sanitizer does not see how a thread that has waited for a `Mutex` gets it.
        let (ledgers, counters) = ([Ledger(inputs: ["sock"]), Ledger(inputs: ["sock"])], [Counters(), Counters()])
        let settings = try #require(input.socket)
        var (feeds, takings, threads, port): ([Feed], [Taking], [Platform.Thread], UInt16) = ([], [], [], 0)
        for part in [Feed.Part.udp(reader: 0), .unixgram] {
            // Small enough to be full now and then.
            let feed = try Feed(input, part, ringBytes: 1 << 20, laneBell: Doorbell())
            let (ledger, counters) = (ledgers[feeds.count], counters[feeds.count])
            let open = try OpenSocket.all(of: feed, [:])
            if part != .unixgram { port = open[0].socket.port }
            feeds.append(feed)
            let taking = Taking(feed)
            takings.append(taking)
            threads.append(Platform.Thread("takes") { taking.run() })
            threads.append(
                Platform.Thread("collects") {
                    var collector = DatagramCollector(
                        feed,
                        settings,
                        sockets: open,
                        passed: [:],
                        ledger: ledger,
                        counters: counters,
                        log: Self.log
                    )
                    collector.run()
                }
            )
        }
        let sending = Shared()
        let senders = (0..<4).map { [port] number in
            Platform.Thread("sends") {
                let sender = number < 2 ? LoopbackSender(port: port) : LoopbackSender(path: folder + "/log.sock")
                for message in 0..<8000 where sender.send(Self.message(message)) {
                    sending.taken.add(1, ordering: .relaxed)
                }
                sending.ended.add(1, ordering: .releasing)
            }
        }
        // Asked to stop while the last still sends.
        Self.change(feeds) { sending.ended.load(ordering: .acquiring) < 3 }
        for feed in feeds { feed.stop() }
        for thread in threads + senders { thread.join() }
        let sockets = counters.flatMap(\.datagramSockets)
        let records = takings.map { $0.records.now }
        #expect(takings.allSatisfy { $0.wrong.now == 0 })
        let dropped = sockets.reduce(0) { $0 + $1.droppedByPolicy.now }
        #expect(records.reduce(dropped, +) == sockets.reduce(0) { $0 + $1.received.now })
        #expect(ledgers.reduce(0) { $0 + $1.accounts[0][.dropped].records } == dropped)
        #expect(records.allSatisfy { $0 > 100 })
        let received = sockets.reduce(0) { $0 + $1.received.now + $1.droppedByKernel.now }
        #expect(received <= sending.taken.load(ordering: .acquiring))
    }

    @Test(.timeLimit(.minutes(2)), arguments: [Configuration.SocketSettings.Format.raw, .json])
    func `a collector of streams passes on every whole record it reads, whatever other threads do`(
        _ format: Configuration.SocketSettings.Format
    ) throws {
        let folder = try Folder.createTemporary("penstock-test-")
        defer { Folder.removeTree(folder) }
        let input = try Self.input(["tcp://127.0.0.1:0", "unix://\(folder)/log.sock"], format)
        let feed = try Feed(input, .streams, ringBytes: 1 << 20, laneBell: Doorbell())
        let taking = Taking(feed)
        let takes = Platform.Thread("takes") { taking.run() }
        let registry = SocketRegistry(passed: [])
        let all = Counters()
        let counters = all.streams(input.name)
        let (collects, port) = try Self.collectStreams(feed, registry, all)
        let sending = Shared()
        let senders = (0..<4).map { number in
            Platform.Thread("sends") {
                // Several connections, one after the other; the last lasts until the collector ends it.
                for connection in 0..<5 {
                    let sender =
                        number < 2
                        ? LoopbackSender(port: port, isStream: true)
                        : LoopbackSender(path: folder + "/log.sock", isStream: true)
                    guard sender.isConnected else { break }
                    for message in 0..<(connection < 4 ? 2000 : .max) {
                        guard sender.send(Self.message(message) + [10]) else { break }
                        sending.taken.add(1, ordering: .relaxed)
                        if connection == 4, message == 0 { sending.ended.add(1, ordering: .releasing) }
                    }
                }
            }
        }
        Self.change([feed]) { sending.ended.load(ordering: .acquiring) < 4 || counters.accepted.now < 20 }
        feed.stop()
        for thread in [collects, takes] { thread.join() }
        registry.close(allBut: [])
        for thread in senders { thread.join() }
        #expect(taking.wrong.now == 0)
        #expect(taking.records.now == counters.records.now && counters.lost.now == 0)
        #expect(taking.records.now > 4 * 4 * 2000 && taking.records.now <= sending.taken.load(ordering: .acquiring) + 4)
        #expect(counters.accepted.now == 20 && counters.open.now == 0)
    }

    /// Starts a collector of streams, which alone holds its sockets beside the registry; with the port of TCP.
    private static func collectStreams(
        _ feed: Feed,
        _ registry: SocketRegistry,
        _ counters: Counters
    ) throws -> (Platform.Thread, UInt16) {
        let sockets = try registry.streams(of: feed.input)
        let port = try #require(sockets.listening[0].socket.address?.port)
        let ledger = Ledger(inputs: [feed.input.name])
        let thread = Platform.Thread("collects") {
            do {
                var collector = try StreamCollector(feed, sockets, ledger: ledger, counters: counters, log: log)
                collector.run()
            } catch { Issue.record(error) }
        }
        return (thread, port)
    }

    private final class Shared: Sendable {
        let taken = Atomic<Int>(0)
        let ended = Atomic<Int>(0)
    }
}
