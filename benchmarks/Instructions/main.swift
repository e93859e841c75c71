import BenchmarkWorks
import CBaseline

// What the inner loops cost, for callgrind to count: `instruction-benchmark WORK ROUNDS [baseline]` prepares a work, does it ROUNDS
// times and prints how many units that were; as on the least x86-64 processor, if it is told so. benchmarks/Instructions/run.py takes
// the difference to one round. Without arguments it prints the works: name, rounds, paths, unit.

let arguments = CommandLine.arguments
if arguments.count == 1 {
    for work in Work.all {
        print(work.name, work.rounds, work.hasPaths ? "AVX2 baseline" : "AVX2", work.unit, separator: "\t")
    }
} else {
    guard arguments.count >= 3, let rounds = Int(arguments[2]),
        let work = (Work.all + Work.others).first(where: { $0.name == arguments[1] })
    else { fatalError("usage: instruction-benchmark WORK ROUNDS [baseline]") }
    if arguments.dropFirst(3) == ["baseline"] { cbaseline_hide() }
    print(work.prepare()(rounds))
}
