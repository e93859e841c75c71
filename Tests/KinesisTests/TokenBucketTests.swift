import Bytes
import Kinesis
import Seeded
import Testing

@Suite struct TokenBucketTests {
    let start = Instant.now

    @Test func `a burst may be taken at once, and the rest by the clock`() throws {
        var bucket = TokenBucket(rate: 1000, burst: 1000, now: start)
        #expect(bucket.wait(for: 1000, now: start) == nil)
        bucket.take(1000)
        let first = bucket.wait(for: 500, now: start)
        let wait = try #require(first)
        #expect(wait >= .milliseconds(500) && wait < .milliseconds(501))
        #expect(bucket.wait(for: 500, now: start + .milliseconds(499)) != nil)
        #expect(bucket.wait(for: 500, now: start + wait) == nil)
    }

    @Test func `more than a burst is due when the bucket is full, and what follows pays for it`() {
        var bucket = TokenBucket(rate: 100, burst: 100, now: start)
        #expect(bucket.wait(for: 1000, now: start) == nil)
        bucket.take(1000)
        #expect(bucket.wait(for: 1, now: start + .seconds(9)) != nil)
        #expect(bucket.wait(for: 1, now: start + .milliseconds(9011)) == nil)
        // It never holds more than a burst, however long nothing was taken.
        bucket.take(1)
        #expect(bucket.wait(for: 100, now: start + .seconds(3600)) == nil)
        bucket.take(100)
        #expect(bucket.wait(for: 1, now: start + .seconds(3600)) != nil)
    }

    @Test func `a wait is long enough, and never by much`() {
        var random = Random()
        for _ in 0..<300 {
            let rate = Double.random(in: 0.1...2e6, using: &random)
            let burst = rate * Double.random(in: 0.1...3, using: &random)
            var bucket = TokenBucket(rate: rate, burst: burst, now: start)
            var (now, taken) = (start, 0.0)
            for _ in 0..<100 {
                let amount = burst * Double.random(in: 0.001...1, using: &random)
                if let wait = bucket.wait(for: amount, now: now) {
                    #expect(wait > .zero, random.note)
                    now += wait
                    #expect(bucket.wait(for: amount, now: now) == nil, random.note)
                }
                bucket.take(amount)
                taken += amount
                let allowed = burst + rate * ((now - start) / .seconds(1))
                #expect(taken <= allowed * (1 + 1e-9) + 1e-6, random.note)
            }
            let least = (taken - burst) / rate
            #expect((now - start) / .seconds(1) <= max(0, least) + 1e-3, random.note)
        }
    }

    @Test func `a bucket that does not fill has its caller wait, not trap`() {
        var bucket = TokenBucket(rate: 0, burst: 10, now: start)
        bucket.take(10)
        #expect(bucket.wait(for: 1, now: start).map { $0 > .seconds(86_400) } == true)
    }

    @Test func `one that takes over goes on where the other was, and a new one begins empty`() {
        var other = TokenBucket(rate: 100, burst: 100, now: start)
        other.take(80)
        let later = start + .milliseconds(500)
        var bucket = TokenBucket(rate: 10, burst: 50, now: later)
        // 20 and what half a second brought, as far as there is room.
        bucket.takeOver(other, now: later)
        #expect(bucket.wait(for: 50, now: later) == nil)
        other.take(40)
        bucket.takeOver(other, now: later)
        #expect(bucket.wait(for: 30, now: later) == nil)
        #expect(bucket.wait(for: 31, now: later) != nil)
        bucket.takeOver(nil, now: later)
        #expect(bucket.wait(for: 5, now: later)! > .milliseconds(499))
    }

    @Test func `a clock that steps back neither gives nor takes`() {
        var bucket = TokenBucket(rate: 10, burst: 10, now: start)
        bucket.take(10)
        #expect(bucket.wait(for: 5, now: start - .seconds(100)) != nil)
        #expect(bucket.wait(for: 5, now: start + .milliseconds(501)) == nil)
    }
}
