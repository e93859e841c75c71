import Fleet

/// The table's rows, in its order.
let scenarios: [Scenario] = [
    Scenario("1,000 agents, 100 shards, 150 %"),
    Scenario("  the KPL's limiter") { $0.limiter = .kpl },
    Scenario("demand 50 %") { $0.demand = 0.5 },
    Scenario("  without pacing") { ($0.demand, $0.limiter) = (0.5, .none) },
    Scenario("doubled after 30 s") { ($0.demand, $0.doublesAt) = (3, 30) },
    Scenario("by key") { $0.placement = .random },
    Scenario("a fixed key for each agent") { $0.placement = .fixed },
    Scenario("10 huge agents") { $0.agents = 10 },
    Scenario("5,000 agents") { $0.agents = 5000 },
    Scenario("Zipf demand") { $0.demandOf = .zipf },
    Scenario("1 agent, 8 shards") { ($0.agents, $0.shards) = (1, 8) },
    Scenario("  by key") { ($0.agents, $0.shards, $0.placement) = (1, 8, .random) },
    Scenario("  a dead shard") { ($0.agents, $0.shards, $0.deadShard) = (1, 8, 3) },
    Scenario("  by key, a dead shard") { ($0.agents, $0.shards, $0.placement, $0.deadShard) = (1, 8, .random, 3) },
]
