import Synchronization

// Concurrency: anyone asks and looks; each member answers for itself, in its loop.

/// Whether the threads that must never stand still do turn: they are asked, and each answers at its next turn.
public final class Pulse: Sendable {
    /// Who is asked.
    public enum Member: String, CaseIterable, Sendable {
        case lane = "penstock-lane"
        case state = "penstock-state"
    }

    private let question = Atomic<Int>(0)
    private let lane = Atomic<Int>(0)
    private let state = Atomic<Int>(0)

    public init() {}

    /// Asks anew; who has not answered before owes one answer, not two.
    public func ask() { question.add(1, ordering: .relaxed) }

    /// Costs a load as long as nobody has asked.
    package func answer(_ member: Member) {
        let asked = question.load(ordering: .relaxed)
        switch member {
        case .lane: if lane.load(ordering: .relaxed) != asked { lane.store(asked, ordering: .relaxed) }
        case .state: if state.load(ordering: .relaxed) != asked { state.store(asked, ordering: .relaxed) }
        }
    }

    /// Those who have not answered yet.
    public var silent: [Member] {
        let asked = question.load(ordering: .relaxed)
        return Member.allCases.filter { member in
            switch member {
            case .lane: lane.load(ordering: .relaxed) != asked
            case .state: state.load(ordering: .relaxed) != asked
            }
        }
    }
}
