import Synchronization

/// A question to a busy thread, and its last answer.
///
/// The thread looks once a turn whether somebody asks, which costs it two loads; who asks also wakes it. Nobody waits for an
/// answer longer than he likes: the last one stands.
package final class Inquiry<Answer: Sendable>: Sendable {
    /// How often was asked, and which question the last answer is to: it is there before its number is.
    private let asked = Atomic<Int>(0)
    private let answered = Atomic<Int>(0)
    private let last = Mutex<Answer?>(nil)

    package init() {}

    package func ask() { asked.add(1, ordering: .releasing) }

    /// Whether somebody waits for an answer.
    package var isOpen: Bool { answered.load(ordering: .acquiring) != asked.load(ordering: .relaxed) }

    /// Answers, if somebody has asked; for one thread alone.
    package func answer(_ answer: () -> Answer) {
        // What is asked from here on is another question.
        let question = asked.load(ordering: .acquiring)
        guard question != answered.load(ordering: .relaxed) else { return }
        let answer = answer()
        last.withLock { $0 = answer }
        answered.store(question, ordering: .releasing)
    }

    package var lastAnswer: Answer? { last.withLock { $0 } }
}
