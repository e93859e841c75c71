import ArgumentParser
import Benchmark
import BenchmarkWorks
import Foundation

// The inner loops by the clock: `micro-benchmark [WORK…]` times rounds of each work, for less than a second, and prints a table.
// What a figure is worth depends on the machine and on what else it does: the instructions (benchmarks/Instructions) are compared.
//
// ordo-one's Benchmark measures; its tables, which a SwiftPM plugin prints, know rounds and no units, and building that takes longer
// than all measuring. So this asks the library's runner as the plugin does: by a pipe.

/// A work that is prepared while it is measured.
final class TimedWork {
    private let work: Work
    private var round: ((Int) -> Int)?
    private(set) var units = 0

    init(_ work: Work) { self.work = work }

    func run() {
        if round == nil { round = work.prepare() }
        units = round!(1)
    }

    /// Lets go of what was prepared.
    func end() { round = nil }
}

struct Pipes {
    private let requests = Pipe()
    private let replies = Pipe()

    var arguments: [String] {
        [
            "--quiet", "true", "--input-fd", "\(requests.fileHandleForReading.fileDescriptor)",
            "--output-fd", "\(replies.fileHandleForWriting.fileDescriptor)",
        ]
    }

    /// Asks the runner; gives its answers up to the last.
    func ask(_ request: BenchmarkCommandRequest) throws -> [BenchmarkCommandReply] {
        let text = try JSONEncoder().encode(request)
        let size = unsafe withUnsafeBytes(of: text.count) { unsafe Data($0) }
        try requests.fileHandleForWriting.write(contentsOf: size + text)
        var found: [BenchmarkCommandReply] = []
        while true {
            let reply = try JSONDecoder().decode(
                BenchmarkCommandReply.self,
                from: read(Int(littleEndian: read(8).integer))
            )
            switch reply {
            case .end: return found
            case .error(let reason): fatalError(reason)
            default: found.append(reply)
            }
        }
    }

    private func read(_ count: Int) throws -> Data {
        var data = Data()
        while data.count < count {
            guard let more = try replies.fileHandleForReading.read(upToCount: count - data.count), !more.isEmpty else {
                fatalError("the runner has ended")
            }
            data += more
        }
        return data
    }
}

extension Data {
    fileprivate var integer: Int { reversed().reduce(0) { $0 << 8 | Int($1) } }
}

/// Tells the library of the works; gives them by name.
func register(_ works: [Work]) -> [String: TimedWork] {
    var timed: [String: TimedWork] = [:]
    for work in works {
        let timing = TimedWork(work)
        timed[work.name] = timing
        _ = Benchmark(
            work.name,
            configuration: .init(
                metrics: [.wallClock, .throughput],
                warmupIterations: 5,
                maxDuration: .milliseconds(700),
                maxIterations: 2000
            )
        ) { _ in timing.run() }
    }
    return timed
}

let named = CommandLine.arguments.dropFirst()
// They take their message from where nothing comes.
unsafe _ = dup2(open("/dev/null", O_RDONLY), STDIN_FILENO)
let works = (Work.all + Work.messages).filter { named.isEmpty || named.contains($0.name) }
let timed = register(works)
let pipes = Pipes()
let arguments = pipes.arguments
Task.detached {
    do {
        var runner = try BenchmarkRunner.parse(arguments)
        try await runner.run()
    } catch { fatalError("\(error)") }
}

func padded(_ text: String, _ width: Int) -> String { String(repeating: " ", count: max(0, width - text.count)) + text }
print(["p50 ns", "p90", "p99", "a second"].map { padded($0, 12) }.joined() + "  of")
_ = try pipes.ask(.list).map { reply in
    guard case .list(let benchmark) = reply, let timing = timed[benchmark.name] else { return }
    var (nanoseconds, rounds) = ([0, 0, 0], 0)
    for case .result(_, let results) in try pipes.ask(.run(benchmark: benchmark)) {
        for result in results {
            switch result.metric {
            case .wallClock: nanoseconds = result.statistics.percentiles(for: [50, 90, 99])
            default: rounds = result.statistics.percentiles(for: [50])[0]
            }
        }
    }
    let columns =
        nanoseconds.map { String(format: "%.1f", Double($0) / Double(timing.units)) } + ["\(rounds * timing.units)"]
    timing.end()
    print(columns.map { padded($0, 12) }.joined() + "  " + (works.first { $0.name == benchmark.name }?.unit ?? ""))
}
