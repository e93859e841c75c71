internal import Kinesis

/// Decides which calls and records fail, and keeps account of what was stored without its caller being told.
///
/// A value without clocks and IO. What happens to the n-th call that a rule is for depends on the seed, the rule's
/// number and n alone.
struct FaultInjector: Sendable {
    /// A rule at work.
    struct Active: Sendable {
        /// Counted from 1 over the injector's life.
        let id: Int
        let rule: FaultRule
        /// The calls, or records, that it is for, and how many of them it hit.
        fileprivate(set) var seen = 0
        fileprivate(set) var hits = 0
        /// Calls that stored records without telling, and those records.
        fileprivate(set) var untoldCalls = 0
        fileprivate(set) var untoldRecords = 0
        /// Access keys that have expired by it.
        fileprivate var expired: Set<String> = []

        /// Counts a call or a record, and draws whether it is hit.
        fileprivate mutating func draws(_ seed: UInt64) -> Bool {
            seen += 1
            guard seen > rule.skip, hits < rule.times else { return false }
            if rule.rate < 1 {
                let drawn = SplitMix.mix(SplitMix.mix(seed &+ UInt64(id) &* 0x9e37_79b9) &+ UInt64(seen))
                // 53 bits, which a Double holds exactly.
                guard Double(drawn >> 11) / Double(1 << 53) < rule.rate else { return false }
            }
            hits += 1
            return true
        }
    }

    let seed: UInt64
    private(set) var rules: [Active] = []
    private var lastID = 0
    /// Whether any rule is for records: nothing is asked for each of them otherwise.
    private(set) var disturbsRecords = false

    init(seed: UInt64 = 0, _ rules: [FaultRule] = []) {
        self.seed = seed
        add(rules)
    }

    mutating func add(_ added: [FaultRule]) {
        for rule in added {
            lastID += 1
            rules.append(Active(id: lastID, rule: rule))
        }
        rulesChanged()
    }

    /// Ends the rule `id`; nil: all.
    ///
    /// - Returns: what ended, with its account.
    mutating func remove(_ id: Int? = nil) -> [Active] {
        let removed = rules.filter { id == nil || $0.id == id }
        rules.removeAll { id == nil || $0.id == id }
        rulesChanged()
        return removed
    }

    private mutating func rulesChanged() {
        disturbsRecords = rules.contains { if case .record = $0.rule.kind { true } else { false } }
    }

    /// How far the service's clock is ahead.
    var skew: Duration {
        rules.reduce(.zero) { if case .clock(let by) = $1.rule.kind { $0 + by } else { $0 } }
    }

    /// Decides on a call, when its head has come.
    ///
    /// Pauses add up; of what ends a call, the first rule in order that hits does.
    /// - Parameter accessKey: whose call it is.
    mutating func disturb(_ operation: Operation, by accessKey: String?) -> Disturbance? {
        var disturbance = Disturbance()
        let key = accessKey ?? ""
        let isMeant = { (rule: FaultRule) in rule.operation == nil || rule.operation == operation }
        // What has expired stays so, whatever the rules before have in mind.
        if let expired = rules.first(where: { $0.expired.contains(key) && isMeant($0.rule) }) {
            disturbance.end = .init(rule: expired.id, isAfter: false, kind: .error(status: 400, .expiredToken))
        }
        for place in rules.indices {
            let (id, rule) = (rules[place].id, rules[place].rule)
            guard isMeant(rule) else { continue }
            switch rule.kind {
            case .record, .clock: break
            case .slow(let speed):
                if rules[place].draws(seed) { disturbance.readSpeed = min(speed, disturbance.readSpeed ?? speed) }
            case .delay(let time):
                guard rules[place].draws(seed) else { break }
                if rule.isAfter {
                    disturbance.pauseAfter += time
                    disturbance.pausedBy = id
                } else {
                    disturbance.pauseBefore += time
                }
            case .expire:
                end(.error(status: 400, .expiredToken))
                if disturbance.end?.rule == id { rules[place].expired.insert(key) }
            case .error(let status, let code):
                end(.error(status: status, Refusal(code, "Injected by a fault.")))
            case .html(let status): end(.html(status: status))
            case .reset: end(.reset)
            case .hang(let time): end(.hang(time))
            case .truncate: end(.truncate)
            case .count(let by): end(.count(by: by))
            }
            func end(_ kind: Disturbance.End.Kind) {
                guard disturbance.end == nil, rules[place].draws(seed) else { return }
                disturbance.end = .init(rule: id, isAfter: rule.isAfter, kind: kind)
            }
        }
        return disturbance.isNothing ? nil : disturbance
    }

    /// Decides on a record: the error code with which it is refused, if it is.
    mutating func refusal(ofRecordFor shard: ShardID, of stream: String) -> String? {
        for place in rules.indices {
            guard case .record(let code, let wanted, let number) = rules[place].rule.kind,
                wanted ?? stream == stream, number ?? shard.number == shard.number, rules[place].draws(seed)
            else { continue }
            return code
        }
        return nil
    }

    /// Notes that a call which rule `id` cut short had stored `records`.
    mutating func noteUntold(_ records: Int, by id: Int) {
        guard records > 0, let place = rules.firstIndex(where: { $0.id == id }) else { return }
        rules[place].untoldCalls += 1
        rules[place].untoldRecords += records
    }

    /// Notes a call that was refused because of the service's clock.
    mutating func noteWrongClock() {
        for place in rules.indices {
            guard case .clock = rules[place].rule.kind else { continue }
            rules[place].seen += 1
            rules[place].hits += 1
        }
    }
}

/// What happens to one call.
struct Disturbance: Sendable {
    /// How the call ends instead of being answered.
    struct End: Sendable {
        enum Kind: Equatable, Sendable {
            case error(status: Int, Refusal)
            case html(status: Int)
            case reset
            case hang(Duration)
            case truncate
            case count(by: Int)
        }

        let rule: Int
        /// Whether the call is carried out first.
        let isAfter: Bool
        let kind: Kind
    }

    /// Bytes a second at which the request is read.
    var readSpeed: Int?
    /// How long the call waits before it is carried out, and its answer after.
    var pauseBefore = Duration.zero
    var pauseAfter = Duration.zero
    /// The rule by which the answer waits.
    var pausedBy: Int?
    var end: End?

    fileprivate var isNothing: Bool {
        readSpeed == nil && pauseBefore == .zero && pauseAfter == .zero && end == nil
    }
}

extension Refusal {
    fileprivate static let expiredToken = Refusal(
        "ExpiredTokenException",
        "The security token included in the request is expired"
    )
}
