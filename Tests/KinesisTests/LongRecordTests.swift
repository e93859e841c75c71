import Bytes
import Kinesis
import Seeded
import Testing

/// Records above a call's and a shard's usual sizes: a stream may take up to 10 MiB.
@Suite struct LongRecordTests {
    static let mebibyte = 1 << 20

    @Test func `a long record has a call of its own, however busy the other shards are`() throws {
        var now = Instant.now
        var batcher = try BatcherTests.batcher(shards: 8, now: now) { $0.callBytes = 100_000 }
        func add(_ numbers: Range<Int>) {
            for number in numbers {
                batcher.add(BatcherTests.record(number, size: 5000, receipt: now), to: number % 8)
            }
        }
        add(0..<400)
        batcher.add(BatcherTests.record(1000, size: 10 * Self.mebibyte, receipt: now), to: 5)
        var calls: [[Int]] = []
        // As much comes as goes: no shard is ever empty.
        while !calls.contains([1000]), calls.count < 100 {
            now += .milliseconds(10)
            calls.append(BatcherTests.numbers(batcher.next(now: now, flush: true)))
            add(400..<420)
        }
        #expect(calls.last == [1000])
        #expect(calls.dropLast().allSatisfy { !$0.contains(1000) })
    }

    @Test func `of long records one is left to probe with, the newest`() throws {
        let now = Instant.now
        var batcher = try BatcherTests.batcher(shards: 2, now: now)
        for number in 0..<4 {
            let receipt = now + .milliseconds(number)
            batcher.add(BatcherTests.record(number, size: 5 * Self.mebibyte, receipt: receipt), to: number % 2)
        }
        #expect(BatcherTests.numbers(batcher.takeOldest(above: Self.mebibyte) { _ in true }) == [0, 1, 2])
        #expect(batcher.takeOldest(above: Self.mebibyte) { _ in true }.isEmpty && batcher.count == 1)
        #expect(BatcherTests.numbers(batcher.takeOldest(above: 0) { _ in true }) == [3])
    }

    /// A shard as the service limits it, and a line on which calls take different times.
    struct Shard {
        var bytes: TokenBucket
        var refused = 0
        var taken = 0

        mutating func take(_ record: SealedAggregate, at time: Instant) -> Bool {
            guard bytes.wait(for: Double(record.size), now: time) == nil else {
                refused += 1
                return false
            }
            bytes.take(Double(record.size))
            taken += record.size
            return true
        }
    }

    @Test(arguments: [1, 2, 5, 10])
    func `long records pass a shard of 1 MiB a second, with nearly all of its rate and hardly a refusal`(
        mebibytes: Int
    ) throws {
        var random = Random()
        let start = Instant.now
        let rate = Double(Limits.shardBytesPerSecond)
        var shard = Shard(bytes: TokenBucket(rate: rate, burst: rate, now: start))
        var batcher = try BatcherTests.batcher(shards: 1, now: start) { $0.shardShare = 1 }
        let long = LongRecordTests.mebibyte * mebibytes - 1024
        var number = 0
        var now = start
        let seconds = 200
        while now < start + .seconds(seconds) {
            // Something always waits, and between the long ones there are short ones.
            while batcher.bytes < 2 * long {
                number += 1
                batcher.add(BatcherTests.record(number, size: random.oneIn(3) ? long : 20_000, receipt: now), to: 0)
            }
            let call = batcher.next(now: now, flush: false)
            for record in call {
                let travel = Duration.milliseconds(5 + random.below(20) + record.size / 100_000)
                if shard.take(record, at: now + travel) {
                    batcher.succeeded(0, bytes: record.size, now: now + travel)
                } else {
                    let chance = Double(random.below(1000)) / 1000
                    batcher.refused(record, by: 0, because: .throttled, chance: chance, now: now + travel)
                    batcher.putBack([record], to: 0)
                }
            }
            now += .milliseconds(5)
        }
        let used = Double(shard.taken) / (rate * Double(seconds))
        #expect(used > 0.85, "\(used) of the rate, \(shard.refused) refused; \(random.note)")
        #expect(shard.refused <= 2, "\(used) of the rate, \(shard.refused) refused; \(random.note)")
    }

