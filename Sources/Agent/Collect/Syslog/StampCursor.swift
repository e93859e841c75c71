internal import Bytes

/// Reads a time of day and a date byte by byte: every form that is not the same as in the message before.
struct StampCursor {
    var at: Int

    /// `Oct 11 22:14:15 ` or `Oct  1 22:14:15 `: sixteen bytes.
    @inline(never)
    static func bsdTime(_ bytes: Span<UInt8>, _ start: Int) -> SyslogTime? {
        var cursor = StampCursor(at: start)
        guard let month = cursor.month(bytes), cursor.take(" ", bytes) else { return nil }
        let isPadded = cursor.take(" ", bytes)
        guard let day = cursor.number(bytes, of: isPadded ? 1...1 : 2...2), cursor.take(" ", bytes),
            let clock = cursor.clock(bytes), cursor.take(" ", bytes)
        else { return nil }
        // An hour of one digit makes it another form.
        return cursor.at == start + 16 ? SyslogTime(year: 0, month: month, day: day, clock) : nil
    }

    /// `2003-10-11T22:14`, or a space for the T: sixteen bytes.
    @inline(never)
    static func isoMinute(_ bytes: Span<UInt8>, _ start: Int) -> SyslogTime? {
        var cursor = StampCursor(at: start)
        guard let year = cursor.number(bytes, of: 4...4), year > 0, cursor.take("-", bytes),
            let month = cursor.number(bytes, of: 2...2), cursor.take("-", bytes),
            let day = cursor.number(bytes, of: 2...2)
        else { return nil }
        if !cursor.take("T", bytes) { guard cursor.take(" ", bytes) else { return nil } }
        guard let hour = cursor.number(bytes, of: 2...2), cursor.take(":", bytes),
            let minute = cursor.number(bytes, of: 2...2)
        else { return nil }
        return SyslogTime(year: year, month: month, day: day, (hour, minute, 0))
    }

    mutating func take(_ character: Unicode.Scalar, _ bytes: Span<UInt8>) -> Bool {
        guard at < bytes.count, bytes[at] == UInt8(ascii: character) else { return false }
        at += 1
        return true
    }

    /// A number of so many digits, and no digit behind it.
    mutating func number(_ bytes: Span<UInt8>, of digits: ClosedRange<Int>) -> Int? {
        var (value, end) = (0, at)
        while end < bytes.count, end - at <= digits.upperBound, bytes[end] ^ 0x30 < 10 {
            value = value * 10 + Int(bytes[end] ^ 0x30)
            end += 1
        }
        guard digits.contains(end - at) else { return nil }
        at = end
        return value
    }

    /// `Jan` to `Dec`.
    mutating func month(_ bytes: Span<UInt8>) -> Int? {
        guard let month = SyslogTime.month(bytes.word(at: at)) else { return nil }
        at += 3
        return month
    }

    /// `22:14:15`, a time of day.
    mutating func clock(_ bytes: Span<UInt8>) -> (hour: Int, minute: Int, second: Int)? {
        guard let hour = number(bytes, of: 1...2), take(":", bytes), let minute = number(bytes, of: 2...2),
            take(":", bytes), let second = number(bytes, of: 2...2)
        else { return nil }
        return (hour, minute, second)
    }
}

/// A time in one of the forms that are neither RFC's, in front of an RFC 3164 message.
///
/// With a fraction, a year or a name of its zone, a day that is not padded; and Cisco's, with sequence numbers and a host
/// in front, a mark for a clock that was not set, and a colon behind.
struct LooseStamp {
    private(set) var time: SyslogTime
    /// Named in front of the time.
    private(set) var host = SyslogMessage.Part()
    /// Whether the tag is next: a colon stood behind the time.
    private(set) var isBeforeTag: Bool
    /// Where what follows begins.
    private(set) var end: Int

    /// Whether the bytes behind a time of RFC 3164 may make it one of these: four that may be digits, a year; or `UTC:`.
    @inline(__always)
    static func mayFollow(_ word: UInt64) -> Bool {
        word & 0xf0f0_f0f0 == 0x3030_3030 || word & 0xffff_ffff == 0x3a43_5455 || word & 0xffff_ffff == 0x3a54_4d47
    }

    @inline(never)
    init?(_ bytes: Span<UInt8>, _ start: Int) {
        var cursor = StampCursor(at: start)
        var isCisco = cursor.take(":", bytes)
        if isCisco { guard cursor.take(" ", bytes) else { return nil } }
        // `79: ` and `R1: ` in any order: a sequence number tells that a word in front of the time is a host.
        for _ in 0..<3 {
            let from = cursor.at
            if cursor.number(bytes, of: 1...10) != nil, cursor.take(":", bytes), cursor.take(" ", bytes) {
                isCisco = true
                continue
            }
            cursor.at = from
            guard host.isEmpty, let word = Self.word(bytes, &cursor) else {
                cursor.at = from
                break
            }
            host = word
        }
        if cursor.take("*", bytes) || cursor.take(".", bytes) { isCisco = true }
        guard host.isEmpty || isCisco, let found = Self.time(bytes, &cursor, isCisco: isCisco) else { return nil }
        time = found
        isBeforeTag = cursor.take(":", bytes)
        guard cursor.at == bytes.count || cursor.take(" ", bytes) else { return nil }
        end = cursor.at
    }

