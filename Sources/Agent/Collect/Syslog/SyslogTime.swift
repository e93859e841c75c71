internal import Kinesis

/// A time as a syslog message tells it, without what it leaves out: RFC 3164 has no year, no fraction and no zone.
package struct SyslogTime: Equatable, Sendable {
    /// Year, month, day, hour, minute and second, from the highest byte pair down; 0: there is no time at all.
    private(set) var civil: UInt64 = 0
    /// The first digits behind the second, as eight values of 0 to 9, the last one highest.
    var fraction: UInt64 = 0
    var fractionDigits: UInt8 = 0
    /// The ninth of them.
    var ninthDigit: UInt8 = 0
    /// Minutes east of UTC; `unknownZone` if the message does not say.
    var minutesEast: Int16 = unknownZone

    static let unknownZone = Int16.min

    init() {}

    /// Nil when there is no such time of day, or day.
    ///
    /// - Parameter year: 0 if the message does not say.
    init?(year: Int, month: Int, day: Int, hour: Int, minute: Int, second: Int) {
        // 60 is a leap second.
        guard (0...9999).contains(year), (1...12).contains(month), (1...31).contains(day), (0...23).contains(hour),
            (0...59).contains(minute), (0...60).contains(second), day <= Self.days(of: month, year: year)
        else { return nil }
        let date = UInt64(year) << 40 | UInt64(month) << 32 | UInt64(day) << 24
        civil = date | UInt64(hour) << 16 | UInt64(minute) << 8 | UInt64(second)
    }

    package var isThere: Bool { civil != 0 }
    package var hasYear: Bool { civil >> 40 != 0 }
    package var hasZone: Bool { minutesEast != Self.unknownZone }
    var second: Int { Int(civil & 0xff) }

    mutating func set(second: UInt64) { civil = civil & ~0xff | second }

    package var nanosecond: Int {
        var value = 0
        for place in 0..<8 { value = value * 10 + Int(fraction >> UInt64(place * 8) & 0xff) }
        return value * 10 + Int(ninthDigit)
    }

    /// Nanoseconds since 1970.
    ///
    /// A missing zone is the receiver's. A missing year is the one that brings the time nearest to its receipt: what comes
    /// in on January 1st and says December 31st is of the year before, and the other way round for a clock that is ahead.
    /// - Parameters:
    ///   - received: nanoseconds since 1970.
    ///   - zone: the receiver's seconds east of UTC.
    package func unixNanoseconds(received: Int64, zone: Int) -> Int64 {
        let seconds = unixSeconds(received: received, zone: zone)
        // What 64 bits of nanoseconds do not hold is after 2262 or before 1678.
        let (nanoseconds, isOver) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, isOverToo) = nanoseconds.addingReportingOverflow(Int64(nanosecond))
        return isOver || isOverToo ? (seconds < 0 ? .min : .max) : sum
    }

    private func unixSeconds(received: Int64, zone: Int) -> Int64 {
        let east = Int64(secondsEast(zone))
        return (hasYear ? secondsIn(year: Int(civil >> 40)) : nearest(to: received / 1_000_000_000 + east)) - east
    }

    /// Whole minutes, as RFC 3339 has them.
    private func secondsEast(_ zone: Int) -> Int { hasZone ? Int(minutesEast) * 60 : zone / 60 * 60 }

    private func nearest(to here: Int64) -> Int64 {
        let year = CivilTime(unixSeconds: here).year
        var best: Int64?
        // A February 29th may have to look further for a year that has one.
        for step in 0...8 {
            for candidate in [year - step, year + step] {
                guard Int(civil >> 24 & 0xff) <= Self.days(of: Int(civil >> 32 & 0xff), year: candidate) else {
                    continue
                }
                let seconds = secondsIn(year: candidate)
                if best.map({ abs(seconds - here) < abs($0 - here) }) ?? true { best = seconds }
            }
            if step > 0, let best { return best }
        }
        return best ?? secondsIn(year: year)
    }

    private func secondsIn(year: Int) -> Int64 {
        var time = CivilTime(unixSeconds: 0)
        time.year = year
        (time.month, time.day) = (Int(civil >> 32 & 0xff), Int(civil >> 24 & 0xff))
        (time.hour, time.minute, time.second) = (Int(civil >> 16 & 0xff), Int(civil >> 8 & 0xff), second)
        return time.unixSeconds
    }

    /// Days of a month; February has 29 in a year that is not known.
    private static func days(of month: Int, year: Int) -> Int {
        switch month {
        case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }

    /// The month that a word's first three bytes name in English; nil for others.
    static func month(_ word: UInt64) -> Int? {
        // Upper and lower case are the same.
        switch word & 0xff_ffff | 0x20_2020 {
        case 0x6e616a: 1
        case 0x626566: 2
        case 0x72616d: 3
        case 0x727061: 4
        case 0x79616d: 5
        case 0x6e756a: 6
        case 0x6c756a: 7
        case 0x677561: 8
        case 0x706573: 9
        case 0x74636f: 10
        case 0x766f6e: 11
        case 0x636564: 12
        default: nil
        }
    }
}

extension SyslogTime {
    /// The most bytes of `write(to:)`.
    static let mostBytes = 40

    /// The time by RFC 3339, with as many digits behind the second as the message has, in its zone or else the receiver's.
    ///
    /// - Returns: the bytes written, `mostBytes` at most.
    func write(received: Int64, zone: Int, to out: inout MutableSpan<UInt8>) -> Int {
        let east = secondsEast(zone)
        let time = CivilTime(unixSeconds: unixSeconds(received: received, zone: zone) + Int64(east))
        var at = 0
        func put(_ value: Int, digits: Int, then byte: UInt8?, _ out: inout MutableSpan<UInt8>) {
            var rest = value
            for place in stride(from: digits - 1, through: 0, by: -1) {
                out[at + place] = UInt8(ascii: "0") + UInt8(rest % 10)
                rest /= 10
            }
            at += digits
            guard let byte else { return }
            out[at] = byte
            at += 1
        }
        put(max(time.year, 0) % 10_000, digits: 4, then: UInt8(ascii: "-"), &out)
        put(time.month, digits: 2, then: UInt8(ascii: "-"), &out)
        put(time.day, digits: 2, then: UInt8(ascii: "T"), &out)
        put(time.hour, digits: 2, then: UInt8(ascii: ":"), &out)
        put(time.minute, digits: 2, then: UInt8(ascii: ":"), &out)
        put(time.second, digits: 2, then: nil, &out)
        if fractionDigits > 0 {
            out[at] = UInt8(ascii: ".")
            at += 1
            var divisor = 1
            for _ in Int(fractionDigits)..<9 { divisor *= 10 }
            put(nanosecond / divisor, digits: Int(fractionDigits), then: nil, &out)
        }
        let minutes = abs(east) / 60
        // RFC 3339 has no offset of a day and more.
        guard minutes != 0, minutes < 1440 else {
            out[at] = UInt8(ascii: "Z")
            return at + 1
        }
        out[at] = UInt8(ascii: east < 0 ? "-" : "+")
        at += 1
        put(minutes / 60, digits: 2, then: UInt8(ascii: ":"), &out)
        put(minutes % 60, digits: 2, then: nil, &out)
        return at
    }
}
