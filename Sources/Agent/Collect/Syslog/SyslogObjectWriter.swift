internal import Bytes
internal import CText
internal import Kinesis

/// Writes a syslog message as one JSON object, into memory of the caller's; allocates only for times that it has not met.
///
/// The members, in this order; what the message does not say is left out:
///
///     received         when it was received: RFC 3339, UTC, microseconds
///     timestamp        when it was sent, by the message; RFC 3339. What is that already stays as it is. A missing zone is the
///                      receiver's, a missing year the one that brings the time nearest to its receipt
///     facility         kern user mail … local7
///     severity         emerg alert crit err warning notice info debug
///     host app procid msgid
///     structured_data  {"id":{"name":"value"}}; a name that comes again in its element has an array of its values
///     peer             who sent it
///     unparsed         true, if it is no syslog
///     message          the rest
///     truncated        true, if `out` was too small: the message is cut, structured data too large is left out
///
/// Bytes that are no UTF-8 are replaced by U+FFFD.
package struct SyslogObjectWriter: ~Copyable {
    package struct Written {
        /// Bytes of the object.
        package var count: Int
        package var isParsed: Bool
        package var isTruncated: Bool
        /// The host's place in the message; empty if it has none.
        package var host: SyslogMessage.Part
    }

    private var reader: SyslogReader
    /// `,"facility":"…","severity":"…"` by priority.
    private let priorities: FixedArray<PreparedText>
    private var times = SyslogTimeWriter()
    private var senders = SenderCache()
    private var structuredData = StructuredDataWriter()
    /// The first bytes of a message that is shorter than `opening`.
    private let scratch = OwnMemory(opening)

    private var lastPeer: (low: UInt64, high: UInt64, count: Int) = (0, 0, 0)
    private var peerText = PreparedText()

    /// The least memory that `write` takes: fields of full length, each byte escaped.
    package static let leastRoom = 8192 + ObjectText.slack
    /// A peer's name is at most this long.
    package static let longestPeer = 255
    /// Bytes of a message that are read without asking whether they are there: priority, time and sender.
    private static let opening = 128

    /// Memory with which no object of a message of `count` bytes is cut.
    package static func room(for count: Int) -> Int { leastRoom + 6 * count }

    /// - Parameter isLocal: whether the messages come through a Unix socket.
    package init(isLocal: Bool = false) {
        reader = SyslogReader(isLocal: isLocal)
        priorities = FixedArray(count: 192) { priority in
            var text = ByteWriter()
            text.append(",\"facility\":\"")
            text.append(SyslogMessage.facilities[priority >> 3])
            text.append("\",\"severity\":\"")
            text.append(SyslogMessage.severities[priority & 7])
            text.append("\"")
            return text.withBytes { PreparedText($0) }
        }
    }

    /// Writes the object of the message `bytes`.
    ///
    /// What it costs depends on what the last messages have said; what it writes does not.
    /// - Parameters:
    ///   - peer: who sent it, `longestPeer` bytes at most; empty if that is not known.
    ///   - received: nanoseconds since 1970.
    ///   - zone: the receiver's seconds east of UTC.
    ///   - out: `leastRoom` at least.
    package mutating func write(
        _ bytes: Span<UInt8>,
        peer: Span<UInt8>,
        received: Int64,
        zone: Int,
        into out: UnsafeMutableRawBufferPointer
    ) -> Written {
        precondition(out.count >= Self.leastRoom && peer.count <= Self.longestPeer && bytes.count <= Int32.max)
        var text = unsafe ObjectText(out, reserve: 32)
        times.putReceived(received, zone, &text)
        let opening = bytes.count >= Self.opening ? bytes : unsafe Span(_unsafeBytes: padded(bytes))
        guard let (end, kind) = putKnownTime(opening, &text) else {
            return writeTime(bytes, opening, peer, received, &text)
        }
        return writeKnownSender(bytes, opening, peer, end, kind, &text)
    }

    /// Writes the time and the priority of a message that begins with both, if such a time was met before.
    ///
    /// - Returns: where what follows begins.
    @inline(__always)
    private func putKnownTime(
        _ opening: Span<UInt8>,
        _ text: inout ObjectText
    ) -> (end: Int, kind: SenderCache.Kind)? {
        let (priority, at) = unsafe SyslogReader.priority(opening.word(uncheckedAt: 0), at: 0)
        guard priority != SyslogMessage.noPriority else { return nil }
        var (end, kind) = (at &+ 16, ctext_sender_bsd)
        if !times.stamps.putBSD(opening, at, &text) {
            let isStructured = unsafe opening.word(uncheckedAt: at) & 0xffff == SyslogReader.version
            guard let behind = times.stamps.putExact(opening, isStructured ? at &+ 2 : at, &text) else { return nil }
            (end, kind) = (behind, isStructured ? ctext_sender_structured : ctext_sender_bsd)
        }
        unsafe text.put(priorities[unchecked: Int(priority)])
        return (end, kind)
    }

    /// Writes everything behind time and priority, as it is known if the sender was met before.
    @inline(__always)
    private mutating func writeKnownSender(
        _ bytes: Span<UInt8>,
        _ opening: Span<UInt8>,
        _ peer: Span<UInt8>,
        _ end: Int,
        _ kind: SenderCache.Kind,
        _ text: inout ObjectText
    ) -> Written {
        guard let sender = unsafe senders.write(opening, end, kind, peer, to: text.end) else {
            let head = SyslogReader.Head(follows: kind == ctext_sender_structured ? .fields : .host, end: end)
            return writeSender(bytes, opening, peer, head, .init(), isParsed: true, &text)
        }
        var start = end &+ sender.headCount
        let host = sender.host(end)
        if kind == ctext_sender_structured {
            let next = bytes.word(at: start)
            guard next & 0xffff == Self.noData else {
                text.count(sender.fieldCount)
                return writeData(bytes, peer, start, host, &text)
            }
            start &+= next >> 16 & 0xff_ffff == SyslogReader.mark ? 5 : 2
        }
        text.count(sender.textCount)
        return finish(bytes, start, host, &text)
    }

    /// `- `, for structured data.
    private static let noData: UInt64 = 0x202d

    /// Writes the text, behind everything else.
    @inline(__always)
    private func finish(
        _ bytes: Span<UInt8>,
        _ start: Int,
        _ host: SyslogMessage.Part,
        isParsed: Bool = true,
        isWhole: Bool = true,
        _ text: inout ObjectText
    ) -> Written {
        let range = SyslogReader.text(bytes, start).range
        let isWhole = text.escape(bytes, range.lowerBound, range.upperBound) && isWhole
        if isWhole { text.put("\"}") } else { text.put("\",\"truncated\":true}") }
        return Written(count: text.count, isParsed: isParsed, isTruncated: !isWhole, host: host)
    }

    /// The message with zeros behind it.
    @unsafe @inline(never)
    private func padded(_ bytes: Span<UInt8>) -> UnsafeRawBufferPointer {
        unsafe scratch.bytes.initializeMemory(as: UInt8.self, repeating: 0)
        unsafe bytes.withUnsafeBytes { unsafe scratch.bytes.copyMemory(from: $0) }
        return unsafe UnsafeRawBufferPointer(scratch.bytes)
    }

    // MARK: what was not met before

    /// Writes everything from the time on, and learns it.
    @inline(never)
    private mutating func writeTime(
        _ bytes: Span<UInt8>,
        _ opening: Span<UInt8>,
        _ peer: Span<UInt8>,
        _ received: Int64,
        _ text: inout ObjectText
    ) -> Written {
        var message = SyslogMessage()
        let head = reader.head(bytes, &message)
        if message.isParsed {
            times.put(message, bytes, received, &text)
            if message.priority != SyslogMessage.noPriority { text.put(priorities[Int(message.priority)]) }
            // Its sixteen bytes, if they are a time as it is in RFC 3164.
            let start = head.end - 16
            times.learn(message, opening, reader.isBSDTime(message.time, bytes, start) ? start : nil)
        }
        // What a sender's entry does not hold: a host in front of the time.
        guard let kind = head.kind, head.end <= Self.opening - SenderCache.window, message.host.isEmpty else {
            return writeSender(bytes, opening, peer, head, message.host, isParsed: message.isParsed, &text)
        }
        return writeKnownSender(bytes, opening, peer, head.end, kind, &text)
    }

    /// Writes everything behind time and priority, and learns the sender.
    ///
    /// - Parameter host: what is known of it.
    @inline(never)
    private mutating func writeSender(
        _ bytes: Span<UInt8>,
        _ opening: Span<UInt8>,
        _ peer: Span<UInt8>,
        _ head: SyslogReader.Head,
        _ host: SyslogMessage.Part,
        isParsed: Bool,
        _ text: inout ObjectText
    ) -> Written {
        var message = SyslogMessage()
        message.host = host
        let sender = reader.sender(bytes, head, &message)
        let start = text.count
        text.put(",\"host\":\"", message.host, of: bytes)
        text.put(",\"app\":\"", message.application, of: bytes)
        text.put(",\"procid\":\"", message.processID, of: bytes)
        text.put(",\"msgid\":\"", message.messageID, of: bytes)
        let fields = start..<text.count
        var end = sender.end
        var isWhole = true
        if sender.hasData { end = putData(bytes, end, peer, &isWhole, &text) }
        let rest = text.count
        if peer.count > 0 { putPeer(peer, &text) }
        if !isParsed { text.put(",\"unparsed\":true") }
        text.put(",\"message\":\"")
        // Of RFC 3164 only with a tag, behind which nothing else was looked at.
        if let kind = head.kind, host.isEmpty, head.end <= Self.opening - SenderCache.window,
            sender.hasData || kind == ctext_sender_bsd && !message.application.isEmpty
        {
            text.withText(fields) { fields in
                text.withText(rest..<text.count) { rest in
                    senders.learn(
                        opening,
                        head.end,
                        sender.end,
                        kind,
                        host: message.host,
                        peer,
                        fields: fields,
                        rest: rest
                    )
                }
            }
        }
        return finish(bytes, end, message.host, isParsed: isParsed, isWhole: isWhole, &text)
    }

    /// Writes the structured data that begins at `start`, and everything behind it.
    @inline(never)
    private mutating func writeData(
        _ bytes: Span<UInt8>,
        _ peer: Span<UInt8>,
        _ start: Int,
        _ host: SyslogMessage.Part,
        _ text: inout ObjectText
    ) -> Written {
        var isWhole = true
        let end = putData(bytes, start, peer, &isWhole, &text)
        if peer.count > 0 { putPeer(peer, &text) }
        text.put(",\"message\":\"")
        return finish(bytes, end, host, isWhole: isWhole, &text)
    }

    /// Writes the structured data that begins at `start`, if there is any.
    ///
    /// - Returns: where the text begins.
    private mutating func putData(
        _ bytes: Span<UInt8>,
        _ start: Int,
        _ peer: Span<UInt8>,
        _ isWhole: inout Bool,
        _ text: inout ObjectText
    ) -> Int {
        var message = SyslogMessage()
        let end = SyslogReader.data(bytes, start, &message)
        if !message.structuredData.isEmpty {
            isWhole = structuredData.put(message.structuredData, bytes, reserve: 6 * peer.count + 64, &text)
        }
        return end
    }

    /// The peer, which has sent the message before most often.
    @inline(__always)
    private mutating func putPeer(_ peer: Span<UInt8>, _ text: inout ObjectText) {
        let (low, high) = (peer.word(at: 0), peer.word(at: 8))
        if low == lastPeer.low, high == lastPeer.high, peer.count == lastPeer.count { return text.put(peerText) }
        putNewPeer(peer, &text)
    }

    @inline(never)
    private mutating func putNewPeer(_ peer: Span<UInt8>, _ text: inout ObjectText) {
        let start = text.count
        text.put(",\"peer\":\"", .init(0, peer.count), of: peer)
        guard peer.count <= 16, text.count - start <= PreparedText.mostBytes else { return }
        lastPeer = (peer.word(at: 0), peer.word(at: 8), peer.count)
        peerText = text.prepared(from: start)
    }
}
