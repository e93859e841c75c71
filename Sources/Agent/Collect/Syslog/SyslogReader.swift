internal import Bytes
internal import CText

/// Reads the head of a syslog message: RFC 5424, RFC 3164, and what is sent in their name.
///
/// A message is parsed if it begins with a priority, `<0>` to `<191>`, or with a time: what can be recognised behind that is
/// taken, and everything else is its text. Reads no further than it must, and allocates nothing. Keeps the last times it has
/// read, because most messages have the same one as the message before them.
package struct SyslogReader: Sendable {
    /// Whether senders leave their host out of RFC 3164, as glibc's syslog() does: what stands in its place is the tag.
    private let isLocal: Bool
    private var lastBSD: Known
    private var lastISO: Known

    /// Sixteen bytes that were read as a time, or the first part of one.
    private struct Known: Sendable {
        let low, high: UInt64
        let time: SyslogTime

        init(_ bytes: Span<UInt8>, at: Int, _ time: SyslogTime) {
            (low, high) = (bytes.word(at: at), bytes.word(at: at &+ 8))
            self.time = time
        }
    }

    /// Fields of the head are at most this long; what is longer is text.
    package static let longestField = 255

    /// - Parameter isLocal: whether the messages come through a Unix socket.
    package init(isLocal: Bool = false) {
        self.isLocal = isLocal
        let (bsd, iso) = (Array("Jan  1 00:00:00 ".utf8), Array("2000-01-01T00:00".utf8))
        lastBSD = Known(bsd.span, at: 0, StampCursor.bsdTime(bsd.span, 0)!)
        lastISO = Known(iso.span, at: 0, StampCursor.isoMinute(iso.span, 0)!)
    }

    // MARK: the three questions

    /// Whether the message is syslog: what the raw format counts.
    package mutating func isParsed(_ bytes: Span<UInt8>) -> Bool {
        if Self.priority(bytes, at: 0).value != SyslogMessage.noPriority { return true }
        var message = SyslogMessage()
        _ = head(bytes, &message)
        return message.isParsed
    }

    /// Whether the message is syslog, and its host; empty if it has none.
    package mutating func host(_ bytes: Span<UInt8>) -> (isParsed: Bool, host: SyslogMessage.Part) {
        var message = SyslogMessage()
        let head = head(bytes, &message)
        switch head.follows {
        case .fields: _ = Self.field(bytes, head.end, &message.host)
        case .host where !isLocal: _ = Self.bsdHost(bytes, head.end, &message.host)
        case .host, .tag, .text: break
        }
        return (message.isParsed, message.host)
    }

    /// Everything that the message says.
    package mutating func read(_ bytes: Span<UInt8>) -> SyslogMessage {
        var message = SyslogMessage()
        let head = head(bytes, &message)
        let sender = sender(bytes, head, &message)
        message.text = Self.text(bytes, sender.hasData ? Self.data(bytes, sender.end, &message) : sender.end)
        return message
    }

    // MARK: priority and time

    struct Head {
        enum Follows { case fields, host, tag, text }
        var follows: Follows
        /// What follows begins here.
        var end: Int

        /// How the sender is found, if it has named itself in one of the usual ways.
        var kind: SenderCache.Kind? {
            switch follows {
            case .fields: ctext_sender_structured
            case .host: ctext_sender_bsd
            case .tag, .text: nil
            }
        }
    }

    private struct Stamp {
        var time: SyslogTime
        /// If it is RFC 3339.
        var text: SyslogMessage.Part
        /// Behind the space that follows.
        var end: Int
    }

    /// Priority and time.
    @inline(__always)
    mutating func head(_ bytes: Span<UInt8>, _ message: inout SyslogMessage) -> Head {
        var at: Int
        (message.priority, at) = Self.priority(bytes, at: 0)
        if message.priority == SyslogMessage.noPriority {
            (message.priority, at) = Self.countedPriority(bytes)
        }
        message.form = .bsd
        let low = bytes.word(at: at)
        let high = bytes.word(at: at &+ 8)
        if low == lastBSD.low, high == lastBSD.high { return bsdHead(bytes, at, &message) }
        if low & 0xffff == Self.version {
            if let time = structuredTime(bytes, at + 2, isPrioritized: message.priority != SyslogMessage.noPriority) {
                message.form = .structured
                (message.time, message.timeText) = (time.time, time.text)
                return Head(follows: .fields, end: time.end)
            }
        } else if let time = StampCursor.bsdTime(bytes, at) {
            lastBSD = Known(bytes, at: at, time)
            return bsdHead(bytes, at, &message)
        } else if let time = plainTime(bytes, at) {
            (message.time, message.timeText) = (time.time, time.text)
            return Head(follows: .host, end: time.end)
        } else if let loose = LooseStamp(bytes, at) {
            (message.time, message.host) = (loose.time, loose.host)
            return Head(follows: loose.isBeforeTag ? .tag : .host, end: loose.end)
        }
        guard message.priority != SyslogMessage.noPriority else {
            message = SyslogMessage()
            return Head(follows: .text, end: 0)
        }
        return Head(follows: .tag, end: at)
    }

    /// Behind the sixteen bytes that are known.
    @inline(__always)
    private func bsdHead(_ bytes: Span<UInt8>, _ at: Int, _ message: inout SyslogMessage) -> Head {
        message.time = lastBSD.time
        if LooseStamp.mayFollow(bytes.word(at: at &+ 16)), let loose = LooseStamp(bytes, at) {
            message.time = loose.time
            return Head(follows: loose.isBeforeTag ? .tag : .host, end: loose.end)
        }
        return Head(follows: .host, end: at &+ 16)
    }

    static let version = UInt64(UInt8(ascii: "1")) | UInt64(UInt8(ascii: " ")) << 8

    /// Whether the sixteen bytes at `at` are `time` as it is in RFC 3164; asked behind the head that they are in.
    func isBSDTime(_ time: SyslogTime, _ bytes: Span<UInt8>, _ at: Int) -> Bool {
        at >= 0 && time == lastBSD.time && bytes.word(at: at) == lastBSD.low && bytes.word(at: at + 8) == lastBSD.high
    }

    /// The priority, and where what follows it begins.
    @inline(__always)
    private static func priority(_ bytes: Span<UInt8>, at start: Int) -> (value: UInt8, end: Int) {
        priority(bytes.word(at: start), at: start)
    }

    /// The priority that begins the `word` at `start`, and where what follows it begins.
    @inline(__always)
    static func priority(_ word: UInt64, at start: Int) -> (value: UInt8, end: Int) {
        let (first, second, third) = (word >> 8 & 0xff ^ 0x30, word >> 16 & 0xff ^ 0x30, word >> 24 & 0xff ^ 0x30)
        let close = UInt64(UInt8(ascii: ">") ^ 0x30)
        guard word & 0xff == UInt64(UInt8(ascii: "<")), first < 10 else { return (SyslogMessage.noPriority, start) }
        if second < 10 {
            let two = first * 10 + second
            if third == close { return (UInt8(truncatingIfNeeded: two), start + 4) }
            let three = two * 10 + third
            guard third < 10, three <= 191, word >> 32 & 0xff == UInt64(UInt8(ascii: ">")) else {
                return (SyslogMessage.noPriority, start)
            }
            return (UInt8(truncatingIfNeeded: three), start + 5)
        }
        return second == close ? (UInt8(truncatingIfNeeded: first), start + 3) : (SyslogMessage.noPriority, start)
    }

    /// The priority behind an octet count, which some senders put into a datagram too.
    @inline(never)
    private static func countedPriority(_ bytes: Span<UInt8>) -> (UInt8, Int) {
        var at = 0
        while at < min(bytes.count, 8), bytes[at] ^ 0x30 < 10 { at += 1 }
        guard at > 0, at < bytes.count, bytes[at] == UInt8(ascii: " ") else { return (SyslogMessage.noPriority, 0) }
        let counted = priority(bytes, at: at + 1)
        return counted.value == SyslogMessage.noPriority ? (SyslogMessage.noPriority, 0) : counted
    }

    /// RFC 5424's time and the space behind it.
    @inline(never)
    private mutating func structuredTime(_ bytes: Span<UInt8>, _ at: Int, isPrioritized: Bool) -> Stamp? {
        let nothing = UInt64(UInt8(ascii: "-"))
        if bytes.word(at: at) & 0xffff == nothing | 0x2000 {
            return isPrioritized ? Stamp(time: SyslogTime(), text: .init(), end: at + 2) : nil
        }
        return isoTime(bytes, at)
    }

    /// An RFC 3164 message with a time like `2003-10-11T22:14:15.003Z`, as rsyslog forwards it.
    @inline(never)
    private mutating func plainTime(_ bytes: Span<UInt8>, _ at: Int) -> Stamp? {
        isoTime(bytes, at)
    }

    /// Reads `2003-10-11T22:14:15.003Z`, with or without fraction and zone; what is RFC 3339 is kept as it is written.
    ///
    /// A space or the end must follow.
    @inline(__always)
    private mutating func isoTime(_ bytes: Span<UInt8>, _ at: Int) -> Stamp? {
        let (low, high) = (bytes.word(at: at), bytes.word(at: at &+ 8))
        if low != lastISO.low || high != lastISO.high {
            guard let time = StampCursor.isoMinute(bytes, at) else { return nil }
            lastISO = Known(bytes, at: at, time)
        }
        let rest = bytes.word(at: at + 16)
        let (tens, ones) = (rest >> 8 & 0xff ^ 0x30, rest >> 16 & 0xff ^ 0x30)
        guard rest & 0xff == UInt64(UInt8(ascii: ":")), tens < 7, ones < 10, tens * 10 + ones <= 60 else { return nil }
        var time = lastISO.time
        time.set(second: tens * 10 + ones)
        var end = at + 19
        // RFC 3339 has a T here; a leap second is not what every reader of it takes.
        var isExact = high >> 16 & 0xff == UInt64(UInt8(ascii: "T")) && tens < 6
        var mark = UInt8(truncatingIfNeeded: rest >> 24)
        if mark == UInt8(ascii: ".") || mark == UInt8(ascii: ","), time.readFraction(bytes, &end) {
            if mark != UInt8(ascii: ".") || end - at > 29 { isExact = false }
            mark = UInt8(truncatingIfNeeded: bytes.word(at: end))
        }
        switch mark {
        case UInt8(ascii: "Z"):
            time.minutesEast = 0
            end += 1
        case UInt8(ascii: "+"), UInt8(ascii: "-"):
            guard let zone = Self.zone(bytes, end) else { return nil }
            time.minutesEast = zone.minutesEast
            isExact = isExact && zone.isExact
            end = zone.end
        default: isExact = false
        }
        guard end >= bytes.count || bytes[end] == UInt8(ascii: " ") else { return nil }
        return Stamp(time: time, text: isExact ? .init(at, end) : .init(), end: min(end + 1, bytes.count))
    }

    /// `+02:00`, or `+0200`, which is not RFC 3339.
    private static func zone(_ bytes: Span<UInt8>, _ at: Int) -> (minutesEast: Int16, end: Int, isExact: Bool)? {
        let word = bytes.word(at: at) ^ 0x3030_3030_3030_3030
        let colon = UInt64(UInt8(ascii: ":") ^ 0x30)
        let isExact = word >> 24 & 0xff == colon
        let tail = isExact ? word >> 32 : word >> 24
        let (ten, one, tenth, last) = (word >> 8 & 0xff, word >> 16 & 0xff, tail & 0xff, tail >> 8 & 0xff)
        guard ten < 10, one < 10, tenth < 6, last < 10, ten * 10 + one < 24 else { return nil }
        let minutes = Int16(ten * 600 + one * 60 + tenth * 10 + last)
        let isWest = bytes[at] == UInt8(ascii: "-")
        return (isWest ? -minutes : minutes, at + (isExact ? 6 : 5), isExact)
    }

    // MARK: fields

    /// What tells who has sent the message; its structured data is still to be read where it may have some.
    @inline(__always)
    func sender(_ bytes: Span<UInt8>, _ head: Head, _ message: inout SyslogMessage) -> (end: Int, hasData: Bool) {
        switch head.follows {
        case .fields: return Self.fields(bytes, head.end, &message)
        case .host:
            let end = isLocal ? head.end : Self.bsdHost(bytes, head.end, &message.host)
            return (Self.tag(bytes, end, &message), false)
        case .tag: return (Self.tag(bytes, head.end, &message), false)
        case .text: return (head.end, false)
        }
    }

    /// The text that begins at `start`.
    @inline(__always)
    static func text(_ bytes: Span<UInt8>, _ start: Int) -> SyslogMessage.Part {
        var end = bytes.count
        // A datagram's NUL or a stream's line end is not the sender's text.
        while end > start, bytes[end - 1] == 0 || bytes[end - 1] == 0x0a || bytes[end - 1] == 0x0d { end -= 1 }
        return .init(min(start, end), end)
    }

    /// RFC 5424's fields from the host on.
    ///
    /// - Returns: where the structured data begins, or else the text.
    @inline(__always)
    private static func fields(
        _ bytes: Span<UInt8>,
        _ start: Int,
        _ message: inout SyslogMessage
    ) -> (end: Int, hasData: Bool) {
        guard var at = field(bytes, start, &message.host) else { return (start, false) }
        guard let next = field(bytes, at, &message.application) else { return (at, false) }
        at = next
        guard let next = field(bytes, at, &message.processID) else { return (at, false) }
        at = next
        guard let next = field(bytes, at, &message.messageID) else { return (at, false) }
        return (next, true)
    }

    /// RFC 5424's structured data.
    ///
    /// - Returns: where the text begins.
    static func data(_ bytes: Span<UInt8>, _ start: Int, _ message: inout SyslogMessage) -> Int {
        var at = start
        guard at < bytes.count else { return at }
        if bytes[at] == UInt8(ascii: "[") {
            // What is not well-formed is text.
            guard let end = StructuredData.end(bytes, at) else { return at }
            message.structuredData = .init(at, end)
            at = end
        } else {
            guard bytes[at] == UInt8(ascii: "-"), endsField(bytes, at + 1) else { return at }
            at += 1
        }
        if at < bytes.count, bytes[at] == UInt8(ascii: " ") { at += 1 }
        return bytes.word(at: at) & 0xff_ffff == mark ? at + 3 : at
    }

    /// Whether the message ends at `at`, or a line of it, or a space follows.
    static func endsField(_ bytes: Span<UInt8>, _ at: Int) -> Bool {
        guard at < bytes.count else { return true }
        switch bytes[at] {
        case UInt8(ascii: " "), 0, 0x0a, 0x0d: return true
        default: return false
        }
    }

    /// UTF-8's byte order mark.
    static let mark: UInt64 = 0xbf_bbef

    /// A field and the space behind it; `-` leaves `part` empty.
    ///
    /// - Returns: where the next field begins; nil if this is none, for its length or a control character.
    @inline(__always)
    private static func field(_ bytes: Span<UInt8>, _ start: Int, _ part: inout SyslogMessage.Part) -> Int? {
        var at = start
        while at < bytes.count {
            // Behind the end there are zeros, which stop too.
            let stops = ctext_stops(bytes.block(at: at))
            if stops != 0 {
                at = min(at &+ stops.trailingZeroBitCount, bytes.count)
                break
            }
            at &+= 16
        }
        guard at &- start <= longestField else { return nil }
        if at < bytes.count, bytes[at] != UInt8(ascii: " ") { return nil }
        if at - start != 1 || bytes[start] != UInt8(ascii: "-") { part = .init(start, at) }
        return min(at + 1, bytes.count)
    }

    /// RFC 3164's host, if the next word looks like one: no tag, and nothing like `key=value`.
    ///
    /// - Returns: where what follows begins; `start` if there is no host.
    @inline(__always)
    private static func bsdHost(_ bytes: Span<UInt8>, _ start: Int, _ host: inout SyslogMessage.Part) -> Int {
        var at = start
        while true {
            let block = bytes.block(at: at)
            let stops = ctext_stops_and(block, UInt8(ascii: "["), UInt8(ascii: "="))
            if stops != 0 {
                at &+= stops.trailingZeroBitCount
                break
            }
            at &+= 16
        }
        // None begins with a quote, a parenthesis, a percent sign.
        guard at < bytes.count, at > start, at &- start <= longestField, bytes[at] == UInt8(ascii: " "),
            bytes[at &- 1] != UInt8(ascii: ":"), bytes[start] > UInt8(ascii: ","), bytes[start] != UInt8(ascii: "{")
        else { return start }
        host = .init(start, at)
        // Cisco's ASA parts the two by ` : `.
        return bytes.word(at: at + 1) & 0xffff == 0x203a ? at + 3 : at + 1
    }

    /// RFC 3164's tag: `name:`, `name[process]:` or `name[process]`, and a space or the end behind it.
    ///
    /// - Returns: where the text begins; `start` if there is no tag.
    @inline(__always)
    private static func tag(_ bytes: Span<UInt8>, _ start: Int, _ message: inout SyslogMessage) -> Int {
        var at = start
        while at < bytes.count {
            let stops = ctext_stops_and(bytes.block(at: at), UInt8(ascii: ":"), UInt8(ascii: "["))
            guard stops != 0 else {
                at &+= 16
                continue
            }
            at &+= stops.trailingZeroBitCount
            guard at < bytes.count, at > start, at &- start <= longestField else { break }
            switch bytes[at] {
            case UInt8(ascii: ":"):
                // A colon within a word belongs to it.
                if let end = textStart(bytes, at + 1) {
                    message.application = .init(start, at)
                    return end
                }
                at += 1
            case UInt8(ascii: "["):
                guard let close = closingBracket(bytes, at + 1) else { return start }
                let hasColon = close + 1 < bytes.count && bytes[close + 1] == UInt8(ascii: ":")
                guard let end = textStart(bytes, close + (hasColon ? 2 : 1)) else { return start }
                message.application = .init(start, at)
                message.processID = .init(at + 1, close)
                return end
            default: return start
            }
        }
        return start
    }

    /// Behind the one space at `at`, or `at` itself where the message or its line ends.
    @inline(__always)
    private static func textStart(_ bytes: Span<UInt8>, _ at: Int) -> Int? {
        guard at < bytes.count else { return at }
        if bytes[at] == UInt8(ascii: " ") { return at + 1 }
        return bytes[at] < 0x20 ? at : nil
    }

    @inline(__always)
    private static func closingBracket(_ bytes: Span<UInt8>, _ start: Int) -> Int? {
        var at = start
        while at < bytes.count {
            let block = bytes.block(at: at)
            let stops = ctext_either(block, UInt8(ascii: "]"), UInt8(ascii: "[")) | ctext_controls(block)
            if stops != 0 {
                at &+= stops.trailingZeroBitCount
                guard at < bytes.count, at &- start <= longestField else { return nil }
                return bytes[at] == UInt8(ascii: "]") ? at : nil
            }
            at &+= 16
        }
        return nil
    }
}
