internal import Bytes
internal import Kinesis

/// Writes a syslog message as one JSON object, into memory of the caller's; allocates nothing.
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

    // The text of the last times: most messages have the same again.
    private var second = Int64.min
    private var receivedText = PreparedText()
    private var time = SyslogTime()
    private var timeFrame: (hour: Int64, zone: Int) = (.min, 0)
    private var timeText = PreparedText()

    private var lastPeer: (low: UInt64, high: UInt64, count: Int) = (0, 0, 0)
    private var peerText = PreparedText()

    private var parameters: [StructuredData.Parameter] = []

    /// The least memory that `write` takes: fields of full length, each byte escaped.
    package static let leastRoom = 8192 + ObjectText.slack
    /// A peer's name is at most this long.
    package static let longestPeer = 255

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
        parameters.reserveCapacity(StructuredData.mostParameters)
    }

    /// Writes the object of the message `bytes`.
    ///
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
        putReceived(received, &text)
        let message = reader.read(bytes)
        if message.isParsed {
            putTime(message, bytes, received, zone, &text)
            if message.priority != SyslogMessage.noPriority { text.put(priorities[Int(message.priority)]) }
            Self.put(",\"host\":\"", message.host, bytes, &text)
            Self.put(",\"app\":\"", message.application, bytes, &text)
            Self.put(",\"procid\":\"", message.processID, bytes, &text)
            Self.put(",\"msgid\":\"", message.messageID, bytes, &text)
        }
        var isWhole = true
        if !message.structuredData.isEmpty {
            isWhole = putStructuredData(message.structuredData, bytes, reserve: 6 * peer.count + 64, &text)
        }
        if peer.count > 0 { putPeer(peer, &text) }
        if !message.isParsed { text.put(",\"unparsed\":true") }
        text.put(",\"message\":\"")
        let range = message.text.range
        if !text.escape(bytes, range.lowerBound, range.upperBound) { isWhole = false }
        if isWhole { text.put("\"}") } else { text.put("\",\"truncated\":true}") }
        return Written(count: text.count, isParsed: message.isParsed, isTruncated: !isWhole, host: message.host)
    }

    @inline(__always)
    private static func put(
        _ key: StaticString,
        _ part: SyslogMessage.Part,
        _ bytes: Span<UInt8>,
        _ text: inout ObjectText
    ) {
        guard !part.isEmpty else { return }
        text.put(key)
        text.put(part, of: bytes)
        text.put("\"")
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
        Self.put(",\"peer\":\"", .init(0, peer.count), peer, &text)
        guard peer.count <= 16, text.count - start <= PreparedText.mostBytes else { return }
        lastPeer = (peer.word(at: 0), peer.word(at: 8), peer.count)
        peerText = text.prepared(from: start)
    }

    // MARK: times

    @inline(__always)
    private mutating func putReceived(_ received: Int64, _ text: inout ObjectText) {
        var (now, nanosecond) = received.quotientAndRemainder(dividingBy: 1_000_000_000)
        if nanosecond < 0 { (now, nanosecond) = (now - 1, nanosecond + 1_000_000_000) }
        if now != second { prepareReceived(now) }
        text.put(receivedText)
        text.put(sixDigits: Int(nanosecond / 1000))
        text.put("Z\"")
    }

    @inline(never)
    private mutating func prepareReceived(_ now: Int64) {
        second = now
        let civil = CivilTime(unixSeconds: now)
        let time = SyslogTime(
            year: civil.year,
            month: civil.month,
            day: civil.day,
            hour: civil.hour,
            minute: civil.minute,
            second: civil.second
        )!
        var out = ByteWriter()
        out.append("{\"received\":\"")
        // Without its Z.
        out.append(time, received: 0, zone: 0, without: 1)
        out.append(".")
        receivedText = out.withBytes { PreparedText($0) }
    }

    @inline(__always)
    private mutating func putTime(
        _ message: SyslogMessage,
        _ bytes: Span<UInt8>,
        _ received: Int64,
        _ zone: Int,
        _ text: inout ObjectText
    ) {
        if !message.timeText.isEmpty {
            Self.put(",\"timestamp\":\"", message.timeText, bytes, &text)
        } else if message.time.isThere {
            // The guess of a year may change with the hour.
            let frame = (hour: second >> 12, zone: zone)
            if message.time != time || frame != timeFrame { prepareTime(message.time, received, frame) }
            text.put(",\"timestamp\":\"")
            text.put(timeText)
        }
    }

    @inline(never)
    private mutating func prepareTime(_ new: SyslogTime, _ received: Int64, _ frame: (hour: Int64, zone: Int)) {
        (time, timeFrame) = (new, frame)
        var out = ByteWriter()
        out.append(time, received: received, zone: frame.zone, without: 0)
        out.append("\"")
        timeText = out.withBytes { PreparedText($0) }
    }
    // MARK: structured data

    /// Writes the elements as an object of objects, or nothing if there is no room.
    ///
    /// - Parameter reserve: bytes that what follows needs.
    @inline(never)
    private mutating func putStructuredData(
        _ part: SyslogMessage.Part,
        _ bytes: Span<UInt8>,
        reserve: Int,
        _ text: inout ObjectText
    ) -> Bool {
        parameters.removeAll(keepingCapacity: true)
        _ = StructuredData.parse(bytes, Int(part.start)) { parameters.append($0) }
        let start = text.count
        text.setAside(reserve)
        defer { text.setAside(-reserve) }
        text.put(",\"structured_data\":{")
        for index in parameters.indices {
            let element = parameters[index].element
            // An element that comes again belongs to the first one.
            guard !parameters[..<index].contains(where: { Self.same($0.element, element, bytes) }) else { continue }
            if index > 0 { text.put(",") }
            guard putElement(from: index, bytes, &text) else {
                text.rewind(to: start)
                return false
            }
        }
        text.put("}")
        return true
    }

    /// The parameters of all elements that are named as the one of the parameter `first`.
    private func putElement(from first: Int, _ bytes: Span<UInt8>, _ text: inout ObjectText) -> Bool {
        let element = parameters[first].element
        guard text.hasRoom(for: SyslogReader.longestField + 16) else { return false }
        text.put("\"")
        text.put(element, of: bytes)
        text.put("\":{")
        var isFirst = true
        for index in first..<parameters.count where Self.same(parameters[index].element, element, bytes) {
            let name = parameters[index].name
            func isSame(_ other: StructuredData.Parameter) -> Bool {
                Self.same(other.element, element, bytes) && Self.same(other.name, name, bytes)
            }
            guard !name.isEmpty, !parameters[first..<index].contains(where: isSame) else { continue }
            guard text.hasRoom(for: SyslogReader.longestField + 16) else { return false }
            if !isFirst { text.put(",") }
            isFirst = false
            text.put("\"")
            text.put(name, of: bytes)
            text.put("\":")
            let isMany = parameters[(index + 1)...].contains(where: isSame)
            if isMany { text.put("[") }
            guard putValue(parameters[index].value, bytes, &text) else { return false }
            if isMany {
                for other in parameters[(index + 1)...] where isSame(other) {
                    text.put(",")
                    guard putValue(other.value, bytes, &text) else { return false }
                }
                text.put("]")
            }
        }
        text.put("}")
        return true
    }

    /// A value without its escapes: a backslash before anything but a quote, a backslash or a bracket stands for itself.
    private func putValue(_ part: SyslogMessage.Part, _ bytes: Span<UInt8>, _ text: inout ObjectText) -> Bool {
        text.put("\"")
        var (from, end) = (part.range.lowerBound, part.range.upperBound)
        while let backslash = Self.backslash(bytes, from, end) {
            let isEscape = [UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "]")].contains(bytes[backslash + 1])
            guard text.escape(bytes, from, isEscape ? backslash : backslash + 1) else { return false }
            guard text.escape(bytes, backslash + 1, backslash + 2) else { return false }
            from = backslash + 2
        }
        end = max(from, end)
        guard text.escape(bytes, from, end), text.hasRoom(for: 16) else { return false }
        text.put("\"")
        return true
    }

    /// The first backslash that has a byte behind it.
    private static func backslash(_ bytes: Span<UInt8>, _ start: Int, _ end: Int) -> Int? {
        var at = start
        while at + 1 < end {
            if bytes[at] == UInt8(ascii: "\\") { return at }
            at += 1
        }
        return nil
    }

    private static func same(_ one: SyslogMessage.Part, _ other: SyslogMessage.Part, _ bytes: Span<UInt8>) -> Bool {
        guard one.count == other.count else { return false }
        for (left, right) in zip(one.range, other.range) where bytes[left] != bytes[right] { return false }
        return true
    }
}

extension ByteWriter {
    fileprivate mutating func append(_ time: SyslogTime, received: Int64, zone: Int, without last: Int) {
        unsafe append(upTo: SyslogTime.mostBytes) { room in
            var span = unsafe MutableSpan<UInt8>(_unsafeElements: room.bindMemory(to: UInt8.self))
            return time.write(received: received, zone: zone, to: &span) - last
        }
    }
}
