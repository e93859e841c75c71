import Bytes
import Kinesis
import Seeded
import Testing

@Suite struct SuspectsTests {
    /// Kinesis refuses every call with one of the `bad`; calls that are not suspect succeed now and then.
    private func search(records: Int, bad: Set<Int>, random: inout Random) -> (
        found: [Int], delivered: [Int], sent: Int, calls: Int
    ) {
        let now = Instant.now
        let all = (0..<records).map { BatcherTests.record($0, receipt: now) }
        var (waiting, suspects) = (all, Suspects())
        var (found, delivered, calls): ([Int], [Int], Int) = ([], [], 0)
        var sent = records
        while !waiting.isEmpty || !suspects.isEmpty {
            calls += 1
            guard calls < 100_000 else { break }
            // A bad record that is alone is known when another has come and was taken.
            if waiting.isEmpty, calls % 50 == 0 {
                waiting.append(BatcherTests.record(sent, receipt: now))
                sent += 1
            }
            let call: [SealedAggregate]
            if let apart = suspects.next(hasOthers: !waiting.isEmpty) {
                call = apart
            } else {
                let count = min(waiting.count, 1 + random.below(20))
                call = Array(waiting.prefix(count))
                waiting.removeFirst(count)
            }
            let numbers = BatcherTests.numbers(call)
            if random.oneIn(10) {
                if !suspects.failed(call) { waiting += call }
            } else if bad.isDisjoint(with: numbers) {
                suspects.succeeded(call)
                delivered += numbers
            } else {
                switch suspects.refused(call) {
                case .parted: break
                case .notNow: waiting += call
                case .guilty(let record): found += BatcherTests.numbers([record])
                }
            }
        }
        return (found.sorted(), delivered.sorted(), sent, calls)
    }

    @Test func `each bad record is found, and every other one is delivered`() {
        var random = Random()
        for _ in 0..<50 {
            let bad = Set((0..<random.below(4)).map { _ in random.below(300) })
            let (found, delivered, sent, calls) = search(records: 300, bad: bad, random: &random)
            #expect(Set(found) == bad && found.count == bad.count, random.note)
            #expect(delivered == (0..<sent).filter { !bad.contains($0) }, random.note)
            #expect(calls < 400, random.note)
        }
    }

    @Test func `while every call is refused no record is blamed`() {
        let records = (0..<8).map { BatcherTests.record($0, receipt: .now) }
        var suspects = Suspects()
        guard case .parted = suspects.refused(records) else {
            Issue.record("not parted")
            return
        }
        for _ in 0..<100 {
            guard let call = suspects.next(hasOthers: false) else {
                Issue.record("lost")
                return
            }
            guard case .parted = suspects.refused(call) else {
                Issue.record("blamed")
                return
            }
        }
        // The stream is well again: all are sent.
        var sent = 0
        while let call = suspects.next(hasOthers: false) {
            suspects.succeeded(call)
            sent += call.count
        }
        #expect(sent == 8 && suspects.isEmpty)
    }
    @Test func `at any time it hands back everything that it would have called apart, once`() {
        var random = Random()
        for _ in 0..<50 {
            let records = (0..<1 + random.below(100)).map { BatcherTests.record($0, receipt: .now) }
            var suspects = Suspects()
            var kept = 0
            _ = suspects.refused(records)
            for _ in 0..<random.below(20) {
                guard let call = suspects.next(hasOthers: false) else { break }
                if random.oneIn(3) {
                    suspects.succeeded(call)
                    kept += call.count
                } else if case .guilty = suspects.refused(call) {
                    kept += 1
                }
            }
            #expect(suspects.takeAll().count == records.count - kept, random.note)
            #expect(suspects.isEmpty && !suspects.hasNext(hasOthers: false), random.note)
        }
    }
}
