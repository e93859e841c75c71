import Bytes
import Kinesis
import Platform

// Concurrency: belongs to its collector's thread; only the ring is shared.

/// Receives datagrams into a ring: as they are, straight into its memory, or with their keys, or as JSON.
@safe
final class DatagramReader {
    private let input: Configuration.Input
    private let settings: Configuration.SocketSettings
    private let source: UInt32
    let keys: Feed.Keying
    private var batch: DatagramBatch
    /// Behind the last record that is in the ring.
    private var position: UInt64

    /// Datagrams that do not go straight into the ring wait here for that.
    private let slab: UnsafeMutableRawBufferPointer
    private let isSyslog: Bool
    private let isObject: Bool
    /// A longer object loses the end of its message.
    private let longestObject: Int
    private var syslog: SyslogReader
    private var object: SyslogObjectWriter
    private let peer: UnsafeMutableRawBufferPointer
    private var zone = (minute: Int64.min, secondsEast: 0)

    private var waiting = 0..<0
    private var waitingFrom: DatagramSource?
    private var joined: [UInt8] = []

    /// Datagrams of a call: of UDP more bring nothing, and in a Unix socket's queue there are seldom more.
    private static let most = (udp: 128, unix: 16)
    /// Bytes of the ring, or of the slab, that a call gets.
    private static let room = 256 << 10
    /// No datagram of UDP is longer; those of Unix sockets are as long as their senders' buffers allow.
    private static let longest = (udp: 64 << 10, unix: 1 << 20)

    enum Step: Equatable {
        /// So many came, and there may be more.
        case more(Int)
        /// So many came, and the socket is empty.
        case last(Int)
        /// The ring has no room.
        case full
    }

    /// - Parameter position: where the source's positions go on.
    init(_ input: Configuration.Input, _ settings: Configuration.SocketSettings, feed: Feed, position: UInt64) {
        (self.input, self.settings, source, keys) = (input, settings, feed.source, feed.keys)
        self.position = position
        let isUnix = feed.part == .unixgram
        batch = DatagramBatch(
            most: isUnix ? Self.most.unix : Self.most.udp,
            longest: isUnix ? Self.longest.unix : Self.longest.udp,
            tellsOrigin: keys != .none || settings.format == .json
        )
        (isSyslog, isObject) = (settings.rules == .syslog, settings.format == .json)
        let roomForObject = feed.ring.largestPayload - RecordHead.keyed - SyslogReader.longestField
        longestObject = min(max(SyslogObjectWriter.leastRoom, input.maxRecord), roomForObject)
        syslog = SyslogReader(isLocal: isUnix)
        object = SyslogObjectWriter(isLocal: isUnix)
        unsafe slab = .allocate(byteCount: Self.room, alignment: 64)
        unsafe peer = .allocate(byteCount: DatagramBatch.longestSender, alignment: 8)
    }

    deinit {
        unsafe slab.deallocate()
        unsafe peer.deallocate()
    }

    /// Where the source's positions have come to.
    var end: UInt64 { position }

    /// Receives what one call brings into the ring.
    func step(_ from: DatagramSource, into writer: inout RingWriter) throws(SystemError) -> Step {
        guard putWaiting(into: &writer) else { return .full }
        return keys == .none && !isObject ? try receive(from, into: &writer) : try receiveApart(from, into: &writer)
    }

    /// Whether datagrams that were received have found no room in the ring.
    var isHolding: Bool { !waiting.isEmpty }

    /// Bytes that the next entry needs, at most.
    var neededRoom: Int { isHolding ? max(Self.room, room(for: waiting.lowerBound)) : Self.room }