    @Test func `a long record goes at the slowest rate a fleet may leave, and is paid for afterwards`() throws {
        let start = Instant.now
        var pacer = Pacer(shards: 1, now: start)
        var now = start
        for _ in 0..<200 {
            now += .seconds(2)
            pacer.ranOut(now: now)
            pacer.throttled(0, bytes: 50_000, chance: 0.5, now: now)
            now += .seconds(20)
            pacer.sent(1000, to: 0, now: now)
        }
        now += .seconds(60)
        #expect(pacer.wait(now: now) == nil && pacer.mayGo)
        pacer.sent(10 * Self.mebibyte, to: 0, now: now)
        let wait = pacer.wait(now: now)
        let seconds = try #require(wait) / .seconds(1)
        #expect(abs(seconds * pacer.rate / Double(10 * Self.mebibyte) - 1) < 0.01)
    }

    static func taking(_ longLines: Aggregator.LongLines, _ record: [UInt8]) throws -> (
        pieces: [(data: [UInt8], run: Run)], setAside: [(line: [UInt8], run: Run)], oversize: Int
    ) {
        let (now, pool) = (Instant.now, BufferPool(mostKept: 0))
        var limits = Aggregator.Limits()
        limits.records = 1
        var batcher = try BatcherTests.batcher(shards: 1, now: now)
        var aggregator = Aggregator(.spread, limits, map: batcher.map, pool: pool, seed: 1)
        aggregator.limitLines(to: 1000, longLines)
        let run = Run(source: 3, first: 500, end: 500 + UInt64(record.count) + 2)
        aggregator.take(record: record.span, under: nil, from: run, receipt: now, into: &batcher)
        aggregator.sealAll(into: &batcher)
        let sent = batcher.next(now: now, flush: true)
        let pieces = sent.map { piece in
            (piece.withData { data in unsafe data.withUnsafeBytes { unsafe Array($0) } }, piece.origin.runs[0])
        }
        return (pieces, aggregator.takeSetAside(), aggregator.takeCounts().oversize)
    }

    @Test func `a record above the stream's limit is split, cut off, or set aside, and its stretch is whole`() throws {
        let record = (0..<3456).map { UInt8(97 + $0 % 26) }
        let split = try Self.taking(.split, record)
        #expect(split.pieces.map(\.data.count) == [1000, 1000, 1000, 456] && split.oversize == 1)
        #expect(split.pieces.flatMap(\.data) == record)
        #expect(split.pieces.map(\.run.first) == [500, 1500, 2500, 3500])
        #expect(split.pieces.map(\.run.end) == [1500, 2500, 3500, 3958])
        let cut = try Self.taking(.truncate, record)
        #expect(cut.pieces.map(\.data) == [Array(record[..<1000])] && cut.oversize == 1)
        #expect(cut.pieces.map(\.run) == [Run(source: 3, first: 500, end: 3958)])
        let aside = try Self.taking(.setAside, record)
        #expect(aside.pieces.isEmpty && aside.setAside.map(\.line) == [record] && aside.oversize == 1)
        #expect(aside.setAside.map(\.run) == [Run(source: 3, first: 500, end: 3958)])
        #expect(try Self.taking(.split, Array(record[..<1000])).oversize == 0)
    }

    @Test(arguments: [1, 2, 10], Compression.allCases)
    func `the longest record of a stream fits into it with the longest key, though it cannot be compressed`(
        mebibytes: Int,
        compression: Compression
    ) throws {
        var random = Random()
        let streamBytes = mebibytes * Self.mebibyte
        let (now, pool) = (Instant.now, BufferPool(mostKept: 0))
        var limits = Aggregator.Limits()
        limits.compression = compression
        var batcher = try BatcherTests.batcher(shards: 1, now: now)
        var aggregator = Aggregator(.key, limits, map: batcher.map, pool: pool, seed: 1)
        let longest = Limits.longestRecord(of: streamBytes, isPacked: compression != .none)
        #expect(longest > streamBytes * 99 / 100)
        aggregator.limitLines(to: longest, .setAside)
        let key = RecordKey(partitionKey: [UInt8](repeating: 107, count: 256), MD5())
        let record = random.bytes(longest)
        let run = Run(source: 1, first: 0, end: UInt64(longest))
        aggregator.take(record: record.span, under: key, from: run, receipt: now, into: &batcher)
        aggregator.sealAll(into: &batcher)
        let sent = batcher.next(now: now, flush: true)
        #expect(sent.count == 1 && aggregator.takeSetAside().isEmpty)
        let size = try #require(sent.first).size
        #expect(size <= streamBytes && size >= longest)
    }
}
