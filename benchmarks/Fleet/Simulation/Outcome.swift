import Kinesis

/// What a run came to.
public struct Outcome: Sendable {
    public let scenario: Scenario
    /// By the second: bytes the shards took, records sent, records refused.
    public private(set) var accepted: [Int]
    public private(set) var attempts: [Int]
    public private(set) var refused: [Int]
    /// By ten seconds: what each agent delivered.
    private var delivered: [[Int]]
    /// What each agent wants, bytes a second.
    let demands: [Double]
    /// Records by the milliseconds from being written to being acknowledged, from the tenth second on.
    private var delays = [Int](repeating: 0, count: 60_001)

    init(_ scenario: Scenario, demands: [Double]) {
        self.scenario = scenario
        self.demands = demands
        accepted = .init(repeating: 0, count: scenario.seconds)
        (attempts, refused) = (accepted, accepted)
        delivered = .init(repeating: .init(repeating: 0, count: scenario.agents), count: (scenario.seconds + 9) / 10)
    }

    mutating func tried(_ bytes: Int, by agent: Int, isAccepted: Bool, at time: Int64) {
        let second = Int(time / 1_000_000_000)
        guard second < scenario.seconds else { return }
        attempts[second] += 1
        if isAccepted {
            accepted[second] += bytes
            delivered[second / 10][agent] += bytes
        } else {
            refused[second] += 1
        }
    }

    mutating func acknowledged(after delay: Int64, at time: Int64) {
        guard time >= 10_000_000_000 else { return }
        delays[min(delays.count - 1, max(0, Int(delay / 1_000_000)))] += 1
    }

    /// What the shards take in a second.
    func capacity(_ second: Int) -> Double {
        let doubled = scenario.doublesAt.map { second >= $0 } ?? false
        let alive = scenario.shards - (scenario.deadShard == nil ? 0 : second * 10 >= scenario.seconds ? 1 : 0)
        return Double(alive * (doubled ? 2 : 1) * Limits.shardBytesPerSecond)
    }

    /// The part of what the shards take, or of what is wanted if that is less, that was used.
    public func used(_ seconds: Range<Int>) -> Double {
        let wanted = demands.reduce(0, +)
        let able = seconds.reduce(0) { $0 + min(capacity($1), wanted) }
        return Double(accepted[seconds].reduce(0, +)) / able
    }

    public func throttled(_ seconds: Range<Int>) -> Double {
        let tried = attempts[seconds].reduce(0, +)
        return tried == 0 ? 0 : Double(refused[seconds].reduce(0, +)) / Double(tried)
    }

    /// Jain's index of what agents got, as parts of what an even division would give each: the least of the windows of ten
    /// seconds from the tenth on.
    public var fairness: Double {
        let even = evenDivision
        var least = 1.0
        for window in 1..<max(2, scenario.seconds / 10) where window < delivered.count {
            let parts = zip(delivered[window], even).map { $1 > 0 ? Double($0) / $1 : 1 }
            let (sum, squares) = parts.reduce((0.0, 0.0)) { ($0.0 + $1, $0.1 + $1 * $1) }
            if squares > 0 { least = min(least, sum * sum / (Double(parts.count) * squares)) }
        }
        return least
    }

    /// Max-min: nobody gets more than wanted, and what is left is divided evenly among those who want more.
    private var evenDivision: [Double] {
        var left = capacity(0)
        var shares = demands
        let order = demands.indices.sorted { demands[$0] < demands[$1] }
        for (place, agent) in order.enumerated() {
            shares[agent] = min(demands[agent], left / Double(order.count - place))
            left -= shares[agent]
        }
        return shares
    }

    /// Milliseconds that so great a part of the records took at most.
    public func delay(_ part: Double) -> Int {
        let all = delays.reduce(0, +)
        var sum = 0
        for (milliseconds, count) in delays.enumerated() {
            sum += count
            if Double(sum) >= part * Double(all) { return milliseconds }
        }
        return 0
    }
}
