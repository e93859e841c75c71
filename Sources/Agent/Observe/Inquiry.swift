import Synchronization

/// A question to a busy thread, and its last answer.
///
/// The thread looks once a turn whether somebody asks, which costs it one load; who asks also wakes it. Nobody waits for an
/// answer longer than he likes: the last one stands.
package final class Inquiry<Answer: Sendable>: Sendable {
    private let asked = Atomic<Bool>(false)
    private let last = Mutex<Answer?>(nil)

    package init() {}

    package func ask() { asked.store(true, ordering: .releasing) }

    /// Whether somebody waits for an answer.
    package var isOpen: Bool { asked.load(ordering: .relaxed) }

    /// Answers, if somebody has asked.
    package func answer(_ answer: () -> Answer) {
        guard isOpen, asked.exchange(false, ordering: .acquiringAndReleasing) else { return }
        let answer = answer()
        last.withLock { $0 = answer }
    }

    package var lastAnswer: Answer? { last.withLock { $0 } }
}
