package import Bytes
package import Platform
package import Synchronization

/// What joins a collector to its lane: the ring, and a bell at each end.
package final class Feed: Sendable {
    package let input: Configuration.Input
    package let part: Part
    /// The number of its one source, where that is a socket.
    package let source: UInt32
    package let ring: Ring
    /// Rung when the ring has something for a sleeping lane; the lane's own, the same for all its feeds.
    package let laneBell: Doorbell
    /// Rung when the ring has room again, or the collector should stop.
    package let bell: Doorbell
    /// Set while the collector waits until half of the ring is free.
    package let isWaitingForRoom = Atomic<Bool>(false)
    /// Set once the collector has written its last entry.
    package let isFinished = Atomic<Bool>(false)
    /// Set when the collector shall stop reading.
    package let isStopping = Atomic<Bool>(false)
    /// Set when the lane has ended: nothing will be taken out of the ring any more.
    private let abandoned = Atomic<Bool>(false)
    package var isAbandoned: Bool { abandoned.load(ordering: .acquiring) }
    /// Set when another configuration has taken the feed's place, or has none for it.
    private let retired = Atomic<Bool>(false)
    package var isRetired: Bool { retired.load(ordering: .acquiring) }

    package func retire() { retired.store(true, ordering: .releasing) }

    /// What somebody wants to know of the input's files.
    let inquiry = Inquiry<[FileLag]>()

    /// Asks the collector for its files; sockets have none.
    func ask() {
        guard part == .files else { return }
        inquiry.ask()
        bell.ringAlways()
    }

    /// What goes in front of each record of a socket; another configuration may change it.
    private let keying = Atomic<UInt8>(0)
    package var keys: Keying {
        get { Keying(rawValue: keying.load(ordering: .relaxed)) ?? .none }
        set { keying.store(newValue.rawValue, ordering: .relaxed) }
    }

    /// Which of its input's sources a feed brings.
    package enum Part: Equatable, Sendable {
        case files
        /// One of the threads that share its UDP addresses.
        case udp(reader: Int)
        /// Its Unix sockets of datagrams.
        case unixgram
        /// Its connections.
        case streams

        /// Whether the senders cannot be held back, or not for long.
        package var isOfDatagrams: Bool {
            switch self {
            case .udp, .unixgram: true
            case .files, .streams: false
            }
        }

        /// Bytes of the ring: it holds the longest record twice, as an entry must find room; a record of a stream may have its
        /// key with it, and datagrams cannot wait for the lane.
        func ringBytes(for input: Configuration.Input) -> Int {
            switch self {
            case .files: input.ringBytes
            case .streams: 2 * input.ringBytes
            case .udp, .unixgram: 4 << 20
            }
        }
    }

    /// What of a message its partition key is, where that does not depend on the source alone.
    package enum Keying: UInt8, Sendable { case none, peer, host }

    package init(
        _ input: Configuration.Input,
        _ part: Part = .files,
        source: UInt32 = 0,
        ringBytes: Int? = nil,
        laneBell: Doorbell
    ) throws(SystemError) {
        (self.input, self.part, self.source) = (input, part, source)
        ring = Ring(capacity: ringBytes ?? part.ringBytes(for: input))
        self.laneBell = laneBell
        bell = try Doorbell()
    }

    /// Tells the lane that there is something in the ring.
    package func announce() { laneBell.ring() }

    /// Wakes the collector if it waits for room and there is enough: called by the lane after it has taken entries.
    package func announceRoom(_ reader: borrowing RingReader) {
        guard bell.isOwnerAsleep, isWaitingForRoom.load(ordering: .relaxed), reader.isHalfFree else { return }
        bell.ring()
    }

    /// Whether nothing will be written any more.
    package var hasEnded: Bool { isFinished.load(ordering: .acquiring) }

    /// Says that nothing will be written any more.
    package func end() {
        isFinished.store(true, ordering: .releasing)
        laneBell.ring()
    }

    /// Says that the lane has ended, so that a collector does not wait for it.
    package func abandon() {
        abandoned.store(true, ordering: .releasing)
        bell.ringAlways()
    }

    /// Asks the collector to stop reading.
    ///
    /// What it has read stays in the ring.
    package func stop() {
        isStopping.store(true, ordering: .releasing)
        bell.ringAlways()
    }
}

/// What an entry of a feed's ring holds.
package enum EntryKind: UInt32 {
    /// Whole lines, each with its line end.
    case lines
    /// Records, each behind its length (`RecordHead.counted` bytes).
    case records
    /// Records, each behind its length, its partition key's length, and the key (`RecordHead.keyed` bytes and the key).
    case keyed
    /// One record, without a line end.
    case record
    /// A line that is longer than a record may be, or a piece of it, for the dead letters.
    case oversize
    /// Nothing: bytes of the source that become no record.
    case skipped
}
