import Agent
import Platform
import Seeded
import Synchronization
import Testing

@Suite struct StatusTests {
    @Test func `the files with most to read are told, whatever their order`() {
        var random = Random()
        for _ in 0..<300 {
            let files = (0..<random.below(60)).map { number in
                let read = UInt64(random.below(50))
                return FileLag(
                    input: "a",
                    path: "\(number)",
                    source: UInt32(number),
                    size: UInt64(random.below(50)),
                    read: read
                )
            }
            func unread(_ file: FileLag) -> Int { max(0, Int(file.size) - Int(file.read)) }
            let told = FileLag.furthest(files)
            let expected = files.map(unread).sorted(by: >).prefix(FileLag.most)
            #expect(told.map(unread) == Array(expected), random.note)
            #expect(Set(told.map(\.source)).count == told.count, random.note)
        }
    }

    @Test func `a histogram counts each duration in every bucket it fits`() {
        var random = Random()
        var (histogram, durations): (Histogram, [Duration]) = (.init(), [])
        for _ in 0..<1000 {
            // Bounds themselves, too; and what no bucket holds.
            let bound = Histogram.bounds[random.below(Histogram.bounds.count)]
            durations.append(
                [.seconds(bound), .milliseconds(random.below(400_000)), .zero, .seconds(-1)][random.below(4)]
            )
            histogram.add(durations[durations.count - 1])
        }
        #expect(histogram.count == 1000)
        for (bound, count) in histogram.cumulative {
            #expect(count == durations.count { max(.zero, $0) / .seconds(1) <= bound }, random.note)
        }
        let sum = durations.reduce(0.0) { $0 + max(0, $1 / .seconds(1)) }
        #expect(abs(histogram.seconds - sum) < 0.001, random.note)
    }

    @Test func `a question is answered once`() {
        let inquiry = Inquiry<Int>()
        var answers = 0
        func look() {
            inquiry.answer {
                answers += 1
                return answers
            }
        }
        look()
        #expect(inquiry.lastAnswer == nil && !inquiry.isOpen)
        inquiry.ask()
        #expect(inquiry.isOpen)
        look()
        look()
        #expect(inquiry.lastAnswer == 1 && !inquiry.isOpen)
        inquiry.ask()
        inquiry.ask()
        look()
        #expect(inquiry.lastAnswer == 2)
    }

    @Test func `who sees no open question has an answer of after his own`() {
        let (inquiry, clock, isOver) = (Inquiry<Int>(), Box(0), Box(0))
        let thread = Platform.Thread("answers") {
            while isOver.value.load(ordering: .relaxed) == 0 {
                inquiry.answer { clock.value.load(ordering: .relaxed) }
            }
        }
        for time in 1...20_000 {
            clock.value.store(time, ordering: .relaxed)
            inquiry.ask()
            while inquiry.isOpen {}
            guard inquiry.lastAnswer == time else {
                Issue.record("asked at \(time), the answer is of \(inquiry.lastAnswer ?? -1)")
                break
            }
        }
        isOver.value.store(1, ordering: .relaxed)
        thread.join()
    }

    private final class Box: Sendable {
        let value: Atomic<Int>
        init(_ value: Int) { self.value = Atomic(value) }
    }
}