    /// Receives what one call brings, and drops it.
    func discard(_ from: DatagramSource) throws(SystemError) -> (count: Int, bytes: Int, isLast: Bool) {
        if let held = waitingFrom, isHolding {
            let bytes = waiting.reduce(0) { $0 + batch.length($1) }
            held.counters.droppedByPolicy.add(waiting.count)
            held.counters.bytesDropped.add(bytes)
            defer { waiting = 0..<0 }
            return (waiting.count, bytes, false)
        }
        let stride = from.slots.bytes
        let most = min(batch.most, Self.room / stride)
        let count = unsafe try batch.receive(from: from.socket, into: slab, stride: stride, head: 4)
        let (bytes, longest) = tally(count, from)
        if longest > stride - 4 { batch.trim() }
        from.counters.droppedByPolicy.add(count)
        from.counters.bytesDropped.add(bytes)
        return (count, bytes, count < most)
    }

    // MARK: straight into the ring

    private func receive(_ from: DatagramSource, into writer: inout RingWriter) throws(SystemError) -> Step {
        let stride = from.slots.bytes
        let most = min(batch.most, Self.room / stride)
        var (count, isApart) = (0, false)
        let fits = unsafe try writer.write(upTo: most * stride) {
            (room: UnsafeMutableRawBufferPointer) throws(SystemError) in
            count = unsafe try batch.receive(from: from.socket, into: room, stride: stride, head: 4)
            guard count > 0 else { return nil }
            let (bytes, longest) = tally(count, from)
            from.slots.saw(longest)
            guard longest <= stride - 4 else {
                // Not all is in its slot: it is put together outside.
                unsafe slab.copyMemory(from: .init(rebasing: room[..<(count * stride)]))
                isApart = true
                return nil
            }
            if isSyslog { unsafe classify(count, from, room, stride: stride) }
            let used = unsafe batch.pack(count, in: room)
            let first = position
            position += UInt64(bytes)
            return (used, RingEntry(kind: EntryKind.records.rawValue, source: source, first: first, end: position))
        }
        guard fits else { return .full }
        if isApart {
            (waiting, waitingFrom) = (0..<count, from)
            _ = putWaiting(into: &writer)
        }
        return count == most ? .more(count) : .last(count)
    }

    /// Counts which of the datagrams in their slots are syslog.
    @unsafe
    private func classify(_ count: Int, _ from: DatagramSource, _ slots: UnsafeMutableRawBufferPointer, stride: Int) {
        var parsed = 0
        for index in 0..<count {
            let start = index * stride + 4
            let bytes = unsafe UnsafeRawBufferPointer(rebasing: slots[start..<start + batch.length(index)])
            if unsafe syslog.isParsed(Span(_unsafeBytes: bytes)) { parsed += 1 }
        }
        from.counters.parsed.add(parsed)
        if parsed < count { from.counters.unparsed.add(count - parsed) }
    }

    /// Counts what came; its bytes, and those of the longest.
    private func tally(_ count: Int, _ from: DatagramSource) -> (bytes: Int, longest: Int) {
        var (bytes, longest, empty, oversize) = (0, 0, 0, 0)
        for index in 0..<count {
            let length = batch.length(index)
            bytes += length
            longest = max(longest, length)
            if length == 0 { empty += 1 }
            if length > input.maxRecord { oversize += 1 }
        }
        from.counters.received.add(count)
        from.counters.bytes.add(bytes)
        if empty > 0 { from.counters.empty.add(empty) }
        if oversize > 0 { from.counters.oversize.add(oversize) }
        return (bytes, longest)
    }

    // MARK: one by one

    private func receiveApart(_ from: DatagramSource, into writer: inout RingWriter) throws(SystemError) -> Step {
        // Better left in the kernel's queue than held here.
        guard writer.hasRoom(for: Self.room) else { return .full }
        let stride = from.slots.bytes
        let most = min(batch.most, Self.room / stride)
        let count = unsafe try batch.receive(from: from.socket, into: slab, stride: stride, head: 4)
        guard count > 0 else { return .last(0) }
        from.slots.saw(tally(count, from).longest)
        (waiting, waitingFrom) = (0..<count, from)
        _ = putWaiting(into: &writer)
        return count == most ? .more(count) : .last(count)
    }

