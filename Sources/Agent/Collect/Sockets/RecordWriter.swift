import Bytes
import Kinesis
import Platform
import Synchronization

// Concurrency: belongs to its collector's thread.

/// Writes the records of streams into their input's ring: as they are, with their keys, or as JSON.
///
/// While the ring is full it waits, so that nothing is dropped. All connections of an input are one source: its positions
/// count the bytes of records.
struct RecordWriter: ~Copyable {
    private let feed: Feed
    private let maxRecord: Int
    private let isSyslog: Bool
    private let isObject: Bool
    private var keys: Feed.Keying
    private var ring: RingWriter
    private var position: UInt64 = 0

    private let ofHost = Syslog(isLocal: true)
    private let ofNetwork = Syslog(isLocal: false)
    /// When records come, in nanoseconds since 1970, and the zone by then.
    private var received: Int64 = 0
    private var zone = (minute: Int64.min, secondsEast: 0)

    /// Records gather here, to become one entry.
    private let batch: OwnMemory
    private var used = 0
    private var gathered = 0
    /// Where the first of them begins.
    private var first: UInt64 = 0
    private var isUnpublished = false

    private(set) var figures = Figures()
    /// How long the ring was full, all in all.
    private(set) var heldBack: Duration = .zero

    /// What became of records.
    struct Figures: Equatable {
        var records = 0
        /// Syslog, and what was taken as it came because it is not.
        var parsed = 0, unparsed = 0
        /// Objects that lost the end of their message.
        var truncated = 0
        /// Records that found no place before the lane ended.
        var lost = 0, bytesLost = 0
        /// How long the ring was full.
        var heldBack: Duration = .zero
    }

    /// Who sends a connection's records.
    struct Sender {
        /// The address in digits, or user and process of this machine.
        let peer: [UInt8]
        /// Whether it is on this machine, by a Unix socket.
        let isLocal: Bool

        init(_ peer: Peer) {
            switch peer {
            case .address(let address): (self.peer, isLocal) = (Array(address.host.utf8), false)
            case .process(let process, let user):
                (self.peer, isLocal) = (Array("uid:\(user) pid:\(process)".utf8), true)
            }
        }
    }

    /// Reads the messages of one kind of sender: each of them has a memory of its own.
    private final class Syslog {
        var reader: SyslogReader
        var object: SyslogObjectWriter

        init(isLocal: Bool) {
            reader = SyslogReader(isLocal: isLocal)
            object = SyslogObjectWriter(isLocal: isLocal)
        }
    }

    /// Bytes of records that make an entry worth its while.
    private static let usualBatch = 64 << 10

    init(_ feed: Feed) {
        self.feed = feed
        let settings = feed.input.socket ?? .init()
        (maxRecord, keys) = (feed.input.maxRecord, feed.keys)
        (isSyslog, isObject) = (settings.rules == .syslog, settings.format == .json)
        ring = RingWriter(feed.ring)
        let longest = RecordHead.keyed + SyslogReader.longestField + max(maxRecord, SyslogObjectWriter.leastRoom)
        batch = OwnMemory(max(Self.usualBatch, longest))
    }

    mutating func takeFigures() -> Figures {
        defer { figures = Figures() }
        return figures
    }

    /// Looks at the clock, and at what may have changed, before records of now are written.
    mutating func begin() {
        if feed.keys != keys {
            flush()
            keys = feed.keys
        }
        guard isObject else { return }
        let milliseconds = Machine.wallMilliseconds()
        received = milliseconds * 1_000_000
        let minute = milliseconds / 60_000
        if minute != zone.minute { zone = (minute, Machine.secondsEast(at: milliseconds / 1000)) }
    }

