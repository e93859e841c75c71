public import Bytes

/// How fast one agent may send to a stream that it shares with others it knows nothing of, and which shards it leaves
/// alone for a while.
///
/// A shard refuses what is too much for it, and the share of refusals is all that agents learn of each other. One rate
/// for the stream follows it, because one shard answers a member of a large fleet too seldom to have a rate of its own;
/// a shard that refuses only cools down. Each agent aims for a small share of refusals, larger the slower it is: where
/// all see the same share, the slow ones grow until all are equal.
///
/// Time and chance are arguments, and no event allocates.
public struct Pacer: Sendable {
    /// Bytes a second that may be sent.
    public private(set) var rate: Double
    private var limits: Limits
    /// Twice what the shards take together: their limits are not the pacer's to keep.
    private var most: Double

    private var tokens: Double
    private var refilled: Instant
    /// No call before: what becomes free in the meantime goes together.
    private var resumes: Instant
    /// When something last waited for nothing but the rate.
    private var limited: Instant?

    /// The start ends with its second refusal that counts, or with the first of who sends many small records: until then
    /// the rate grows by the clock.
    private var startsLeft = 2
    private var grown: Instant
    private var cut: Instant?
    /// Refusals that would have come since the last, at the share aimed for.
    private var missed = 0.0

    /// What was attempted of late, bytes a second; nil in the first half second.
    private var attempted: Double?
    private var weight = 1.0
    private var certainty = 0.0
    private var records = 0
    private var attemptedNow = 0.0
    private var period: Instant
    /// What a record costs of late.
    private var cost = 50.0 * 1024

    /// How long a record may wait for others of its shard: longer where many small ones are refused.
    public private(set) var linger: Duration
    private var shards: [Cooling]

    /// A shard that has refused something.
    private struct Cooling: Sendable {
        var refusals = 0
        var until: Instant?
        /// A record is under way to find out whether it takes any again; no other goes before its answer.
        var isProbed = false

        /// Refusals not answered for by a success, or by time without a word.
        func refusals(now: Instant) -> Int {
            guard let until, until < now else { return refusals }
            return max(0, refusals - Int((now - until) / Pacer.forgets))
        }
    }

    /// The rate of an agent that knows nothing yet.
    static let firstRate = 1_048_576.0
    static let leastRate = 512.0
    /// A shard takes a thousand records a second, whatever their size.
    static let leastCost = Double(Kinesis.Limits.shardBytesPerSecond) / Double(Kinesis.Limits.shardRecordsPerSecond)
    /// Time in which tokens gather for a call.
    static let gather: Duration = .milliseconds(50)
    /// A refusal is forgotten in that time, once the shard may be tried again.
    static let forgets: Duration = .seconds(1)
    /// So long an answer to a probe is waited for.
    static let probe: Duration = .milliseconds(500)
    static let longestLinger: Duration = .seconds(2)

    public struct Limits: Sendable {
        /// The part of a shard's own limits to use; nil: no rate at all, though shards that refuse cool down.
        public var shardShare: Double?
        /// From a record's receipt to its call's start, as long as records are large enough.
        public var linger: Duration

        public init(shardShare: Double? = 1, linger: Duration = .milliseconds(100)) {
            (self.shardShare, self.linger) = (shardShare, linger)
        }
    }

    public init(shards: Int, _ limits: Limits = Limits(), now: Instant) {
        self.limits = limits
        linger = limits.linger
        most = Self.most(shards, limits)
        rate = min(Self.firstRate, most)
        tokens = rate / 10
        (refilled, resumes, grown, period) = (now, now, now, now)
        self.shards = .init(repeating: Cooling(), count: shards)
    }

    private static func most(_ shards: Int, _ limits: Limits) -> Double {
        2 * Double(shards * Kinesis.Limits.shardBytesPerSecond) * (limits.shardShare ?? 1)
    }

    private var isAdaptive: Bool { limits.shardShare != nil }

    // MARK: may it go?

    /// Whether a record may go now.
    public var mayGo: Bool { !isAdaptive || tokens > 0 }

    /// How long until a call may start; nil: now.
    public mutating func wait(now: Instant) -> Duration? {
        guard isAdaptive else { return nil }
        refill(now)
        var wait = max(.zero, resumes - now)
        if tokens <= 0 { wait = max(wait, .nanoseconds(Int64(-tokens / rate * 1e9) + 1)) }
        return wait > .zero ? wait : nil
    }

    private mutating func refill(_ now: Instant) {
        guard now > refilled else { return }
        // Nobody has said no yet: what was saved for a second may go at once.
        let most = max(Self.leastRate, cut == nil ? rate : rate / 10)
        tokens = min(most, tokens + rate * ((now - refilled) / .seconds(1)))
        refilled = now
    }

    /// When the shard cools down to; nil when it may be tried.
    public func heldUntil(_ shard: Int, now: Instant) -> Instant? {
        guard let until = shards[shard].until, until > now else { return nil }
        return until
    }

    /// How often the shard has refused of late.
    public func refusals(of shard: Int, now: Instant) -> Int { shards[shard].refusals(now: now) }

    /// Whether the rate is what limits the agent.
    public func isLimited(now: Instant) -> Bool {
        limited.map { now - $0 <= .seconds(2) } ?? false
    }

    /// Bytes an aggregate should have: under pressure so few that some ten a second bring news of the stream.
    public func aggregateSize(most: Int, now: Instant) -> Int {
        guard isAdaptive, isLimited(now: now) else { return most }
        return min(most, max(2048, Int(rate / 10)))
    }

    // MARK: what happens

