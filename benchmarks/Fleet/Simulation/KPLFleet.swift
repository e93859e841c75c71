import Kinesis

/// The same fleet with the Kinesis Producer Library's limiter: each agent allows itself 150 % of every shard, and sends
/// again what was refused as soon as it hears of it, until it is 30 s old.
///
/// Flattered: its aggregates are full, and its processes have as much CPU as they need.
struct KPLFleet {
    private struct Item {
        var born: Int64
        var shard: Int32
    }

    private struct Agent {
        var waiting: [Item] = []
        /// Calls on their way back: when they are answered, and what was refused.
        var answers: [(time: Int64, refused: [Item])] = []
        var produced = 0.0
        /// Each shard's allowance in records: bytes decide, because they are full.
        var allowed: [Float]
    }

    private static let tick: Int64 = 25_000_000
    private static let recordBytes = 51_200
    private static let timeToLive: Int64 = 30_000_000_000

    private let scenario: Scenario
    private var service: Service
    private var outcome: Outcome
    private var random: SplitMix64

    init(_ scenario: Scenario) {
        self.scenario = scenario
        service = Service(shards: scenario.shards)
        random = SplitMix64(seed: scenario.seed)
        outcome = Outcome(scenario, demands: Fleet.demands(scenario))
    }

    mutating func run() -> Outcome {
        let end = Int64(scenario.seconds) * 1_000_000_000
        let burst = Float(1.5 * Double(Limits.shardBytesPerSecond) / Double(Self.recordBytes))
        let refill = burst * Float(Self.tick) / 1e9
        var agents = [Agent](
            repeating: Agent(allowed: .init(repeating: burst, count: scenario.shards)),
            count: scenario.agents
        )
        for agent in agents.indices { agents[agent].produced = Double(random.nextUnit()) * Double(Self.recordBytes) }
        for time in stride(from: Int64(0), to: end, by: Int(Self.tick)) {
            // Nobody is always first.
            let first = Int(random.next() % UInt64(agents.count))
            for number in agents.indices.map({ ($0 + first) % agents.count }) {
                run(&agents[number], number, time, refill, burst)
            }
        }
        return outcome
    }

    private mutating func run(_ agent: inout Agent, _ number: Int, _ time: Int64, _ refill: Float, _ burst: Float) {
        agent.produced += outcome.demands[number] * Double(Self.tick) / 1e9
        while agent.produced >= Double(Self.recordBytes) {
            agent.produced -= Double(Self.recordBytes)
            agent.waiting.append(Item(born: time, shard: Int32(random.next() % UInt64(scenario.shards))))
        }
        while let first = agent.answers.first, first.time <= time {
            for item in first.refused where time - item.born < Self.timeToLive { agent.waiting.append(item) }
            agent.answers.removeFirst()
        }
        for shard in agent.allowed.indices { agent.allowed[shard] = min(burst, agent.allowed[shard] + refill) }
        var (kept, refused): ([Item], [Item]) = ([], [])
        let latency = 20_000_000 + Int64(random.next() % 40_000_000)
        let arrival = time + latency / 2
        for item in agent.waiting {
            guard agent.allowed[Int(item.shard)] >= 1 else {
                kept.append(item)
                continue
            }
            agent.allowed[Int(item.shard)] -= 1
            let isAccepted = service.put(Self.recordBytes, in: Int(item.shard), at: arrival)
            outcome.tried(Self.recordBytes, by: number, isAccepted: isAccepted, at: arrival)
            if isAccepted {
                outcome.acknowledged(after: arrival + latency / 2 - item.born, at: arrival)
            } else {
                refused.append(item)
            }
        }
        agent.waiting = kept
        if !refused.isEmpty {
            agent.answers.append((time + latency, refused))
            agent.answers.sort { $0.time < $1.time }
        }
    }
}
