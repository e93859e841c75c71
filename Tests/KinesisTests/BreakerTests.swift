import Bytes
import Kinesis
import Testing

@Suite struct BreakerTests {
    @Test func `a call that fails among others that succeed costs a moment, and no calls in flight`() {
        var (breaker, now) = (Breaker(), Instant.now)
        for _ in 0..<100 {
            let until = breaker.failed(isPermanent: false, chance: 1, now: now)
            #expect(until - now <= .milliseconds(25))
            #expect(!breaker.isFailing)
            #expect(!breaker.mayCall(inFlight: 3, most: 24, now: now))
            now = until
            #expect(breaker.mayCall(inFlight: 3, most: 24, now: now))
            let wasFailing = breaker.succeeded()
            #expect(!wasFailing)
        }
    }

    @Test func `an endpoint that only fails is probed by one call at a time, ever more rarely`() {
        var (breaker, now) = (Breaker(), Instant.now)
        let start = now
        var pauses: [Duration] = []
        for _ in 0..<20 {
            let until = breaker.failed(isPermanent: false, chance: 1, now: now)
            pauses.append(until - now)
            now = until
        }
        #expect(breaker.isFailing && breaker.failingSince == start)
        #expect(!breaker.mayCall(inFlight: 1, most: 24, now: now) && breaker.mayCall(inFlight: 0, most: 24, now: now))
        #expect(pauses.last == .seconds(10))
        let wasFailing = breaker.succeeded()
        #expect(wasFailing && !breaker.isFailing)
        #expect(breaker.mayCall(inFlight: 23, most: 24, now: now))
    }

    @Test func `calls that fail together are one failure, and one that fails for good is enough`() {
        var (breaker, now) = (Breaker(), Instant.now)
        for _ in 0..<24 { _ = breaker.failed(isPermanent: false, chance: 1, now: now) }
        #expect(breaker.isFailing && breaker.heldUntil! - now <= .milliseconds(300))
        breaker = Breaker()
        now += .seconds(1)
        _ = breaker.failed(isPermanent: true, chance: 0, now: now)
        #expect(breaker.isFailing)
    }
}
