/// A fleet, its stream and what is asked of them.
public struct Scenario: Sendable {
    public enum Limiter: String, Sendable {
        /// The agent's own batcher, pacer and placement.
        case penstock
        /// The Kinesis Producer Library's: 150 % of every shard for each agent, and no reaction to refusals.
        case kpl
        /// As with `rate_limit = 0`.
        case none
    }

    public enum Placement: String, Sendable {
        case spread
        /// A shard for each line, drawn by chance: what keys do that differ line by line.
        case random
        /// All lines of an agent under one key.
        case fixed
    }

    public enum Demand: Sendable {
        case equal
        /// The agent of rank i wants 1/i of what the first wants.
        case zipf
        /// Each has more than it can ever send.
        case endless
    }

    public var name: String
    public var limiter = Limiter.penstock
    public var placement = Placement.spread
    public var agents = 1000
    public var shards = 100
    /// What all agents want together, as a part of what the shards take.
    public var demand = 1.5
    public var demandOf = Demand.equal
    public var seconds = 60
    /// When every shard is split in two; the agents learn of it within the next half second.
    public var doublesAt: Int?
    /// A shard that refuses everything, from a tenth of the time on.
    public var deadShard: Int?
    public var lineBytes = 1000
    public var seed: UInt64 = 1

    public init(_ name: String, _ change: (inout Self) -> Void = { _ in }) {
        self.name = name
        change(&self)
    }
}
