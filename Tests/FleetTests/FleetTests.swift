import Fleet
import Testing

/// What benchmarks/Fleet measures, at a size that a test may take.
@Suite struct FleetTests {
    @Test func `a fleet that wants half as much again uses the stream, is seldom refused, and divides it evenly`() {
        let outcome = Fleet.run(Scenario("") { ($0.agents, $0.shards) = (200, 20) })
        let (first, later) = (outcome.throttled(0..<60), outcome.throttled(10..<60))
        #expect(outcome.used(0..<60) >= 0.97 && outcome.used(10..<60) >= 0.97, "used \(outcome.used(10..<60))")
        #expect(first <= 0.02, "throttled \(first) from the start")
        #expect(later <= 0.015, "throttled \(later) from the tenth second on")
        #expect(outcome.fairness >= 0.95, "Jain's index \(outcome.fairness)")
    }

    @Test func `by key it is the same, because small records wait for others`() {
        let outcome = Fleet.run(Scenario("") { ($0.agents, $0.shards, $0.placement) = (100, 10, .random) })
        #expect(outcome.used(10..<60) >= 0.96, "used \(outcome.used(10..<60))")
        #expect(outcome.throttled(10..<60) <= 0.025, "throttled \(outcome.throttled(10..<60))")
        #expect(outcome.fairness >= 0.94, "Jain's index \(outcome.fairness)")
    }

    @Test func `a fleet that wants half is never refused, and waits no longer than without pacing`() {
        func outcome(_ limiter: Scenario.Limiter) -> Outcome {
            Fleet.run(Scenario("") { ($0.agents, $0.shards, $0.demand, $0.limiter) = (100, 10, 0.5, limiter) })
        }
        let (paced, free) = (outcome(.penstock), outcome(.none))
        #expect(paced.throttled(0..<60) == 0)
        #expect(paced.delay(0.99) <= free.delay(0.99) + 2, "\(paced.delay(0.99)) ms, \(free.delay(0.99)) ms")
    }

    @Test func `a stream that is doubled is used within five seconds`() {
        let outcome = Fleet.run(
            Scenario("") { ($0.agents, $0.shards, $0.demand, $0.doublesAt, $0.seconds) = (100, 10, 3, 20, 30) }
        )
        #expect(outcome.used(25..<30) >= 0.95, "used \(outcome.used(25..<30))")
    }

    @Test(arguments: [Scenario.Placement.spread, .random])
    func `an agent alone has what the shards take, also while one of them takes nothing`(
        placement: Scenario.Placement
    ) {
        let alone = Fleet.run(Scenario("") { ($0.agents, $0.shards, $0.placement) = (1, 8, placement) })
        #expect(alone.used(0..<60) >= 0.97, "used \(alone.used(0..<60))")
        #expect(alone.throttled(0..<60) <= 0.01, "throttled \(alone.throttled(0..<60))")
        // A shard less from the sixth second on: of the other seven, what is used.
        let dead = Fleet.run(
            Scenario("") { ($0.agents, $0.shards, $0.placement, $0.deadShard) = (1, 8, placement, 3) }
        )
        #expect(dead.used(6..<60) >= 0.95, "used \(dead.used(6..<60))")
    }
}