    /// Writes the datagrams in the slab into the ring, in as few entries as hold them; false if some found no room.
    private func putWaiting(into writer: inout RingWriter) -> Bool {
        guard isHolding, let from = waitingFrom else { return true }
        var isLong = false
        while isHolding {
            let first = position
            let fits = unsafe writer.write(upTo: max(Self.room, room(for: waiting.lowerBound))) {
                (room: UnsafeMutableRawBufferPointer) in
                var used = 0
                while isHolding, used + self.room(for: waiting.lowerBound) <= room.count {
                    let index = waiting.lowerBound
                    used += unsafe put(index, from, at: .init(rebasing: room[used...]))
                    isLong = isLong || !batch.fits(index)
                    waiting = index + 1..<waiting.upperBound
                }
                let kind = keys == .none ? EntryKind.records : .keyed
                return (used, RingEntry(kind: kind.rawValue, source: source, first: first, end: position))
            }
            guard fits else { return false }
        }
        if isLong { batch.trim() }
        return true
    }

    /// Bytes that a datagram takes in an entry, at most.
    private func room(for index: Int) -> Int {
        let length = min(batch.length(index), Self.longest.unix + SlotSize.largest)
        let data = isObject ? min(SyslogObjectWriter.room(for: length), longestObject) : length
        return RecordHead.keyed + SyslogReader.longestField + data
    }

    /// Writes a datagram, with its key if it has one; returns the bytes it took.
    @unsafe
    private func put(_ index: Int, _ from: DatagramSource, at room: UnsafeMutableRawBufferPointer) -> Int {
        let base = room.baseAddress!
        let head = keys == .none ? RecordHead.counted : RecordHead.keyed
        let peerBytes = unsafe keys == .none && !isObject ? 0 : batch.sender(index, into: peer)
        let sender = unsafe UnsafeRawBufferPointer(rebasing: peer[..<peerBytes])
        let (keyBytes, length, isParsed) = unsafe batch.withBytes(index, of: slab, joinedIn: &joined) { bytes in
            if bytes.count < batch.length(index) { from.counters.truncated.add(1) }
            let host = keys == .host ? syslog.host(bytes).host.range : 0..<0
            let key = unsafe UnsafeMutableRawBufferPointer(rebasing: room[head...])
            var keyBytes = 0
            if !host.isEmpty {
                keyBytes = host.count
                unsafe bytes.extracting(host).withUnsafeBytes { unsafe key.copyMemory(from: $0) }
            } else if keys != .none {
                keyBytes = peerBytes
                unsafe key.copyMemory(from: sender)
            }
            let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: room[(head + keyBytes)...])
            guard isObject else {
                unsafe bytes.withUnsafeBytes { unsafe rest.copyMemory(from: $0) }
                return (keyBytes, bytes.count, isSyslog && syslog.isParsed(bytes))
            }
            let written = unsafe object.write(
                bytes,
                peer: Span(_unsafeBytes: sender),
                received: received(index),
                zone: zone.secondsEast,
                into: .init(rebasing: rest[..<min(rest.count, longestObject)])
            )
            if written.isTruncated { from.counters.truncated.add(1) }
            return (keyBytes, written.count, written.isParsed)
        }
        if isSyslog {
            if isParsed { from.counters.parsed.add(1) } else { from.counters.unparsed.add(1) }
        }
        unsafe base.storeBytes(of: UInt32(length), as: UInt32.self)
        if keys != .none { unsafe base.storeBytes(of: UInt32(keyBytes), toByteOffset: 4, as: UInt32.self) }
        position += UInt64(length)
        return head + keyBytes + length
    }

    /// When a datagram came, in nanoseconds since 1970; learns what the time zone is by then.
    private func received(_ index: Int) -> Int64 {
        var time = batch.time(index)
        if time == 0 { time = Machine.wallMilliseconds() * 1_000_000 }
        let minute = time / 60_000_000_000
        if minute != zone.minute { zone = (minute, Machine.secondsEast(at: time / 1_000_000_000)) }
        return time
    }
}
