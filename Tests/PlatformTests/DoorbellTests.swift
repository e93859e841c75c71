import Bytes
import Platform
import Synchronization
import Testing

@Suite struct DoorbellThreadsTests {
    /// One side publishes a number and rings, the other sleeps until it sees it, and answers the same way.
    @Test func `no ring is missed in thousands of rounds of two threads`() throws {
        let (there, back) = (try Doorbell(), try Doorbell())
        let rounds = 20_000
        let limit = Instant.now + .seconds(60)
        @Sendable func hear(_ value: borrowing Atomic<Int>, _ bell: Doorbell, _ wanted: Int) -> Bool {
            while value.load(ordering: .acquiring) < wanted {
                bell.prepareToSleep()
                let start = Instant.now
                if value.load(ordering: .acquiring) < wanted { bell.wait(atMost: .seconds(5)) }
                bell.wake()
                // A missed ring shows as a wait to its end.
                if .now - start > .seconds(4) || .now > limit { return false }
            }
            return true
        }
        let state = Shared(ping: 0, pong: 0)
        let thread = Thread("answers") {
            for round in 1...rounds {
                guard hear(state.ping, there, round) else { return }
                state.pong.store(round, ordering: .releasing)
                back.ring()
            }
        }
        var heard = 0
        for round in 1...rounds {
            state.ping.store(round, ordering: .releasing)
            there.ring()
            guard hear(state.pong, back, round) else { break }
            heard = round
        }
        state.ping.store(rounds, ordering: .releasing)
        there.ringAlways()
        thread.join()
        #expect(heard == rounds)
    }

    final class Shared: Sendable {
        let ping: Atomic<Int>
        let pong: Atomic<Int>
        init(ping: Int, pong: Int) {
            self.ping = Atomic(ping)
            self.pong = Atomic(pong)
        }
    }

    @Test func `a ring before the sleep is not lost, and one heard is forgotten`() throws {
        let bell = try Doorbell()
        bell.ring()
        #expect(!bell.wait(atMost: .zero))
        bell.prepareToSleep()
        #expect(bell.isOwnerAsleep)
        bell.ring()
        #expect(!bell.isOwnerAsleep)
        #expect(bell.wait(atMost: .seconds(5)))
        bell.wake()
        #expect(!bell.wait(atMost: .zero))
        bell.ringAlways()
        #expect(bell.wait(atMost: .zero))
    }

    @Test func `waits are in whole milliseconds, rounded up`() {
        #expect(Duration.nanoseconds(1).milliseconds == 1)
        #expect(Duration.milliseconds(7).milliseconds == 7)
        #expect(Duration.microseconds(7001).milliseconds == 8)
        #expect(Duration.seconds(-1).milliseconds == 0)
        #expect(Duration.seconds(4_000_000_000).milliseconds > 0)
    }

    @Test func `a thread carries its name`() throws {
        let box = NameBox()
        let thread = Thread("collect-with-a-long-name") {
            let bytes = (try? Folder.read("/proc/thread-self/comm")) ?? []
            box.name.withLock { $0 = String(decoding: bytes, as: UTF8.self) }
        }
        thread.join()
        #expect(box.name.withLock { $0 } == "collect-with-a-\n")
    }

    final class NameBox: Sendable { let name = Mutex("") }
}
