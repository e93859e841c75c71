import Bytes
import Agent
import Seeded
import Testing

@Suite struct GatherTests {
    private let start = Instant.now

    @Test func `what comes seldom is read at once`() {
        var gather = Gather(most: .milliseconds(1), queue: 16 << 20)
        for number in 0..<100 {
            let now = start + .milliseconds(5 * number)
            #expect(gather.nextAfterSleep(now: now) == .zero)
            #expect(gather.next(after: 1, bytes: 200, isBehind: false, now: now) == nil)
        }
    }

    @Test func `the beginning of a burst is waited behind if the last one was worth it`() {
        var gather = Gather(most: .milliseconds(1), queue: 16 << 20)
        for (number, expected) in [Duration.zero, Gather.first, Gather.first].enumerated() {
            let now = start + .milliseconds(20 * number)
            #expect(gather.nextAfterSleep(now: now) == expected)
            let pause = gather.next(after: 60, bytes: 12_000, isBehind: false, now: now)
            // Once nothing has followed, a burst is taken for all there is.
            #expect((pause != nil) == (number == 0))
            if pause != nil { #expect(gather.next(after: 0, bytes: 0, isBehind: false, now: now) == nil) }
        }
        #expect(gather.nextAfterSleep(now: start + .seconds(1)) == Gather.first)
        #expect(gather.next(after: 1, bytes: 200, isBehind: false, now: start + .seconds(1)) == nil)
        #expect(gather.nextAfterSleep(now: start + .seconds(2)) == .zero)
    }

    @Test func `what comes soon after a look is waited for, and the longer the more come`() {
        var gather = Gather(most: .milliseconds(1), queue: 16 << 20)
        #expect(gather.nextAfterSleep(now: start) == .zero)
        #expect(gather.next(after: 1, bytes: 200, isBehind: false, now: start) == nil)
        #expect(gather.nextAfterSleep(now: start + .microseconds(100)) == Gather.first)
        var pauses: [Duration?] = []
        for _ in 0..<4 { pauses.append(gather.next(after: 100, bytes: 20_000, isBehind: false, now: start)) }
        #expect(pauses == [.microseconds(400), .microseconds(800), .milliseconds(1), .milliseconds(1)])
        // Fewer than are worth it: sleep, but wait for more when one comes soon.
        #expect(gather.next(after: 3, bytes: 600, isBehind: false, now: start) == nil)
        #expect(gather.nextAfterSleep(now: start + .microseconds(900)) == .milliseconds(1))
        // A pause that brought no others begins anew.
        #expect(gather.next(after: 1, bytes: 200, isBehind: false, now: start) == nil)
        #expect(gather.nextAfterSleep(now: start + .microseconds(900)) == .zero)
    }

    @Test func `nothing is waited for behind what was left, or where the settings say so`() {
        var gather = Gather(most: .milliseconds(1), queue: 16 << 20)
        #expect(gather.next(after: 2048, bytes: 400_000, isBehind: true, now: start) == .zero)
        var eager = Gather(most: .zero, queue: 16 << 20)
        #expect(eager.next(after: 100, bytes: 20_000, isBehind: false, now: start) == .zero)
        #expect(eager.nextAfterSleep(now: start + .microseconds(1)) == .zero)
    }

    /// Datagrams come at a rate; a queue of any size loses none of them once the pauses have settled.
    @Test func `a queue never fills while it is gathered, however small it is and however fast they come`() {
        var random = Random()
        for _ in 0..<200 {
            let queue = (128 << 10) << random.below(8)
            // What the kernel takes for one, and a rate that fills the queue in no less than a millisecond.
            let (size, taken) = (235, 768)
            let rate = Double(queue) / Double(taken) * 1000 * Double(1 + random.below(100)) / 100
            var gather = Gather(most: .milliseconds(1), queue: queue)
            var (pause, now) = (Gather.first, start)
            for round in 0..<100 {
                // A nap takes somewhat longer than it was asked to.
                let seconds = pause / .seconds(1) + 0.00006
                now += .seconds(seconds)
                let count = Int(rate * seconds)
                if round > 0 { #expect(count * taken < queue, random.note) }
                pause =
                    gather.next(after: count, bytes: count * size, isBehind: false, now: now)
                    ?? gather.nextAfterSleep(now: now)
            }
        }
    }
}
