import Bytes
import Kinesis
import Seeded
import Testing

@Suite struct CallWindowTests {
    /// A line with `calls` in flight at most, which takes `latency` for each and carries `bytesPerSecond` of them all.
    private struct Line {
        var latency: Duration
        var bytesPerSecond: Double
        var timeout: Duration = .seconds(10)
        /// How much longer an answer may take by itself.
        var noise: (inout SplitMix64) -> Duration = { _ in .zero }

        struct Outcome {
            var bytes = 0.0
            var timeouts = 0
            var calls: [Int] = []
            var callBytes = 0
        }

        func run(_ window: inout CallWindow, for seconds: Int, seed: UInt64, callBytes: Int = 1 << 20) -> Outcome {
            let start = Instant.now
            var random = SplitMix64(seed: seed)
            var (now, free) = (start, start)
            var inFlight: [(began: Instant, ends: Instant, bytes: Int)] = []
            var outcome = Outcome()
            while now < start + .seconds(seconds) {
                while inFlight.count < window.calls {
                    let bytes = min(callBytes, window.callBytes)
                    free = max(free, now) + .seconds(Double(bytes) / bytesPerSecond)
                    inFlight.append((now, min(free + latency + noise(&random), now + timeout), bytes))
                }
                let next = inFlight.indices.min { inFlight[$0].ends < inFlight[$1].ends }!
                let call = inFlight.remove(at: next)
                now = call.ends
                if now - call.began >= timeout {
                    outcome.timeouts += 1
                    window.timedOut(now: now)
                    // What was given up does not cross the line.
                    free = min(free, now)
                } else {
                    outcome.bytes += Double(call.bytes)
                    window.answered(
                        after: now - call.began,
                        share: Double(call.bytes) / Double(window.callBytes),
                        isLimited: true,
                        now: now
                    )
                }
                outcome.calls.append(window.calls)
                outcome.callBytes = window.callBytes
            }
            return outcome
        }
    }

    @Test func `where answers do not get slower every call is used, whatever single ones take`() {
        var chance = Random()
        for seed in (0..<5).map({ _ in chance.next() }) {
            var window = CallWindow(most: 24, mostBytes: 1 << 20, timeout: .seconds(10), now: .now)
            let line = Line(latency: .milliseconds(20), bytesPerSecond: 10e9) { random in
                random.nextUnit() < 0.05 ? .milliseconds(300) : .milliseconds(Int(random.nextUnit() * 30))
            }
            let outcome = line.run(&window, for: 20, seed: seed)
            #expect(outcome.timeouts == 0)
            #expect(outcome.calls.suffix(100).allSatisfy { $0 == 24 })
        }
    }

    @Test func `on a thin line few calls are in flight, the line is used, and none is waited for in vain`() {
        var window = CallWindow(most: 24, mostBytes: 1 << 20, timeout: .seconds(10), now: .now)
        let line = Line(latency: .milliseconds(50), bytesPerSecond: 2e6)
        let outcome = line.run(&window, for: 120, seed: 1)
        #expect(outcome.timeouts == 0)
        #expect(outcome.bytes > 0.95 * 120 * 2e6)
        #expect(outcome.calls.suffix(20).allSatisfy { $0 <= 5 })
    }

    @Test func `on a line too thin for one call in time calls get smaller until they arrive`() {
        var window = CallWindow(most: 24, mostBytes: 1 << 20, timeout: .seconds(10), now: .now)
        let line = Line(latency: .milliseconds(50), bytesPerSecond: 50e3)
        let outcome = line.run(&window, for: 600, seed: 1)
        #expect(outcome.callBytes < 500_000)
        #expect(outcome.bytes > 0.8 * 600 * 50e3)
    }

    @Test func `small calls that are answered sooner do not make large ones seem slow`() {
        var window = CallWindow(most: 24, mostBytes: 1 << 20, timeout: .seconds(10), now: .now)
        let line = Line(latency: .milliseconds(60), bytesPerSecond: 10e9)
        for _ in 0..<3 {
            for _ in 0..<10 {
                window.answered(after: .milliseconds(8), share: 0.003, isLimited: false, now: .now)
            }
            #expect(line.run(&window, for: 20, seed: 1).calls.suffix(100).allSatisfy { $0 == 24 })
        }
    }

    @Test func `where answers take longer from some moment on all calls are used again half a minute later`() {
        for seconds in 1..<40 {
            var window = CallWindow(most: 24, mostBytes: 1 << 20, timeout: .seconds(10), now: .now)
            _ = Line(latency: .milliseconds(10), bytesPerSecond: 10e9).run(&window, for: seconds, seed: 1)
            // The line's clock begins anew with each run, and the window's is ahead by then.
            let later = Line(latency: .milliseconds(60), bytesPerSecond: 10e9)
            #expect(later.run(&window, for: seconds + 40, seed: 1).calls.suffix(100).allSatisfy { $0 == 24 })
        }
    }

    @Test func `after a jam all calls are used again`() {
        var window = CallWindow(most: 24, mostBytes: 1 << 20, timeout: .seconds(10), now: .now)
        let wide = Line(latency: .milliseconds(20), bytesPerSecond: 1e9)
        _ = wide.run(&window, for: 5, seed: 1)
        let jam = Line(latency: .seconds(11), bytesPerSecond: 1e9)
        #expect(jam.run(&window, for: 60, seed: 1).calls.last == 1)
        let outcome = wide.run(&window, for: 10, seed: 2)
        #expect(outcome.calls.last == 24 && outcome.callBytes == 1 << 20)
    }
}