    /// Notes that something waited for the rate alone.
    public mutating func ranOut(now: Instant) {
        guard isAdaptive else { return }
        limited = now
        if startsLeft > 0, tokens <= 0 {
            // By the clock, whatever the number of calls; after a pause only a little.
            let seconds = min(0.25, max(0, (now - grown) / .seconds(1)))
            rate = min(most, rate * (1 + (cut == nil ? 3 : 0.25) * seconds))
            grown = now
        }
    }

    /// Notes that a record was sent, again or for the first time.
    public mutating func sent(_ bytes: Int, to shard: Int, now: Instant) {
        if shards[shard].refusals >= 2, shards[shard].refusals(now: now) >= 2 {
            (shards[shard].until, shards[shard].isProbed) = (now + Self.probe, true)
        }
        guard isAdaptive else { return }
        let bytes = max(Double(bytes), Self.leastCost)
        roll(now)
        attemptedNow += bytes
        records += 1
        cost += (bytes - cost) / 16
        let hadTokens = tokens > 0
        tokens -= bytes
        if hadTokens, tokens <= 0 { resumes = now + Self.gather }
    }

    private mutating func roll(_ now: Instant) {
        // By key all shards' aggregates may go at the same moment, a linger after the last time: some such moments count.
        let length = max(.milliseconds(500), linger * 4)
        while now - period >= length {
            // Few records say little of a rate, many say all; and nothing is no rate, unless it was all that was allowed.
            if records > 0 || isLimited(now: period) {
                let rate = attemptedNow / (length / .seconds(1))
                certainty = Double(records) / Double(records + 16)
                attempted = attempted.map { $0 + (rate - $0) * max(weight, certainty) } ?? rate
                weight = max(0.125, weight / (1 + weight))
            }
            (attemptedNow, records) = (0, 0)
            period += length
            // After a long pause nothing is left of what was.
            if now - period > .seconds(30) { period = now }
        }
    }

    /// The share of refusals to aim for.
    private var target: Double {
        min(0.05, max(0.002, 0.01 * (102_400 / rate).squareRoot().squareRoot()))
    }
    /// By how much a refusal lowers the rate.
    private var step: Double { min(0.1, max(0.02, cost / rate)) }

    /// Notes that the shard took a record.
    public mutating func succeeded(_ shard: Int, now: Instant) {
        if shards[shard].refusals > 0 {
            shards[shard].refusals = max(0, shards[shard].refusals(now: now) - 1)
            // What time has forgiven is not forgiven again.
            if shards[shard].isProbed || heldUntil(shard, now: now) == nil { shards[shard].until = now }
            shards[shard].isProbed = false
        }
        if linger > limits.linger { linger = max(limits.linger, linger * 0.9997) }
        guard isAdaptive, let limited, now - limited <= .milliseconds(300) else { return }
        let target = target
        missed += target
        var boost = 1.0
        if missed > 2 {
            var power = min(missed - 2, 20)
            while power >= 1 {
                boost *= 3
                power -= 1
            }
            boost *= 1 + 2 * power
        }
        rate = min(most, rate * (1 + min(0.25 * cost / rate, step * target * boost)))
    }

    /// Notes that the shard refused a record of so many bytes for being too much.
    ///
    /// - Parameter chance: evenly drawn from 0 to 1.
    public mutating func throttled(_ shard: Int, bytes: Int, chance: Double, now: Instant) {
        if bytes < 4096 { linger = max(linger, min(Self.longestLinger, linger * 1.25)) }
        let before = shards[shard].refusals(now: now)
        // What was under way when the shard began to cool down is no news.
        let isNews = shards[shard].isProbed || heldUntil(shard, now: now) == nil
        cool(shard, first: isAdaptive ? 0.25 : 0.05, chance: chance, now: now)
        guard isAdaptive, before < 2, isNews else { return }
        roll(now)
        missed = 0
        // A rate that was allowed and not used says nothing of what was too much.
        let attempted = attempted ?? max(attemptedNow / max(0.02, (now - period) / .seconds(1)), Self.leastRate)
        if startsLeft > 0 {
            rate = min(rate, attempted)
            if cut.map({ now - $0 >= .seconds(1) }) ?? true {
                rate *= cut == nil ? 0.5 + 0.3 * certainty : 0.8 + 0.1 * certainty
                cut = now
                // Small records are refused seldom: who sends many of them has been measured well by then.
                startsLeft -= linger > limits.linger && certainty > 0.6 ? startsLeft : 1
            }
        } else {
            rate = min(rate, 2 * attempted)
            rate *= 1 - step
        }
        rate = max(rate, Self.leastRate)
    }

    /// Notes that the shard failed with a record, for no fault of the agent.
    public mutating func failed(_ shard: Int, chance: Double, now: Instant) {
        cool(shard, first: 0.05, chance: chance, now: now)
    }

    private mutating func cool(_ shard: Int, first: Double, chance: Double, now: Instant) {
        guard shards[shard].isProbed || heldUntil(shard, now: now) == nil else { return }
        shards[shard].isProbed = false
        let refusals = min(8, shards[shard].refusals(now: now) + 1)
        shards[shard].refusals = refusals
        let seconds = first * Double(1 << min(refusals, 5)) * (0.5 + chance)
        shards[shard].until = now + .nanoseconds(Int64(seconds * 1e9))
    }

    /// Goes over to other shards; `earlier` says which shard of before each is, if it was there.
    public mutating func adopt(_ earlier: [Int?], _ limits: Limits) {
        let factor = Double(earlier.count) / Double(shards.count)
        if self.limits.linger != limits.linger { linger = limits.linger }
        self.limits = limits
        most = Self.most(earlier.count, limits)
        rate = min(most, max(Self.leastRate, rate * factor))
        shards = earlier.map { $0.map { shards[$0] } ?? Cooling() }
    }
}
