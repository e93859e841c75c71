/// A moment's date and time of day in UTC, by the proleptic Gregorian calendar.
public struct CivilTime: Equatable, Sendable {
    public var year, month, day, hour, minute, second: Int
    /// 0 is Sunday.
    public var weekday: Int

    /// - Parameter unixSeconds: seconds since 1970, UTC.
    public init(unixSeconds: Int64) {
        let days = Int(unixSeconds >= 0 ? unixSeconds / 86_400 : (unixSeconds - 86_399) / 86_400)
        let seconds = Int(unixSeconds) - days * 86_400
        (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60)
        weekday = ((days + 4) % 7 + 7) % 7
        // Howard Hinnant's civil_from_days: years begin in March, so that the leap day comes last.
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
        month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    }

    /// Reads the form of HTTP's Date header: `Tue, 15 Nov 1994 08:12:31 GMT`.
    public init?(httpDate text: String) {
        let parts = text.split(separator: " ")
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        guard parts.count == 6, let day = Int(parts[1]), let month = months.firstIndex(of: String(parts[2])),
            let year = Int(parts[3])
        else { return nil }
        let clock = parts[4].split(separator: ":").compactMap { Int($0) }
        // The header comes from outside: a year of nineteen digits must not overflow. A leap second is the next minute's.
        guard clock.count == 3, (0...9999).contains(year), (1...31).contains(day), (0..<24).contains(clock[0]),
            (0..<60).contains(clock[1]), (0...60).contains(clock[2])
        else { return nil }
        (self.year, self.month, self.day) = (year, month + 1, day)
        (hour, minute, second) = (clock[0], clock[1], clock[2])
        weekday = 0
        self = CivilTime(unixSeconds: unixSeconds)
    }

    /// Seconds since 1970 of a time like `2026-11-21T08:00:00Z`, with or without a fraction, at any offset from UTC.
    public static func unixSeconds(rfc3339 text: String) -> Int64? {
        let halves = text.split(separator: "T")
        guard halves.count == 2, let zone = halves[1].firstIndex(where: { "Z+-".contains($0) }) else { return nil }
        let date = halves[0].split(separator: "-").compactMap { Int($0) }
        let clock = halves[1][..<zone].prefix { $0 != "." }.split(separator: ":").compactMap { Int($0) }
        let offset = halves[1][zone...].dropFirst().split(separator: ":").compactMap { Int($0) }
        guard date.count == 3, clock.count == 3, (0...9999).contains(date[0]), (1...12).contains(date[1]),
            (1...31).contains(date[2]), (0..<24).contains(clock[0]), (0..<60).contains(clock[1]),
            (0...60).contains(clock[2]), halves[1][zone] == "Z" ? offset.isEmpty : offset.count == 2,
            offset.allSatisfy({ (0..<60).contains($0) })
        else { return nil }
        var time = CivilTime(unixSeconds: 0)
        (time.year, time.month, time.day) = (date[0], date[1], date[2])
        (time.hour, time.minute, time.second) = (clock[0], clock[1], clock[2])
        let east = offset.isEmpty ? 0 : Int64(offset[0] * 3600 + offset[1] * 60)
        return time.unixSeconds - (halves[1][zone] == "-" ? -east : east)
    }

    /// Seconds since 1970, UTC.
    public var unixSeconds: Int64 {
        let shifted = month <= 2 ? year - 1 : year
        let era = (shifted >= 0 ? shifted : shifted - 399) / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        let days = era * 146_097 + dayOfEra - 719_468
        return Int64(days) * 86_400 + Int64(hour * 3600 + minute * 60 + second)
    }

    /// `Tue, 15 Nov 1994 08:12:31 GMT`.
    public var httpDate: String {
        let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return
            "\(days[weekday]), \(two(day)) \(months[month - 1]) \(year) \(two(hour)):\(two(minute)):\(two(second)) GMT"
    }
}
