import Bytes
import Seeded
import Testing

@Suite struct InstantTests {
    @Test func `a wait that is added has passed at its end, whatever it is a part of`() {
        var random = Random()
        let start = Instant(nanoseconds: 123_456_789)
        for _ in 0..<10_000 {
            let attoseconds = Int64.random(in: -3_000_000_000_000_000_000...3_000_000_000_000_000_000, using: &random)
            let wait = Duration(secondsComponent: Int64(random.below(1000)), attosecondsComponent: attoseconds)
            let late = (start + wait) - start - wait
            #expect(late >= .zero && late < .nanoseconds(1), random.note)
        }
        #expect(start + .milliseconds(5) - .milliseconds(5) == start)
        #expect((start + .seconds(7)) - start == .seconds(7))
    }

    @Test func `centuries are as far as it goes`() {
        let start = Instant.now
        for far in [Duration.seconds(Int64.max), .seconds(9_000_000_000), .seconds(1 << 40)] {
            #expect(start + far > start + .seconds(8_000_000_000))
            #expect(start - far < start - .seconds(8_000_000_000))
            #expect((start + far) + far >= start + far)
        }
    }

    @Test func `it goes on`() {
        let start = Instant.now
        while Instant.now <= start {}
        #expect(Instant.now - start < .seconds(60))
    }
}
