import Foundation
import Kinesis
import Seeded
import Testing

@Suite struct CivilTimeTests {
    @Test(
        arguments: [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
            (784_887_151, "Tue, 15 Nov 1994 08:12:31 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (-2_203_891_200, "Thu, 01 Mar 1900 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] as [(Int64, String)]
    )
    func `writes and reads dates of known seconds`(seconds: Int64, text: String) {
        let time = CivilTime(unixSeconds: seconds)
        #expect(time.httpDate == text)
        #expect(time.unixSeconds == seconds)
        #expect(CivilTime(httpDate: text) == time)
    }

    @Test(
        arguments: [
            ("2026-11-21T08:00:00Z", 1_795_248_000), ("2026-11-21T08:00:00.999Z", 1_795_248_000),
            ("2026-11-21T08:00:00+00:00", 1_795_248_000), ("2026-11-21T09:30:00+01:30", 1_795_248_000),
            ("2026-11-20T22:30:00-09:30", 1_795_248_000), ("1970-01-01T00:00:00Z", 0), ("2026-11-21", nil),
            ("2026-11-21T08:00:00", nil), ("2026-11-21T08:00:00+1", nil), ("2026-11-21T08:00:00Z0", nil),
            ("2026-13-21T08:00:00Z", nil), ("2026-11-21T24:00:00Z", nil), ("99999999999999999999-11-21T08:00:00Z", nil),
            ("T", nil), ("", nil), ("2026-11-21T08:00Z", nil), ("2026-11-21T08:00:00+99:99", nil),
        ] as [(String, Int64?)]
    )
    func `reads the times of JSON answers`(text: String, seconds: Int64?) {
        #expect(CivilTime.unixSeconds(rfc3339: text) == seconds)
    }

    /// Foundation's calendar is the proleptic Gregorian one from 1583 on.
    @Test func `agrees with another calendar from 1600 to 9999`() throws {
        var random = Random()
        var calendar = Calendar(identifier: .gregorian)
        calendar.timeZone = try #require(TimeZone(secondsFromGMT: 0))
        for _ in 0..<3000 {
            let seconds = Int64.random(in: -11_676_096_000...253_402_300_799, using: &random)
            let time = CivilTime(unixSeconds: seconds)
            let parts = calendar.dateComponents(
                [.year, .month, .day, .hour, .minute, .second, .weekday],
                from: Date(timeIntervalSince1970: TimeInterval(seconds))
            )
            let ours = [time.year, time.month, time.day, time.hour, time.minute, time.second, time.weekday + 1]
            let theirs = [
                parts.year, parts.month, parts.day, parts.hour, parts.minute, parts.second, parts.weekday,
            ]
            #expect(ours == theirs, random.note)
            #expect(time.unixSeconds == seconds, random.note)
            #expect(CivilTime(httpDate: time.httpDate) == time, random.note)
        }
    }

    @Test(arguments: [
        "", "Tue, 15 Nov 1994", "Tue, 15 Nov 1994 08:12 GMT", "Tue, 15 Foo 1994 08:12:31 GMT",
        "Tuesday, 15-Nov-94 08:12:31 GMT", "Tue, 32 Nov 1994 08:12:31 GMT", "Tue, 15 Nov 1994 24:12:31 GMT",
        "Tue, 15 Nov 1994 08:60:31 GMT", "Tue, 15 Nov 1994 08:12:-1 GMT", "Tue, -1 Nov 1994 08:12:31 GMT",
        "Tue, 15 Nov 9223372036854775807 08:12:31 GMT", "Tue, 15 Nov -9223372036854775807 08:12:31 GMT",
        "Tue, 15 Nov 1994 9223372036854775807:12:31 GMT", "Tue, 9223372036854775807 Nov 1994 08:12:31 GMT",
    ])
    func `refuses what is no date, however large its numbers`(text: String) {
        #expect(CivilTime(httpDate: text) == nil)
    }

    @Test func `a leap second is the next minute's first`() {
        let time = CivilTime(httpDate: "Sat, 31 Dec 2016 23:59:60 GMT")
        #expect(time?.httpDate == "Sun, 01 Jan 2017 00:00:00 GMT")
    }

    @Test(
        arguments: [
            (1_369_353_600, "20130524T000000Z"), (0, "19700101T000000Z"), (253_402_300_799, "99991231T235959Z"),
            (1_709_209_845, "20240229T123045Z"), (-62_135_596_800, "00010101T000000Z"),
        ] as [(Int64, String)]
    )
    func `signing takes the time in two forms`(seconds: Int64, text: String) {
        let time = SigningTime(unixSeconds: seconds)
        #expect(time.text == text)
        #expect(time.day == text.prefix(8))
    }
}
