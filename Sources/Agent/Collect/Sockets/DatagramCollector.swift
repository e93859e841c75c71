import Bytes
import Kinesis
package import Logging
package import Platform
import Synchronization

// Concurrency: a collector belongs to one thread. It shares its feed, the ledger and the counters.

/// Reads an input's datagrams into its ring until it is told to stop; what finds no room is dropped and counted.
package struct DatagramCollector: ~Copyable {
    private let feed: Feed
    private let settings: Configuration.SocketSettings
    private let passed: [Configuration.Listen: PassedSockets.Socket]
    private let ledger: Ledger
    private let account: Int
    private let counters: Counters
    private let log: Logger

    private var writer: RingWriter
    private var sources: [DatagramSource] = []
    private var reader: DatagramReader
    private var poll: PollSet
    private var gather: Gather
    /// What the lane was not told of yet, and when it was told last.
    private var isUntold = false
    private var told = Instant.now
    /// How long it may be left untold while more come.
    private let mayWait: Duration
    /// Addresses that could not be had yet.
    private var missing: [Configuration.Listen]

    /// Calls for one socket before the next has its turn.
    private static let turn = 16
    /// Bytes in the ring for which a sleeping lane is woken at once.
    ///
    /// While more come, fewer may wait for so many times what is gathered, and no longer than that: a wake-up of the lane
    /// costs as much as some fifty datagrams.
    private static let worthWaking = 256 << 10
    private static let mostGathers = 5
    private static let announcePeriod: Duration = .milliseconds(5)
    /// How long to leave an address alone that could not be had, and a socket whose calls fail.
    private static let retry: Duration = .seconds(5)
    private static let pause: Duration = .milliseconds(100)
    /// While there is no room: how long what is to be dropped gathers, so that dropping does not take the machine.
    private static let dropPeriod: Duration = .milliseconds(5)
    /// How long a collector that ends waits for room for what is in its queues.
    private static let lastWait: Duration = .seconds(2)

    /// - Parameters:
    ///   - sockets: those that are open already.
    ///   - passed: those that systemd has opened.
    package init(
        _ feed: Feed,
        _ settings: Configuration.SocketSettings,
        sockets: [OpenSocket],
        passed: [Configuration.Listen: PassedSockets.Socket],
        ledger: Ledger,
        counters: Counters,
        log: Logger
    ) {
        (self.feed, self.settings, self.ledger) = (feed, settings, ledger)
        (self.passed, self.counters, self.log) = (passed, counters, log)
        mayWait = min(settings.gather * Self.mostGathers, Self.announcePeriod)
        account = ledger.number(of: feed.input.name)
        writer = RingWriter(feed.ring)
        reader = DatagramReader(feed.input, settings, feed: feed, position: 0)
        poll = PollSet(feed.bell, [])
        gather = Gather(most: .zero, queue: 0)
        missing = OpenSocket.addresses(of: feed).filter { address in !sockets.contains { $0.listen == address } }
        for socket in sockets { add(socket) }
    }

    /// Reads until asked to stop.
    package mutating func run() {
        while !isStopping {
            openMissing()
            let start = reader.end
            let (count, found) = readAll()
            guard found != .full else {
                waitForRoom()
                continue
            }
            let now = Instant.now
            let bytes = Int(reader.end - start)
            if let pause = gather.next(after: count, bytes: bytes, isBehind: found == .more, now: now) {
                if now - told + pause > mayWait { announce(now) }
                if pause > .zero { Machine.nap(pause) }
            } else {
                sleep()
            }
        }
        finish()
        feed.end()
    }

    private var isStopping: Bool { feed.isStopping.load(ordering: .acquiring) }

    /// Shows the lane what was read.
    private mutating func publish() {
        writer.publish()
        isUntold = true
        if feed.ring.waiting >= Self.worthWaking { announce(.now) }
    }

    private mutating func announce(_ now: Instant) {
        guard isUntold else { return }
        (isUntold, told) = (false, now)
        feed.announce()
    }

    // MARK: sockets

    private mutating func openMissing() {
        guard !missing.isEmpty else { return }
        for address in missing {
            do throws(SocketFault) {
                add(try OpenSocket(address, settings, passed: passed[address]))
                missing.removeAll { $0 == address }
            } catch {
                log.error(
                    "an address cannot be had, trying again",
                    metadata: ["input": "\(feed.input.name)", "address": "\(address)", "reason": "\(error)"]
                )
            }
        }
    }

    private mutating func add(_ open: OpenSocket) {
        let listen = open.name
        // For keys and objects; they may be asked for later.
        try? open.socket.tellOrigin(times: settings.format == .json)
        let counters = counters.datagrams(feed.input.name, listen)
        let reader = if case .udp(let reader) = feed.part { reader } else { 0 }
        sources.append(DatagramSource(open.socket, counters, unixgramFull: settings.unixgramFull, reader: reader))
        poll = PollSet(feed.bell, sources.map(\.socket.number))
        // The queue of a Unix socket has few places, and its senders wait.
        let most = open.socket.isUnix ? min(settings.gather, Gather.first) : settings.gather
        // The kernel counts twice what it was asked for, with what it needs beside the datagrams.
        let queue = 2 * (sources.map(\.socket.receiveBuffer).min() ?? 0)
        gather = Gather(most: most, queue: queue)
        var metadata: Logger.Metadata = ["input": "\(feed.input.name)", "address": "\(listen)"]
        let granted = open.socket.receiveBuffer
        if !open.socket.isUnix, granted < settings.receiveBuffer {
            metadata["asked"] = "\(settings.receiveBuffer)"
            metadata["given"] = "\(granted)"
            log.warning(
                open.socket.isPassed
                    ? "systemd's socket has less than receive_buffer: its unit says how much (ReceiveBuffer=)"
                    : "the kernel keeps less for a socket than receive_buffer: raise net.core.rmem_max, or give CAP_NET_ADMIN",
                metadata: metadata
            )
        } else {
            log.info("listening", metadata: metadata)
        }
    }

    // MARK: reading

    /// Gives each socket its turn.
    private mutating func readAll() -> (count: Int, Found) {
        let keys = feed.keys
        if keys != reader.keys, !reader.isHolding {
            reader = DatagramReader(feed.input, settings, feed: feed, position: reader.end)
        }
        var (all, isFull, isBehind) = (0, false, false)
        for source in sources {
            let (count, found) = readTurn(source)
            guard found != .failed else { continue }
            isFull = isFull || found == .full
            isBehind = isBehind || found == .more
            if count > 0 {
                publish()
                noteDrops(source)
            }
            all += count
        }
        return (all, isFull ? .full : isBehind ? .more : .all)
    }

    private enum Found { case all, more, full, failed }

    private mutating func readTurn(_ source: DatagramSource) -> (count: Int, Found) {
        var count = 0
        for _ in 0..<Self.turn {
            do throws(SystemError) {
                switch try reader.step(source, into: &writer) {
                case .more(let more):
                    count += more
                    source.hadRoom()
                    // The lane takes it while more is read.
                    publish()
                case .last(let last):
                    source.hadRoom()
                    return (count + last, .all)
                case .full:
                    guard source.wasFull(.now) else { return (count, .full) }
                    count += try discard(source)
                    return (count, .full)
                }
            } catch {
                failed(source, error)
                return (count, .failed)
            }
        }
        return (count, .more)
    }

    /// Drops what waits in a socket, up to a turn's worth.
    private mutating func discard(_ source: DatagramSource) throws(SystemError) -> Int {
        var (all, bytes) = (0, 0)
        defer {
            if all > 0 {
                ledger.drop(.init(records: all, bytes: bytes), of: account)
                log.error(
                    "datagrams are dropped: neither memory nor the spool has room for them",
                    metadata: [
                        "input": "\(feed.input.name)", "address": "\(source.counters.address)",
                        "dropped": "\(source.counters.droppedByPolicy.now)",
                    ]
                )
            }
        }
        for _ in 0..<Self.turn {
            let dropped = try reader.discard(source)
            all += dropped.count
            bytes += dropped.bytes
            if dropped.isLast { break }
        }
        return all
    }

    private func failed(_ source: DatagramSource, _ error: SystemError) {
        source.counters.errors.add(1)
        log.error(
            "a socket cannot be read, trying again",
            metadata: ["address": "\(source.counters.address)", "reason": "\(error)"]
        )
        Machine.nap(Self.pause)
    }

    private func noteDrops(_ source: DatagramSource) {
        let count = source.countDrops()
        guard count > 0 else { return }
        log.warning(
            source.socket.isPassed
                ? "the kernel dropped datagrams, its queue was full: raise ReceiveBuffer= of the socket's unit"
                : "the kernel dropped datagrams, its queue was full: raise receive_buffer, or readers",
            metadata: [
                "input": "\(feed.input.name)", "address": "\(source.counters.address)", "count": "\(count)",
                "dropped": "\(source.counters.droppedByKernel.now)",
            ]
        )
    }

    // MARK: waiting

    /// Sleeps until something comes.
    private mutating func sleep() {
        announce(.now)
        feed.bell.prepareToSleep()
        if !isStopping { poll.wait(atMost: missing.isEmpty ? nil : Self.retry) }
        feed.bell.wake()
        let pause = gather.nextAfterSleep(now: .now)
        if pause > .zero, !isStopping { Machine.nap(pause) }
    }

    /// Sleeps until the lane has made room, or it is time to drop what has come.
    private mutating func waitForRoom() {
        let now = Instant.now
        announce(now)
        var look = Duration.seconds(1)
        var isDropping = false
        for (index, source) in sources.enumerated() {
            poll.want(index, source.isDropping || source.fullSince == nil)
            isDropping = isDropping || source.isDropping
            if let next = source.nextLook(now) { look = min(look, next) }
        }
        feed.isWaitingForRoom.store(true, ordering: .relaxed)
        feed.bell.prepareToSleep()
        let mayGoOn = writer.isHalfFree && writer.hasRoom(for: reader.neededRoom)
        if !mayGoOn, !isStopping {
            if isDropping { Machine.nap(Self.dropPeriod) }
            poll.wait(atMost: look)
        }
        feed.bell.wake()
        feed.isWaitingForRoom.store(false, ordering: .relaxed)
        for index in sources.indices { poll.want(index, true) }
    }

    // MARK: the end

    /// Reads what is in the queues, and lets nothing more in.
    private mutating func finish() {
        for source in sources { source.socket.stopReceiving() }
        let end = Instant.now + Self.lastWait
        for source in sources {
            while true {
                let (count, found) = readTurn(source)
                publish()
                announce(.now)
                if found == .full {
                    guard .now < end, !feed.isAbandoned else {
                        while let count = try? discard(source), count > 0, !source.socket.isPassed {}
                        break
                    }
                    Machine.nap(Self.dropPeriod)
                } else if count == 0 || found == .failed {
                    break
                } else if source.socket.isPassed, .now >= end, !reader.isHolding {
                    break
                }
            }
            noteDrops(source)
            var figures: Logger.Metadata = ["input": "\(feed.input.name)", "address": "\(source.counters.address)"]
            for (name, value) in source.counters.figures where value != 0 { figures[name] = "\(value)" }
            log.notice("a socket is closed", metadata: figures)
        }
    }
}
