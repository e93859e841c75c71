public import Bytes

/// Finds the record for which Kinesis refuses a call as a whole: parts the call until that record stands alone.
///
/// A call is refused for good where one of its records is, and says not which. The others must not suffer for it; and as
/// long as everything is refused, it is not the records' fault.
public struct Suspects {
    /// To be called one after another, apart from all others.
    private var groups: [[SealedAggregate]] = []
    private var inQuestion: Set<ObjectIdentifier> = []
    /// Whether a call has succeeded since the first refusal: then it is a record's fault.
    private var isStreamCleared = false

    public init() {}

    public enum Verdict {
        /// It is looked for: nothing else is to be done with the call.
        case parted
        /// It is found.
        case guilty(SealedAggregate)
        /// Another is looked for now: send the call again.
        case notNow
    }

    /// The receipt of the oldest live record among those that wait.
    public var oldestReceipt: Instant? {
        groups.lazy.joined().filter { !$0.isBacklog }.map(\.firstReceipt).min()
    }

    public var isEmpty: Bool { inQuestion.isEmpty }

    /// Notes that `call` was refused.
    public mutating func refused(_ call: [SealedAggregate]) -> Verdict {
        if !isSuspect(call) {
            guard isEmpty else { return .notNow }
            inQuestion = Set(call.map(ObjectIdentifier.init))
            isStreamCleared = false
        }
        if call.count > 1 {
            groups.append(Array(call[(call.count / 2)...]))
            groups.append(Array(call[..<(call.count / 2)]))
            return .parted
        }
        guard isStreamCleared else {
            groups.insert(call, at: 0)
            return .parted
        }
        release(call)
        return .guilty(call[0])
    }

    /// Notes that Kinesis took a call.
    public mutating func succeeded(_ call: [SealedAggregate]) {
        isStreamCleared = true
        if isSuspect(call) { release(call) }
    }

    /// Notes that a call failed for another reason.
    ///
    /// - Returns: whether it is looked at again here.
    public mutating func failed(_ call: [SealedAggregate]) -> Bool {
        guard isSuspect(call) else { return false }
        groups.append(call)
        return true
    }

    /// Notes that it is known of an aggregate by other means what becomes of it.
    public mutating func forget(_ aggregate: SealedAggregate) { release([aggregate]) }

    /// The next call to make apart from others; nil: none.
    ///
    /// - Parameter hasOthers: whether another call could be made, which would tell more than one that was refused before.
    public mutating func next(hasOthers: Bool) -> [SealedAggregate]? {
        guard let last = groups.last else { return nil }
        return last.count == 1 && !isStreamCleared && hasOthers ? nil : groups.popLast()
    }

    /// Whether `next` has a call.
    public func hasNext(hasOthers: Bool) -> Bool {
        guard let last = groups.last else { return false }
        return !(last.count == 1 && !isStreamCleared && hasOthers)
    }

    /// Gives up looking: everything that waits to be called apart.
    public mutating func takeAll() -> [SealedAggregate] {
        let all = groups.reversed().flatMap { $0 }
        groups = []
        release(all)
        return all
    }

    private func isSuspect(_ call: [SealedAggregate]) -> Bool { inQuestion.contains(ObjectIdentifier(call[0])) }

    private mutating func release(_ call: [SealedAggregate]) {
        for aggregate in call { inQuestion.remove(ObjectIdentifier(aggregate)) }
    }
}
