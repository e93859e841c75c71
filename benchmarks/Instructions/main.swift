// What the inner loops cost, for callgrind to count: `instruction-benchmark WORK ROUNDS` prepares a work, does it ROUNDS times
// and prints how many units that were. benchmarks/Instructions/run.py takes the difference to no rounds at all.

let arguments = CommandLine.arguments
guard arguments.count == 3, let rounds = Int(arguments[2]), let units = measure(arguments[1], rounds: rounds) else {
    fatalError("usage: instruction-benchmark WORK ROUNDS")
}
print(units)
