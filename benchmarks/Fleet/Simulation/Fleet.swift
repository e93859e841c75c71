import Bytes
import Kinesis

/// Agents and a stream, event by event: a call reaches the shards after half of its 20 to 60 ms.
public struct Fleet {
    private enum Event {
        case wake(agent: Int, generation: Int)
        case arrival(Int)
        case answer(Int)
        case adoption(agent: Int)
        case doubling
    }

    private struct Call {
        var agent: Int
        var records: [SealedAggregate]
        var accepted: [Bool] = []
        var latency: Int64
    }

    private let scenario: Scenario
    private var service: Service
    private var outcome: Outcome
    private var queue = EventQueue<Event>()
    private var calls: [Call] = []
    private var freeCalls: [Int] = []
    private var random: SplitMix64
    private let members: [Member]
    private let block: [UInt8]

    /// Runs a scenario to its end.
    public static func run(_ scenario: Scenario) -> Outcome {
        switch scenario.limiter {
        case .penstock, .none:
            var fleet = Fleet(scenario)
            return fleet.run()
        case .kpl:
            var fleet = KPLFleet(scenario)
            return fleet.run()
        }
    }

    /// What each agent wants, bytes a second.
    static func demands(_ scenario: Scenario) -> [Double] {
        let total = scenario.demand * Double(scenario.shards * Limits.shardBytesPerSecond)
        switch scenario.demandOf {
        case .equal: return .init(repeating: total / Double(scenario.agents), count: scenario.agents)
        case .zipf:
            let weights = (1...scenario.agents).map { 1 / Double($0) }
            let sum = weights.reduce(0, +)
            return weights.map { total * $0 / sum }
        case .endless:
            let all = Double(scenario.shards * Limits.shardBytesPerSecond)
            return .init(repeating: all, count: scenario.agents)
        }
    }

    private init(_ scenario: Scenario) {
        self.scenario = scenario
        service = Service(shards: scenario.shards)
        random = SplitMix64(seed: scenario.seed)
        let demands = Self.demands(scenario)
        outcome = Outcome(scenario, demands: demands)
        let pool = BufferPool(mostKept: 64 << 20)
        let start = Instant.now
        let map = service.map
        members = demands.indices.map { number in
            Member(
                number,
                scenario,
                demand: scenario.demandOf == .endless ? nil : demands[number],
                map: map,
                pool: pool,
                start: start
            )
        }
        var block = [UInt8](repeating: 120, count: 128 << 10)
        for end in stride(from: scenario.lineBytes - 1, to: block.count, by: scenario.lineBytes) { block[end] = 10 }
        self.block = block
    }

    private mutating func run() -> Outcome {
        let end = Int64(scenario.seconds) * 1_000_000_000
        for member in members {
            queue.add(.wake(agent: member.number, generation: 0), at: Int64(random.next() % 100_000_000))
        }
        if let second = scenario.doublesAt { queue.add(.doubling, at: Int64(second) * 1_000_000_000) }
        while let (time, event) = queue.next(), time < end {
            if let dead = scenario.deadShard, service.dead == nil, time >= end / 10 {
                service.dead = service.map.shards[dead].id
            }
            switch event {
            case .wake(let agent, let generation):
                if members[agent].generation == generation { run(agent, time) }
            case .arrival(let call): arrive(call, time)
            case .answer(let call): answer(call, time)
            case .adoption(let agent):
                members[agent].adopt(service.map, time)
                run(agent, time)
            case .doubling:
                service.double(at: time)
                for member in members {
                    queue.add(.adoption(agent: member.number), at: time + Int64(random.next() % 500_000_000))
                }
            }
        }
        return outcome
    }

    private mutating func run(_ agent: Int, _ time: Int64) {
        let member = members[agent]
        var started: [[SealedAggregate]] = []
        member.run(time, block: block.span) { started.append($0) }
        for records in started {
            let latency = 20_000_000 + Int64(random.next() % 40_000_000)
            let call = Call(agent: agent, records: records, latency: latency)
            let slot: Int
            if let free = freeCalls.popLast() {
                slot = free
                calls[slot] = call
            } else {
                slot = calls.count
                calls.append(call)
            }
            queue.add(.arrival(slot), at: time + latency / 2)
        }
        member.generation += 1
        queue.add(.wake(agent: agent, generation: member.generation), at: member.wakes(time))
    }

    private mutating func arrive(_ slot: Int, _ time: Int64) {
        let (agent, records, latency) = (calls[slot].agent, calls[slot].records, calls[slot].latency)
        var accepted: [Bool] = []
        accepted.reserveCapacity(records.count)
        for record in records {
            let isAccepted = service.put(record.size, in: service.index(of: record.hashes.lowerBound), at: time)
            outcome.tried(record.size, by: agent, isAccepted: isAccepted, at: time)
            accepted.append(isAccepted)
            if isAccepted, let written = members[agent].written(record) {
                outcome.acknowledged(after: time + latency / 2 - written, at: time)
            }
        }
        calls[slot].accepted = accepted
        queue.add(.answer(slot), at: time + latency / 2)
    }

    private mutating func answer(_ slot: Int, _ time: Int64) {
        let call = calls[slot]
        calls[slot].records = []
        freeCalls.append(slot)
        members[call.agent].take(call.records, accepted: call.accepted, time)
        run(call.agent, time)
    }
}