    /// Adds a record.
    mutating func write(_ record: Span<UInt8>, of sender: Sender) {
        let head = keys == .none ? RecordHead.counted : RecordHead.keyed
        let longestObject = max(SyslogObjectWriter.leastRoom, maxRecord)
        let most = isObject ? min(SyslogObjectWriter.room(for: record.count), longestObject) : record.count
        let need = head + (keys == .none ? 0 : SyslogReader.longestField) + most
        if unsafe batch.bytes.count < used + need { flush() }
        let room = unsafe UnsafeMutableRawBufferPointer(rebasing: batch.bytes[used..<used + need])
        let syslog = sender.isLocal ? ofHost : ofNetwork
        let keyBytes = unsafe putKey(of: record, sender, syslog, at: .init(rebasing: room[head...]))
        let data = unsafe UnsafeMutableRawBufferPointer(rebasing: room[(head + keyBytes)...])
        let length: Int
        if isObject {
            let written = unsafe syslog.object.write(
                record,
                peer: sender.peer.span,
                received: received,
                zone: zone.secondsEast,
                into: .init(rebasing: data[..<most])
            )
            length = written.count
            if written.isTruncated { figures.truncated += 1 }
            count(isParsed: written.isParsed)
        } else {
            unsafe record.withUnsafeBytes { unsafe data.copyMemory(from: $0) }
            length = record.count
            if isSyslog { count(isParsed: syslog.reader.isParsed(record)) }
        }
        unsafe room.storeBytes(of: UInt32(length), as: UInt32.self)
        if keys != .none { unsafe room.storeBytes(of: UInt32(keyBytes), toByteOffset: 4, as: UInt32.self) }
        used += head + keyBytes + length
        if gathered == 0 { first = position }
        gathered += 1
        position += UInt64(length)
        if used >= Self.usualBatch { flush() }
    }

    /// Adds a piece of a record that is too long, for the dead letters.
    mutating func write(oversize piece: Span<UInt8>) {
        flush()
        let first = position
        position += UInt64(piece.count)
        let entry = RingEntry(kind: EntryKind.oversize.rawValue, source: feed.source, first: first, end: position)
        while !ring.write(piece, as: entry) {
            guard waitForRoom(piece.count) else { return lose(1, piece.count) }
        }
        figures.records += 1
        isUnpublished = true
    }

    /// Shows the lane everything written so far.
    mutating func publish() {
        flush()
        guard isUnpublished else { return }
        isUnpublished = false
        ring.publish()
        feed.announce()
    }

    private mutating func count(isParsed: Bool) {
        if isParsed { figures.parsed += 1 } else { figures.unparsed += 1 }
    }

    @unsafe
    private func putKey(
        of record: Span<UInt8>,
        _ sender: Sender,
        _ syslog: Syslog,
        at room: UnsafeMutableRawBufferPointer
    ) -> Int {
        guard keys != .none else { return 0 }
        let host = keys == .host ? syslog.reader.host(record).host.range : 0..<0
        let key = host.isEmpty ? sender.peer.span : record.extracting(host)
        unsafe key.withUnsafeBytes { unsafe room.copyMemory(from: $0) }
        return key.count
    }

    /// Makes an entry of the records that have gathered.
    private mutating func flush() {
        guard gathered > 0 else { return }
        defer { (used, gathered) = (0, 0) }
        let kind = keys == .none ? EntryKind.records : .keyed
        let (count, first, end) = (used, first, position)
        let bytes = unsafe UnsafeRawBufferPointer(rebasing: batch.bytes[..<count])
        while true {
            let fits = unsafe ring.write(upTo: count) { (room: UnsafeMutableRawBufferPointer) in
                unsafe room.copyMemory(from: bytes)
                return (count, RingEntry(kind: kind.rawValue, source: feed.source, first: first, end: end))
            }
            if fits { break }
            guard waitForRoom(count) else { return lose(gathered, Int(end - first)) }
        }
        figures.records += gathered
        isUnpublished = true
    }

    private mutating func lose(_ records: Int, _ bytes: Int) {
        figures.lost += records
        figures.bytesLost += bytes
    }

    /// Sleeps until the lane has freed half of the ring, and as much as the next entry needs.
    ///
    /// - Returns: false when the lane has ended, and nothing will be taken any more.
    private mutating func waitForRoom(_ count: Int) -> Bool {
        ring.publish()
        feed.announce()
        let start = Instant.now
        defer {
            heldBack += .now - start
            figures.heldBack += .now - start
        }
        while !feed.isAbandoned {
            feed.isWaitingForRoom.store(true, ordering: .relaxed)
            feed.bell.prepareToSleep()
            let mayGoOn = ring.isHalfFree && ring.hasRoom(for: count)
            if !mayGoOn, !feed.isAbandoned { feed.bell.wait(atMost: .seconds(1)) }
            feed.bell.wake()
            feed.isWaitingForRoom.store(false, ordering: .relaxed)
            if mayGoOn || (ring.isHalfFree && ring.hasRoom(for: count)) { return true }
        }
        return false
    }
}
