import Agent
import Bytes
import Testing

@Suite struct SpareMemoryTests {
    let start = Instant.now
    let pool = BufferPool(mostKept: 1 << 20)

    /// Has `bytes` more in use while `body` runs.
    private func using(_ bytes: Int, _ body: () -> Void = {}) {
        let held = PooledBytes(atLeast: bytes, from: pool)
        body()
        _ = held.capacity
    }

    @Test func `what a burst has needed goes a period behind it, once, though a little comes all the time`() {
        var spare = SpareMemory(now: start)
        using(32 << 20)
        var given: [Int] = []
        for second in 1...20 {
            using(100 << 10)
            if spare.mustGo(of: pool, now: start + .seconds(second)) { given.append(second) }
        }
        // The first look still sees the burst.
        #expect(given == [4])
        #expect(spare.nextLook(at: pool) == nil)
    }

    @Test func `bursts that come again and again keep what they need`() {
        var spare = SpareMemory(now: start)
        for second in 1...20 {
            using(32 << 20)
            check(!spare.mustGo(of: pool, now: start + .seconds(second)))
        }
    }

    @Test func `an idle lane looks until it has given back, and no longer`() {
        var spare = SpareMemory(now: start)
        check(!spare.mustGo(of: pool, now: start + .seconds(3600)))
        #expect(spare.nextLook(at: pool) == nil)
        using(32 << 20)
        var looks = 0
        while let due = spare.nextLook(at: pool), looks < 10 {
            looks += 1
            if spare.mustGo(of: pool, now: due) { break }
        }
        #expect(looks == 2)
        #expect(spare.nextLook(at: pool) == nil)
    }

    @Test func `what is still in use is waited for without looking`() {
        var spare = SpareMemory(now: start)
        using(32 << 20) {
            check(!spare.mustGo(of: pool, now: start + .seconds(2)))
            #expect(spare.nextLook(at: pool) == nil)
        }
        #expect(spare.nextLook(at: pool) != nil)
    }
}
