import Bytes
import Agent
import Platform

/// The demo's live figures: one screen on a terminal, a line a second elsewhere.
struct DemoScreen {
    private let counters: Counters
    private let generator: any DemoSource
    private let isTerminal: Bool
    private let start = Instant.now
    private var last: Sample
    private var lastLine: Instant
    private var isFirst = true
    /// CPU of the agent's threads by the last look: of a thread that has ended nothing can be read.
    private var cpu = Duration.zero

    private struct Sample {
        var time: Instant
        var records: Int
        var bytes: Int
        var cpu: Duration
    }

    init(counters: Counters, generator: any DemoSource, isTerminal: Bool) {
        (self.counters, self.generator, self.isTerminal) = (counters, generator, isTerminal)
        last = Sample(time: .now, records: 0, bytes: 0, cpu: .zero)
        lastLine = .now
    }

    /// - Parameter isLast: show the whole run's averages in place of the last moment's rates.
    mutating func draw(isLast: Bool = false) {
        let now = Instant.now
        guard isTerminal || isLast || now - lastLine >= .seconds(1) else { return }
        if isLast { last = Sample(time: start, records: 0, bytes: 0, cpu: .zero) }
        lastLine = now
        // The agent's own threads; the generator and the embedded Kinesis are not its cost.
        cpu = max(cpu, Machine.cpuTime(ofThreadsNamed: "penstock-") + Machine.cpuTime(ofThreadsNamed: "collect-"))
        let sample = Sample(
            time: now,
            records: counters.lane.recordsDelivered.now,
            bytes: counters.lane.bytesDelivered.now,
            cpu: cpu
        )
        let seconds = max(0.001, (now - last.time).inSeconds)
        let lines = Double(sample.records - last.records) / seconds
        let megabytes = Double(sample.bytes - last.bytes) / seconds / 1e6
        let cpu = (sample.cpu - last.cpu).inSeconds / seconds * 100
        let aggregates = counters.lane.aggregatesDelivered.now
        let perAggregate = aggregates > 0 ? sample.records / aggregates : 0
        let lag = generator.lines - sample.records
        last = sample
        if isTerminal {
            var rows = [
                ("time", "\(Self.fixed((now - start).inSeconds, 1)) s"),
                ("lines", "\(Self.grouped(Int(lines)))/s"),
                ("bytes", "\(Self.fixed(megabytes, 1)) MB/s"),
                ("aggregates", "\(Self.grouped(aggregates)) delivered, \(perAggregate) records each"),
                (
                    "calls",
                    "\(Self.grouped(counters.lane.calls.now)), \(counters.lane.inFlight.now) in flight, \(counters.lane.retried.now) records retried"
                ),
                ("lag", "\(Self.grouped(max(0, lag))) lines written and not yet acknowledged"),
                ("agent's CPU", "\(Self.fixed(cpu, 1)) % of a core"),
                ("delivered", "\(Self.grouped(sample.records)) lines"),
            ]
            if let datagrams { rows.insert(("datagrams", datagrams), at: 2) }
            if !isFirst { StandardOutput.write("\u{1b}[\(rows.count)A") }
            for (name, value) in rows {
                let padding = String(repeating: " ", count: 14 - name.count)
                StandardOutput.write("  \(name)\(padding)\(value)\u{1b}[K\n")
            }
        } else {
            StandardOutput.write(
                "  \(isLast ? "all " : "")\(Self.fixed((now - start).inSeconds, 0)) s  \(Self.grouped(Int(lines))) lines/s  "
                    + "\(Self.fixed(megabytes, 1)) MB/s  \(Self.grouped(aggregates)) aggregates of \(perAggregate) records  "
                    + "lag \(Self.grouped(max(0, lag)))  CPU \(Self.fixed(cpu, 1)) %\(datagrams.map { "  " + $0 } ?? "")\n"
            )
        }
        isFirst = false
    }

    /// What became of the datagrams; nil where there are none.
    private var datagrams: String? {
        guard let socket = counters.datagramSockets.first else { return nil }
        return "\(Self.grouped(generator.lines)) sent, \(Self.grouped(socket.received.now)) received, "
            + "\(Self.grouped(socket.droppedByKernel.now)) dropped by the kernel, "
            + "\(Self.grouped(socket.droppedByPolicy.now)) by policy"
    }

    /// A number with so many decimals.
    static func fixed(_ value: Double, _ decimals: Int) -> String {
        let scale = decimals == 0 ? 1.0 : decimals == 1 ? 10 : 100
        let scaled = Int((value * scale).rounded())
        guard decimals > 0 else { return String(scaled) }
        let fraction = String(Int(scale) + abs(scaled) % Int(scale)).dropFirst()
        return "\(scaled / Int(scale)).\(fraction)"
    }

    /// 1234567 → 1,234,567.
    static func grouped(_ value: Int) -> String {
        var (text, rest) = ("", String(abs(value)))
        while rest.count > 3 {
            text = ",\(rest.suffix(3))" + text
            rest = String(rest.dropLast(3))
        }
        return (value < 0 ? "-" : "") + rest + text
    }
}
