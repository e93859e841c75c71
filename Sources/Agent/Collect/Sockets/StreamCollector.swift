import Bytes
package import Logging
package import Platform
import Synchronization

// Concurrency: a collector belongs to one thread. It shares its feed, the listening sockets and the counters.

/// Accepts the connections of an input, and reads each in its turn into the ring, until it is told to stop.
///
/// When the ring is full it reads nothing: the kernel's buffers fill, and the senders wait.
package struct StreamCollector: ~Copyable {
    private let feed: Feed
    private let settings: Configuration.SocketSettings
    private let sockets: StreamSockets
    private let ledger: Ledger
    private let counters: StreamCounters
    private let log: Logger

    private var epoll: Epoll
    private var events: [UInt64] = []
    private var writer: RecordWriter
    private var connections = Connections()
    /// Connections whose TLS holds more than their sockets tell of.
    private var unread: [Connection] = []
    /// Bytes of unfinished records, all connections together.
    private var unfinished = 0
    /// Records that were read, and that nobody takes any more.
    private var lost = 0
    /// When to look again whether connections can be accepted; nil: they are.
    private var acceptsAgain: Duration?
    private let start = Instant.now
    /// What all connections are read into, one after the other.
    private let room = OwnMemory(StreamCollector.turn)

    /// Bytes read from a connection before the next has its turn.
    private static let turn = 64 << 10
    /// Connections accepted from a socket before others are read.
    private static let acceptTurn = 64
    /// Bytes of unfinished records that an input holds.
    package static let mostUnfinished = 16 << 20
    /// Descriptors left for calls, files and the spool.
    private static let reservedDescriptors = 64
    private static let acceptPause: Duration = .milliseconds(100)
    /// How long a collector that stops reads what has been sent, while its senders hear of it.
    private static let lastTurns: Duration = .milliseconds(200)
    private static let lastWait: Duration = .milliseconds(20)
    private static let bellToken = UInt64(UInt32.max)

    package init(
        _ feed: Feed,
        _ sockets: StreamSockets,
        ledger: Ledger,
        counters: Counters,
        log: Logger
    ) throws(SystemError) {
        let epoll = try Epoll()
        try epoll.add(feed.bell.number, token: Self.bellToken)
        for (index, address) in sockets.listening.enumerated() {
            try epoll.add(address.socket.number, token: UInt64(index))
        }
        self.epoll = epoll
        (self.feed, self.sockets, self.ledger, self.log) = (feed, sockets, ledger, log)
        self.counters = counters.streams(feed.input.name)
        settings = feed.input.socket ?? .init()
        writer = RecordWriter(feed)
    }

    private var buffer: UnsafeMutableRawBufferPointer { unsafe room.bytes }

    /// Reads until asked to stop, and then what its senders have sent by the time they hear of it.
    package mutating func run() {
        for address in sockets.listening {
            log.notice(
                "an input listens",
                metadata: ["input": name, "address": "\(address.socket.place(of: address.listen))"]
            )
        }
        while !isStopping { work(atMost: nextDeadline.map { max(.zero, $0 - now) }) }
        acceptRest()
        for connection in connections.all where !connection.isShakingHands {
            connection.session?.sayFarewell()
            connection.socket.sayEnd()
        }
        let end = Instant.now + Self.lastTurns
        while connections.count > 0, .now < end, !feed.isAbandoned { work(atMost: Self.lastWait) }
        for connection in connections.all { close(connection) }
        publish()
        if lost > 0 {
            log.error(
                "records of streams are lost: they were read, and found no room before the agent had to end",
                metadata: ["input": name, "records": "\(lost)"]
            )
        }
        feed.end()
        let figures = counters.figures.filter { $0.value > 0 }
        log.notice(
            "an input of streams has ended",
            metadata: .init(figures.map { ($0.name, "\($0.value)") }, uniquingKeysWith: { $1 })
                .merging(["input": name]) { $1 }
        )
    }

    private var isStopping: Bool { feed.isStopping.load(ordering: .acquiring) }

    /// The time that senders have had: it stands still while a full ring holds them back.
    private var now: Duration { .now - start - writer.heldBack }

    private var nextDeadline: Duration? {
        [
            connections.oldest(shakingHands: true).map { $0.heard + settings.handshakeTimeout },
            connections.oldest(shakingHands: false).map { $0.heard + settings.idleTimeout }, acceptsAgain,
        ].compactMap { $0 }.min()
    }

    /// Gives each connection that has something its turn.
    private mutating func work(atMost most: Duration?) {
        feed.bell.prepareToSleep()
        var events: [UInt64] = []
        swap(&events, &self.events)
        events.removeAll(keepingCapacity: true)
        epoll.wait(atMost: unread.isEmpty ? most : .zero) { tokens in
            for index in tokens.indices { events.append(tokens[index]) }
        }
        feed.bell.wake()
        self.events = events
        let more = unread
        unread = []
        let now = now
        writer.begin()
        for token in events where token != Self.bellToken {
            if token < Connections.firstToken {
                _ = accept(sockets.listening[Int(token)], now)
            } else if let connection = connections[token] {
                attend(to: connection, now)
            }
        }
        for connection in more where connections[connection.token] === connection { attend(to: connection, now) }
        closeSilent(now)
        if let acceptsAgain, now >= acceptsAgain, !isStopping { acceptAgain(now) }
        publish()
    }

    // MARK: accepting

    /// Takes connections, a turn's worth.
    ///
    /// - Returns: whether there may be more.
    private mutating func accept(_ address: StreamSockets.Address, _ now: Duration) -> Bool {
        // At another configuration the next collector takes them.
        guard acceptsAgain == nil, !(isStopping && feed.isRetired) else { return false }
        let room = min(Self.acceptTurn, freeDescriptors)
        if room == 0 {
            tellShort("descriptors", now)
            return false
        }
        for _ in 0..<room {
            do {
                guard let socket = try address.socket.accept() else { return false }
                counters.accepted.add(1)
                guard connections.count < settings.maxConnections else {
                    counters.refused.add(1)
                    log.warning(
                        "there are max_connections: further ones are closed",
                        metadata: ["input": name, "peer": "\(socket.peer)", "most": "\(settings.maxConnections)"]
                    )
                    continue
                }
                add(socket, to: address.listen, now)
            } catch {
                tellShort("\(error)", now)
                return false
            }
        }
        return true
    }

    /// Takes the connections that wait in the kernel, which would reset them; from then on it refuses others.
    ///
    /// What systemd listens on keeps them for the next agent, and so does an input for its next configuration.
    private mutating func acceptRest() {
        let end = Instant.now + Self.lastTurns
        for address in sockets.listening where !feed.isRetired && !address.socket.isPassed {
            while .now < end, accept(address, now) {}
            address.socket.refuse()
        }
        pauseAccepting()
    }

    private mutating func add(_ socket: consuming StreamSocket, to listen: Configuration.Listen, _ now: Duration) {
        let framer = Framer(settings.framing, longest: feed.input.maxRecord, feed.input.onOversize)
        var session: TLSSession?
        if case .tls = listen, let identity = sockets.certificates?.identity {
            session = TLSSession(identity, on: socket)
            guard session != nil else { return tellShort("memory for TLS", now) }
        }
        let connection = Connection(socket, session, framer)
        connections.add(connection, now: now)
        do { try epoll.add(connection.socket.number, token: connection.token) } catch {
            connections.remove(connection)
            return tellShort("\(error)", now)
        }
        counters.open.add(1)
    }

    /// Descriptors that connections may have.
    private var freeDescriptors: Int {
        max(0, Machine.freeDescriptors - min(Self.reservedDescriptors, Machine.descriptorLimit / 4))
    }

    /// Stops accepting for a while: connections wait in the kernel.
    private mutating func tellShort(_ want: String, _ now: Duration) {
        counters.acceptPauses.add(1)
        log.warning(
            "new connections wait, for want of descriptors or memory: raise LimitNOFILE (ulimit -n)",
            metadata: ["input": name, "reason": "\(want)", "connections": "\(connections.count)"]
        )
        pauseAccepting()
        acceptsAgain = now + Self.acceptPause
    }

    private func pauseAccepting() {
        for address in sockets.listening { epoll.remove(address.socket.number) }
    }

    private mutating func acceptAgain(_ now: Duration) {
        guard freeDescriptors > 0 else {
            acceptsAgain = now + Self.acceptPause
            return
        }
        acceptsAgain = nil
        for (index, address) in sockets.listening.enumerated() {
            try? epoll.add(address.socket.number, token: UInt64(index))
        }
    }

    // MARK: reading

    /// Goes on with the handshake, or reads a turn's worth.
    private mutating func attend(to connection: Connection, _ now: Duration) {
        guard let session = connection.session else {
            switch unsafe connection.socket.read(into: buffer) {
            case .bytes(let count): take(count, from: connection, now)
            case .nothing: break
            case .end(let error): end(connection, error.map { "\($0.reason)" })
            }
            return
        }
        if connection.isShakingHands {
            let step = session.shakeHands()
            guard step == .ready else { return handshakeWaits(connection, step) }
            connections.handshakeEnded(connection, now: now)
            waitForInput(connection)
        }
        read(session, of: connection, now)
    }

    private mutating func read(_ session: TLSSession, of connection: Connection, _ now: Duration) {
        var count = 0
        while count < Self.turn {
            let step = unsafe session.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[count...]))
            switch step {
            case .bytes(let more):
                count += more
                continue
            case .waitsForInput, .ready: waitForInput(connection)
            case .waitsForRoom: waitForRoom(connection)
            case .end(let reason):
                guard count == 0 || take(count, from: connection, now) else { return }
                return end(connection, reason)
            }
            break
        }
        guard count == 0 || take(count, from: connection, now) else { return }
        // A record of which a part has come counts as more, too, but only the socket tells of its rest.
        if count >= Self.turn, session.hasMore { unread.append(connection) }
    }

    private mutating func handshakeWaits(_ connection: Connection, _ step: TLSSession.Step) {
        switch step {
        case .waitsForInput: waitForInput(connection)
        case .waitsForRoom: waitForRoom(connection)
        case .end(let reason):
            counters.handshakesFailed.add(1)
            log.warning(
                "a TLS handshake failed",
                metadata: [
                    "input": name, "peer": "\(connection.socket.peer)", "reason": "\(reason ?? "the client ended it")",
                ]
            )
            drop(connection)
        case .bytes, .ready: break
        }
    }

    private func waitForRoom(_ connection: Connection) {
        connection.waitsForRoom = true
        epoll.change(connection.socket.number, token: connection.token, waitsForRoom: true)
    }

    private func waitForInput(_ connection: Connection) {
        guard connection.waitsForRoom else { return }
        connection.waitsForRoom = false
        epoll.change(connection.socket.number, token: connection.token, waitsForRoom: false)
    }

    /// Makes records of what was read; what is no whole one waits with its connection.
    ///
    /// - Returns: whether the connection goes on.
    @discardableResult
    private mutating func take(_ count: Int, from connection: Connection, _ now: Duration) -> Bool {
        counters.bytes.add(count)
        connections.heard(of: connection, now: now)
        let read = unsafe UnsafeRawBufferPointer(rebasing: buffer[..<count])
        var waiting = connection.unfinished
        connection.unfinished = []
        let before = waiting.count
        let outcome: (end: Int, fault: Framer.Fault?)
        if waiting.isEmpty {
            outcome = unsafe Self.frame(Span(_unsafeBytes: read), of: connection, &writer, isLast: false)
            if outcome.end < count { waiting = unsafe Array(read[outcome.end...]) }
        } else {
            unsafe waiting.append(contentsOf: read)
            outcome = Self.frame(waiting.span, of: connection, &writer, isLast: false)
            if outcome.end == waiting.count { waiting = [] } else { waiting.removeFirst(outcome.end) }
        }
        unfinished += waiting.count - before
        connection.unfinished = waiting
        note(connection)
        if let fault = outcome.fault {
            breakOff(connection, fault)
            return false
        }
        while unfinished > Self.mostUnfinished { closeFullest() }
        return connections[connection.token] === connection
    }

    /// Writes the records in `bytes`; returns where what is no whole one begins.
    private static func frame(
        _ bytes: Span<UInt8>,
        of connection: Connection,
        _ writer: inout RecordWriter,
        isLast: Bool
    ) -> (end: Int, fault: Framer.Fault?) {
        var framer = connection.framer
        defer { connection.framer = framer }
        let sender = connection.sender
        var at = 0
        while true {
            switch isLast ? framer.last(in: bytes, from: at) : framer.next(in: bytes, from: at) {
            case .record(let content, let next):
                writer.write(bytes.extracting(content), of: sender)
                at = next
            case .oversize(let content, let next):
                writer.write(oversize: bytes.extracting(content))
                at = next
            case .skipped(let next): at = next
            case .more: return (at, nil)
            case .broken(let fault): return (at, fault)
            }
        }
    }

    private mutating func note(_ connection: Connection) {
        let (oversize, truncated) = connection.framer.takeFigures()
        if oversize > 0 { counters.oversize.add(oversize) }
        if truncated > 0 { counters.bytesTruncated.add(truncated) }
    }

    /// Counts what was written, once a turn.
    private mutating func publish() {
        writer.publish()
        let figures = writer.takeFigures()
        guard figures != .init() else { return }
        counters.records.add(figures.records)
        counters.parsed.add(figures.parsed)
        counters.unparsed.add(figures.unparsed)
        counters.objectsTruncated.add(figures.truncated)
        counters.heldBack.add(figures.heldBack.inNanoseconds)
        guard figures.lost > 0 else { return }
        lost += figures.lost
        counters.lost.add(figures.lost)
        ledger.drop(.init(records: figures.lost, bytes: figures.bytesLost), of: ledger.number(of: feed.input.name))
    }

    // MARK: ends of connections

    /// The sender has ended the connection, or it broke.
    private mutating func end(_ connection: Connection, _ reason: String?) {
        // At a stop it was not the sender who ended it.
        if !isStopping, !connection.unfinished.isEmpty, reason != nil || connection.framer.isCounted {
            counters.unfinished.add(1)
            log.warning(
                "a connection ended in the middle of a message: what arrived of it is kept",
                metadata: [
                    "input": name, "peer": "\(connection.socket.peer)", "bytes": "\(connection.unfinished.count)",
                    "reason": "\(reason ?? "the sender ended it")",
                ]
            )
        }
        close(connection)
    }

    /// What comes makes no sense.
    private mutating func breakOff(_ connection: Connection, _ fault: Framer.Fault) {
        counters.broken.add(1)
        counters.bytesDiscarded.add(connection.unfinished.count)
        log.warning(
            "a connection's framing is broken: it is closed",
            metadata: ["input": name, "peer": "\(connection.socket.peer)", "reason": "\(fault)"]
        )
        drop(connection)
    }

    /// Closes the connection with the longest unfinished record: somebody sends records without an end.
    private mutating func closeFullest() {
        guard let fullest = connections.all.max(by: { $0.unfinished.count < $1.unfinished.count }) else { return }
        counters.overfull.add(1)
        log.warning(
            "unfinished messages use up their memory: the connection with the longest is closed, what arrived of it is kept",
            metadata: ["input": name, "peer": "\(fullest.socket.peer)", "bytes": "\(fullest.unfinished.count)"]
        )
        close(fullest)
    }

    private mutating func closeSilent(_ now: Duration) {
        while let connection = connections.oldest(shakingHands: true),
            connection.heard + settings.handshakeTimeout <= now
        {
            counters.handshakesTimedOut.add(1)
            log.warning(
                "a TLS handshake took longer than handshake_timeout",
                metadata: ["input": name, "peer": "\(connection.socket.peer)"]
            )
            drop(connection)
        }
        while let connection = connections.oldest(shakingHands: false), connection.heard + settings.idleTimeout <= now {
            counters.idle.add(1)
            log.info(
                "a connection was silent for idle_timeout: it is closed",
                metadata: ["input": name, "peer": "\(connection.socket.peer)"]
            )
            close(connection)
        }
    }

    /// Closes a connection; what arrived of an unfinished record becomes one.
    private mutating func close(_ connection: Connection) {
        if !connection.unfinished.isEmpty {
            _ = Self.frame(connection.unfinished.span, of: connection, &writer, isLast: true)
            note(connection)
        }
        if !connection.isShakingHands { connection.session?.sayFarewell() }
        drop(connection)
    }

    private mutating func drop(_ connection: Connection) {
        unfinished -= connection.unfinished.count
        connections.remove(connection)
        counters.open.add(-1)
        // The last reference closes the socket, which leaves the epoll with that.
    }

    private var name: Logger.MetadataValue { "\(feed.input.name)" }
}

extension ListeningSocket {
    /// What is listened on, with the port that the kernel chose.
    fileprivate func place(of listen: Configuration.Listen) -> Configuration.Listen {
        switch listen {
        case .tcp(let asked): .tcp(address ?? asked)
        case .tls(let asked): .tls(address ?? asked)
        case .udp, .unix, .unixgram: listen
        }
    }
}

extension Duration {
    fileprivate var inNanoseconds: Int {
        let (seconds, attoseconds) = components
        return Int(seconds) * 1_000_000_000 + Int(attoseconds / 1_000_000_000)
    }
}
