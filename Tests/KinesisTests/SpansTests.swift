import Kinesis
import Seeded
import Testing

@Suite struct SpansTests {
    /// The plainest bookkeeping: one flag a position.
    struct Bitmap {
        let start: UInt64
        var flags: [Bool]

        mutating func settle(_ stretch: Range<UInt64>) {
            for position in stretch { flags[Int(position - start)] = true }
        }

        var settled: UInt64 { start + UInt64(flags.firstIndex(of: false) ?? flags.count) }
        var hasGap: Bool { flags[Int(settled - start)...].contains(true) }
    }

    @Test func `settles as far as a bitmap says, in whatever order and pieces aggregates settle`() {
        var random = Random()
        for _ in 0..<1500 {
            let start = random.oneIn(2) ? 0 : UInt64(random.below(1_000_000))
            let count = 1 + random.below(400)
            var spans = Spans(from: start)
            var model = Bitmap(start: start, flags: .init(repeating: false, count: count))
            // Runs in order, each given to one of a few open aggregates; some of them empty.
            var open: [[Range<UInt64>]] = .init(repeating: [], count: 1 + random.below(8))
            var position = start
            while position < start + UInt64(count) {
                let end = min(position + UInt64(random.below(20)), start + UInt64(count))
                open[random.below(open.count)].append(position..<end)
                position = end
            }
            var waiting = open.filter { !$0.isEmpty }
            while !waiting.isEmpty {
                let index = random.below(waiting.count)
                if random.oneIn(4) {
                    // Re-aggregation: its runs are cut anew and go to two others.
                    let runs = waiting.remove(at: index).flatMap { random.cut($0) }
                    let parts = Dictionary(grouping: runs) { _ in random.below(2) }.values.map { $0 }
                    waiting += parts.map { $0.sorted { $0.lowerBound < $1.lowerBound } }
                    continue
                }
                let runs = waiting.remove(at: index)
                if random.oneIn(3) {
                    for run in runs.shuffled(using: &random) {
                        spans.settle(run)
                        model.settle(run)
                        #expect(spans.settled == model.settled, random.note)
                    }
                } else {
                    spans.settle(runs)
                    runs.forEach { model.settle($0) }
                }
                #expect(spans.settled == model.settled, random.note)
                #expect(spans.hasGap == model.hasGap, random.note)
            }
            #expect(spans.settled == start + UInt64(count), random.note)
        }
    }

    @Test func `nothing moves past a gap`() {
        var spans = Spans(from: 10)
        spans.settle([20..<30, 40..<50])
        #expect(spans.settled == 10)
        #expect(spans.hasGap)
        spans.settle(10..<20)
        #expect(spans.settled == 30)
        spans.settle(30..<40)
        #expect(spans.settled == 50)
        #expect(!spans.hasGap)
    }

    @Test(arguments: [
        [0..<10, 0..<10], [0..<10, 5..<6], [20..<30, 20..<30], [20..<30, 25..<40], [20..<30, 15..<21],
    ])
    func `settling a position twice is a programming error`(stretches: [Range<UInt64>]) async {
        await #expect(processExitsWith: .failure) { [stretches] in
            var spans = Spans(from: 0)
            for stretch in stretches { spans.settle(stretch) }
        }
    }

    @Test func `puts runs in order as comparing them does, however many and wherever they lie`() {
        var random = Random()
        for _ in 0..<400 {
            let sources = 1 + random.below(random.oneIn(4) ? 5000 : 3)
            let positions = UInt64.random(in: 0 ... .max, using: &random) >> UInt64(random.below(60))
            var runs = (0..<random.below(random.oneIn(2) ? 3000 : 300)).map { index in
                let first = UInt64.random(in: 0...positions, using: &random)
                let source = UInt32(truncatingIfNeeded: random.below(sources) &* (random.oneIn(2) ? 1 : 1_000_003))
                return Run(source: source, first: first, end: .max, records: index)
            }
            let sorted = runs.sorted { ($0.source, $0.first) < ($1.source, $1.first) }
            if random.oneIn(8) { runs = sorted }
            runs.sortByPosition()
            #expect(runs == sorted, random.note)
        }
    }
}

extension Random {
    fileprivate mutating func cut(_ range: Range<UInt64>) -> [Range<UInt64>] {
        guard range.count > 1 else { return [range] }
        let middle = range.lowerBound + UInt64(below(range.count))
        return [range.lowerBound..<middle, middle..<range.upperBound]
    }
}
