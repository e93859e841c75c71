import Fleet

// Prints a JSON object for each scenario, or for those whose numbers are given; benchmarks/Fleet/run.py makes the table and
// the plot of them.

let numbers = CommandLine.arguments.dropFirst().compactMap { Int($0) }
for (number, scenario) in scenarios.enumerated() where numbers.isEmpty || numbers.contains(number) {
    let outcome = Fleet.run(scenario)
    let all = scenario.seconds
    func percent(_ value: Double) -> Double { (value * 10_000).rounded() / 100 }
    func bySecond(_ value: (Range<Int>) -> Double) -> [Double] { (0..<all).map { percent(value($0..<$0 + 1)) } }
    let fields: [(String, String)] = [
        ("name", "\"\(scenario.name)\""),
        ("agents", "\(scenario.agents)"),
        ("shards", "\(scenario.shards)"),
        ("seed", "\(scenario.seed)"),
        ("used", "\(percent(outcome.used(0..<all)))"),
        ("used_later", "\(percent(outcome.used(10..<all)))"),
        ("throttled", "\(percent(outcome.throttled(0..<all)))"),
        ("throttled_later", "\(percent(outcome.throttled(10..<all)))"),
        ("jain", "\((outcome.fairness * 1000).rounded() / 1000)"),
        ("p50_ms", "\(outcome.delay(0.5))"),
        ("p99_ms", "\(outcome.delay(0.99))"),
        ("used_by_second", "\(bySecond(outcome.used))"),
        ("throttled_by_second", "\(bySecond(outcome.throttled))"),
    ]
    print("{" + fields.map { "\"\($0)\": \($1)" }.joined(separator: ", ") + "}")
}
