import Agent
import Bytes
import Kinesis
import Logging
import Platform
import Seeded
import Testing

@Suite struct SettlementTests {
    static func aggregate(_ runs: [Run]) -> SealedAggregate {
        var writer = AggregateWriter(maxSize: 1 << 20, pool: BufferPool(mostKept: 0))
        let key = RecordKey(partitionKey: [97], explicit: .lowest)
        for run in runs { _ = writer.append([1, 2].span, under: key, from: run, receipt: .now) }
        return writer.seal()!
    }

    @Test func `a checkpoint passes only what has settled without a gap`() throws {
        var random = Random()
        for _ in 0..<100 {
            let checkpoints = try Checkpoints(folder: try Scratch().path)
            let settlement = Settlement(checkpoints, Ledger(inputs: ["app"]))
            let sources = (0..<3).map { checkpoints.open(CheckpointsTests.entry(UInt64($0), at: 10)) }
            var ends = [UInt64](repeating: 10, count: 3)
            var flags = [[Bool]](repeating: [], count: 3)
            var waiting: [SealedAggregate] = []
            for _ in 0..<40 {
                var runs: [Run] = []
                for _ in 0...random.below(5) {
                    let which = random.below(3)
                    let count = 1 + random.below(9)
                    let run = Run(source: sources[which], first: ends[which], end: ends[which] + UInt64(count))
                    settlement.drained(run.source, first: run.first, end: run.end, input: 0)
                    ends[which] = run.end
                    if random.oneIn(6) {
                        settlement.skip(run.source, first: run.first, end: run.end)
                        flags[which] += [Bool](repeating: true, count: count)
                    } else {
                        runs.append(run)
                        flags[which] += [Bool](repeating: false, count: count)
                    }
                }
                if !runs.isEmpty { waiting.append(Self.aggregate(runs)) }
                var together: [SealedAggregate] = []
                while !waiting.isEmpty, random.oneIn(2) {
                    let aggregate = waiting.remove(at: random.below(waiting.count))
                    // A regrouped aggregate settles when its last piece does.
                    if !aggregate.isPiece, random.oneIn(3) {
                        let none = [Run(source: 0, first: 0, end: 0)]
                        let pieces = (0..<3).map { _ in Self.aggregate(none) }
                        aggregate.origin.unsettled += 2
                        for piece in pieces { piece.becomePiece(of: aggregate) }
                        for piece in pieces[..<2] { _ = settlement.settle([piece]) }
                        waiting.append(pieces[2])
                        continue
                    }
                    together.append(aggregate)
                    for run in aggregate.origin.runs {
                        let which = sources.firstIndex(of: run.source)!
                        for position in run.first..<run.end { flags[which][Int(position) - 10] = true }
                    }
                }
                // As an answer has them: in no order of their sources.
                _ = settlement.settle(together)
                for which in 0..<3 {
                    let settled = flags[which].firstIndex(of: false) ?? flags[which].count
                    let position = checkpoints.entry(of: sources[which])?.position
                    #expect(position == UInt64(10 + settled), random.note)
                }
            }
            #expect(settlement.isComplete == waiting.isEmpty, random.note)
            waiting.shuffle(using: &random)
            _ = settlement.settle(waiting)
            #expect(settlement.isComplete, random.note)
            for which in 0..<3 { #expect(checkpoints.entry(of: sources[which])?.position == ends[which], random.note) }
        }
    }

    @Test func `a source that is closed while its records are under way is complete when they have settled`() throws {
        let checkpoints = try Checkpoints(folder: try Scratch().path)
        let settlement = Settlement(checkpoints, Ledger(inputs: ["app"]))
        let source = checkpoints.open(CheckpointsTests.entry(1))
        settlement.drained(source, first: 0, end: 4, input: 0)
        settlement.drained(source, first: 4, end: 8, input: 0)
        checkpoints.close(source)
        _ = settlement.settle([Self.aggregate([Run(source: source, first: 4, end: 8)])])
        #expect(!settlement.isComplete)
        _ = settlement.settle([Self.aggregate([Run(source: source, first: 0, end: 4)])])
        #expect(settlement.isComplete)
    }
}
