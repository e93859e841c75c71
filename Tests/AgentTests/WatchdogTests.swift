import Agent
import Bytes
import Testing

@Suite struct WatchdogTests {
    @Test func `a sign of life goes out four times in a period, and only when everyone has answered`() {
        let start = Instant(nanoseconds: 5_000_000_000)
        var watchdog = Watchdog(period: .seconds(8), now: start)
        #expect(watchdog.act(now: start, isAnswered: true) == .ask)
        #expect(watchdog.act(now: start + .seconds(1), isAnswered: true) == .nothing)
        #expect(watchdog.due == start + .seconds(2))
        #expect(watchdog.act(now: start + .seconds(2), isAnswered: true) == .passOnAndAsk)
        #expect(watchdog.act(now: start + .seconds(4), isAnswered: false) == .keepSilent)
        #expect(watchdog.act(now: start + .seconds(6), isAnswered: false) == .keepSilent)
        #expect(watchdog.act(now: start + .seconds(7), isAnswered: true) == .nothing)
        #expect(watchdog.act(now: start + .seconds(8), isAnswered: true) == .passOnAndAsk)
    }

    @Test func `a machine that was asleep asks before it says anything`() {
        let start = Instant(nanoseconds: 0)
        var watchdog = Watchdog(period: .seconds(8), now: start)
        _ = watchdog.act(now: start, isAnswered: true)
        #expect(watchdog.act(now: start + .seconds(3600), isAnswered: false) == .keepSilent)
        #expect(watchdog.due == start + .seconds(3602))
    }

    @Test func `who has not answered is named, and owes one answer however often it was asked`() {
        let pulse = Pulse()
        #expect(pulse.silent.isEmpty)
        pulse.ask()
        pulse.ask()
        #expect(pulse.silent == [.lane, .state])
        pulse.answer(.state)
        #expect(pulse.silent == [.lane])
        pulse.answer(.lane)
        #expect(pulse.silent.isEmpty)
        pulse.answer(.lane)
        pulse.ask()
        #expect(pulse.silent == [.lane, .state])
    }
}