    /// `R1: `, but not a month.
    private static func word(_ bytes: Span<UInt8>, _ cursor: inout StampCursor) -> SyslogMessage.Part? {
        let start = cursor.at
        while cursor.at < bytes.count, bytes[cursor.at] > 0x20, bytes[cursor.at] != UInt8(ascii: ":"),
            cursor.at - start < SyslogReader.longestField
        {
            cursor.at += 1
        }
        let end = cursor.at
        guard end > start, cursor.take(":", bytes), cursor.take(" ", bytes) else { return nil }
        return .init(start, end)
    }

    private static func time(_ bytes: Span<UInt8>, _ cursor: inout StampCursor, isCisco: Bool) -> SyslogTime? {
        // Only with a colon behind it: RFC 3164's fourth example begins with a year and has no time in its sense.
        var year = cursor.number(bytes, of: 4...4)
        let isYearFirst = year != nil
        if isYearFirst { guard cursor.take(" ", bytes) else { return nil } }
        guard let month = cursor.month(bytes), cursor.take(" ", bytes) else { return nil }
        _ = cursor.take(" ", bytes)
        guard let day = cursor.number(bytes, of: 1...2), cursor.take(" ", bytes) else { return nil }
        if year == nil, let number = cursor.number(bytes, of: 4...4) {
            year = number
            guard cursor.take(" ", bytes) else { return nil }
        }
        guard let clock = cursor.clock(bytes),
            var time = SyslogTime(year: year ?? 0, month: month, day: day, clock)
        else { return nil }
        if cursor.at < bytes.count, bytes[cursor.at] == UInt8(ascii: ".") || bytes[cursor.at] == UInt8(ascii: ",") {
            _ = time.readFraction(bytes, &cursor.at)
        }
        let from = cursor.at
        if year == nil, cursor.take(" ", bytes), let number = cursor.number(bytes, of: 4...4), number > 0,
            let withYear = SyslogTime(year: number, month: month, day: day, clock)
        {
            let (fraction, digits, ninth) = (time.fraction, time.fractionDigits, time.ninthDigit)
            time = withYear
            (time.fraction, time.fractionDigits, time.ninthDigit) = (fraction, digits, ninth)
        } else {
            cursor.at = from
        }
        let isZoned = takeZone(bytes, &cursor, &time)
        let hasColon = cursor.at < bytes.count && bytes[cursor.at] == UInt8(ascii: ":")
        return (isYearFirst || isZoned) && !hasColon ? nil : time
    }

    /// ` UTC` in front of a colon; the names of other zones are not the same everywhere, and say nothing.
    private static func takeZone(_ bytes: Span<UInt8>, _ cursor: inout StampCursor, _ time: inout SyslogTime) -> Bool {
        let from = cursor.at
        guard cursor.take(" ", bytes) else { return false }
        let word = bytes.word(at: cursor.at) & 0xff_ffff
        while cursor.at < bytes.count, (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(bytes[cursor.at]) {
            cursor.at += 1
        }
        guard (1...6).contains(cursor.at - from - 1), cursor.at < bytes.count, bytes[cursor.at] == UInt8(ascii: ":")
        else {
            cursor.at = from
            return false
        }
        // `UTC`, `GMT`
        if cursor.at - from == 4, word == 0x43_5455 || word == 0x54_4d47 { time.minutesEast = 0 }
        return true
    }
}

extension SyslogTime {
    fileprivate init?(year: Int, month: Int, day: Int, _ clock: (hour: Int, minute: Int, second: Int)) {
        self.init(year: year, month: month, day: day, hour: clock.hour, minute: clock.minute, second: clock.second)
    }

    /// Reads the digits behind the mark at `at`, and moves behind them; false if there are none.
    @inline(__always)
    mutating func readFraction(_ bytes: Span<UInt8>, _ at: inout Int) -> Bool {
        let word = bytes.word(at: at + 1) ^ 0x3030_3030_3030_3030
        let others = ((word &+ 0x7676_7676_7676_7676) | word) & 0x8080_8080_8080_8080
        let count = others.trailingZeroBitCount >> 3
        guard count > 0 else { return false }
        // A shift by 64 is none.
        fraction = count == 8 ? word : word & (1 << UInt64(count * 8) &- 1)
        fractionDigits = UInt8(truncatingIfNeeded: count)
        at += 1 + count
        if count == 8 { readMoreDigits(bytes, &at) }
        return true
    }

    @inline(never)
    private mutating func readMoreDigits(_ bytes: Span<UInt8>, _ at: inout Int) {
        let start = at
        while at < bytes.count, bytes[at] ^ 0x30 < 10 { at += 1 }
        guard at > start else { return }
        // What is below a nanosecond is left out.
        (ninthDigit, fractionDigits) = (bytes[start] ^ 0x30, 9)
    }
}
