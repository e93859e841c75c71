import Platform

// Concurrency: belongs to its collector's thread.

/// A sender's connection: its socket, and what of its bytes is no whole record yet.
final class Connection {
    let socket: StreamSocket
    /// Nil where nothing is encrypted.
    let session: TLSSession?
    let sender: RecordWriter.Sender
    var framer: Framer
    /// Read, and in no record yet: a connection between two records holds nothing.
    var unfinished: [UInt8] = []
    var isShakingHands: Bool
    /// The socket takes no more output, which TLS needs to go on.
    var waitsForRoom = false
    /// Where it stands among the others.
    fileprivate(set) var token: UInt64 = 0
    /// When it was last heard of, or accepted while it shakes hands, by the collector's clock.
    fileprivate(set) var heard: Duration = .zero
    fileprivate var older: Connection.Slot?, newer: Connection.Slot?

    typealias Slot = Int

    init(_ socket: consuming StreamSocket, _ session: TLSSession?, _ framer: Framer) {
        sender = RecordWriter.Sender(socket.peer)
        self.socket = socket
        (self.session, self.framer, isShakingHands) = (session, framer, session != nil)
    }

    fileprivate var slot: Slot { Int(truncatingIfNeeded: token & 0xffff_ffff) }
}

/// The connections of an input by their tokens, those that were silent longest first.
struct Connections {
    private var slots: [Connection?] = []
    private var free: [Int] = []
    /// Counts what was ever added: an event for a connection that is gone must not reach the next in its slot.
    private var serial: UInt64 = 0
    private(set) var count = 0
    private var open = Line(), handshakes = Line()

    /// Connections in the order in which they were heard of.
    private struct Line { var oldest: Int?, newest: Int? }

    /// Tokens below are the collector's own.
    static let firstToken: UInt64 = 1 << 32

    subscript(token: UInt64) -> Connection? {
        let slot = Int(truncatingIfNeeded: token & 0xffff_ffff)
        guard slots.indices.contains(slot), let connection = slots[slot], connection.token == token else { return nil }
        return connection
    }

    var all: [Connection] { slots.compactMap { $0 } }

    /// Gives a connection its token.
    mutating func add(_ connection: Connection, now: Duration) {
        let slot = free.popLast() ?? slots.count
        if slot == slots.count { slots.append(nil) }
        // Some 31 bits are enough: what is mixed up has come 2 billion connections later.
        serial = serial % 0x7fff_ffff + 1
        connection.token = serial << 32 | UInt64(slot)
        slots[slot] = connection
        count += 1
        link(connection, now)
    }

    mutating func remove(_ connection: Connection) {
        unlink(connection)
        slots[connection.slot] = nil
        free.append(connection.slot)
        count -= 1
    }

    /// Notes that something came of it.
    mutating func heard(of connection: Connection, now: Duration) {
        guard !connection.isShakingHands else { return }
        unlink(connection)
        link(connection, now)
    }

    mutating func handshakeEnded(_ connection: Connection, now: Duration) {
        unlink(connection)
        connection.isShakingHands = false
        link(connection, now)
    }

    /// The one that was silent longest, or that shakes hands for longest.
    func oldest(shakingHands: Bool) -> Connection? {
        (shakingHands ? handshakes.oldest : open.oldest).flatMap { slots[$0] }
    }

    private mutating func link(_ connection: Connection, _ now: Duration) {
        connection.heard = now
        change(connection) { line, slots in
            (connection.older, connection.newer) = (line.newest, nil)
            if let newest = line.newest {
                slots[newest]?.newer = connection.slot
            } else {
                line.oldest = connection.slot
            }
            line.newest = connection.slot
        }
    }

    private mutating func unlink(_ connection: Connection) {
        change(connection) { line, slots in
            if let older = connection.older {
                slots[older]?.newer = connection.newer
            } else {
                line.oldest = connection.newer
            }
            if let newer = connection.newer {
                slots[newer]?.older = connection.older
            } else {
                line.newest = connection.older
            }
        }
    }

    private mutating func change(_ connection: Connection, _ body: (inout Line, [Connection?]) -> Void) {
        if connection.isShakingHands { body(&handshakes, slots) } else { body(&open, slots) }
    }
}
