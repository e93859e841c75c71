import Bytes
import Kinesis
import Testing

/// What came back from the spool, beside live records.
@Suite struct BacklogTests {
    static func restored(_ number: UInt64, size: Int = 50_000, _ pool: BufferPool = BufferPool(mostKept: 0))
        -> SealedAggregate
    {
        SealedAggregate(
            restored: [UInt8](repeating: 7, count: size - 1).span,
            recordCount: 1,
            userBytes: size - 1,
            key: .init(partitionKey: [97], explicitHashKey: .lowest),
            hashes: .lowest ... .lowest,
            copy: SpoolLocation(segment: 1, offset: number),
            receipt: .now,
            pool: pool
        )
    }

    @Test func `a call takes live records first, and what room they leave is the backlog's`() throws {
        let now = Instant.now
        var batcher = try BatcherTests.batcher(shards: 2, now: now) { $0.callBytes = 200_000 }
        for number in 0..<10 { batcher.add(Self.restored(UInt64(number)), to: 0) }
        batcher.add(BatcherTests.record(1, size: 90_000, receipt: now - .seconds(1)), to: 0)
        batcher.add(BatcherTests.record(2, size: 50_000, receipt: now - .seconds(1)), to: 1)
        #expect(batcher.backlogBytes == 500_000)
        let call = batcher.next(now: now, flush: false)
        #expect(call.map(\.isBacklog) == [false, false, true])
        #expect(batcher.backlogBytes == 450_000 && batcher.bytes == 0)
    }

    @Test func `the backlog makes calls of its own only when it may`() throws {
        let now = Instant.now
        var batcher = try BatcherTests.batcher(shards: 1, now: now)
        batcher.add(Self.restored(0), to: 0)
        #expect(batcher.next(now: now, flush: true, backlogAlone: false).isEmpty)
        #expect(batcher.nextDue(now: now, flush: true, backlogAlone: false) == nil)
        #expect(batcher.nextDue(now: now, flush: false)! <= now)
        #expect(batcher.next(now: now, flush: false).count == 1)
    }

    @Test(arguments: [(0.3, 3), (1.0, 3), (1.0, 40)])
    func `it takes four fifths and more of what live records leave of a shard, which find room at once`(
        share: Double,
        shards: Int
    ) throws {
        let start = Instant.now
        var batcher = try BatcherTests.batcher(shards: shards, now: start) { $0.shardShare = share }
        var (backlogSent, liveSent, longest) = (0, 0, Duration.zero)
        var queued: [Int: Instant] = [:]
        var number = 0
        // Live records use two fifths of each shard; a minute in steps of 5 ms.
        for step in 0..<12_000 {
            let now = start + .milliseconds(5 * step)
            while batcher.backlogBytes < 4 << 20 {
                for shard in 0..<shards { batcher.add(Self.restored(UInt64(number)), to: shard) }
            }
            for shard in 0..<shards
            where Double(step) * 5 / 1000 * share * 1048.576 * 0.4 >= Double((number / shards + 1) * 20) {
                batcher.add(BatcherTests.record(number, size: 20_479, receipt: now), to: shard)
                queued[number] = now
                number += 1
            }
            while true {
                let call = batcher.next(now: now, flush: false)
                guard !call.isEmpty else { break }
                for aggregate in call {
                    if aggregate.isBacklog {
                        backlogSent += aggregate.size
                        continue
                    }
                    liveSent += aggregate.size
                    // By then the pacer has found out what the stream takes.
                    if step < 400 { continue }
                    longest = max(longest, now - queued[Int(aggregate.origin.runs[0].first)]!)
                }
            }
        }
        let rate = share * Double(Limits.shardBytesPerSecond * shards)
        let left = rate * 60 - Double(liveSent)
        #expect(Double(backlogSent) >= 0.8 * left, "\(Double(backlogSent) / left) of what was left")
        #expect(Double(backlogSent + liveSent) <= rate * 61.1, "the shards' limits hold")
        #expect(longest <= .milliseconds(200), "a live record waited \(longest): two lingers are allowed")
    }

    @Test func `what goes to the spool is the oldest, so that positions move, and the newest stay to probe with`()
        throws
    {
        let now = Instant.now
        var batcher = try BatcherTests.batcher(shards: 4, now: now)
        for number in 0..<40 {
            batcher.add(BatcherTests.record(number, size: 999, receipt: now + .milliseconds(number)), to: number % 4)
        }
        batcher.add(Self.restored(0), to: 0)
        // One may not go: the next goes in its place.
        let taken = batcher.takeOldest(above: 10_000) { $0.origin.runs[0].first != 0 }
        #expect(BatcherTests.numbers(taken) == Array(1..<31))
        #expect(batcher.bytes == 10_000 && batcher.count == 10 && batcher.backlogBytes == 50_000)
        let rest = batcher.next(now: now, flush: true).filter { !$0.isBacklog }
        #expect(Set(BatcherTests.numbers(rest)) == Set([0] + Array(31..<40)))
    }

    @Test func `what is put back keeps its line`() throws {
        let now = Instant.now
        var batcher = try BatcherTests.batcher(shards: 1, now: now)
        batcher.add(Self.restored(0), to: 0)
        batcher.add(BatcherTests.record(1, receipt: now), to: 0)
        let call = batcher.next(now: now, flush: true)
        batcher.putBack(call, to: 0)
        #expect(batcher.bytes == 101 && batcher.backlogBytes == 50_000)
        #expect(batcher.next(now: now, flush: true).map(\.isBacklog) == [false, true])
    }
}
