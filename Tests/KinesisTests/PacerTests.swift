import Bytes
import Kinesis
import Seeded
import Testing

@Suite struct PacerTests {
    let start = Instant.now

    /// Sends records of `size` as fast as the pacer allows, from `now` for `seconds`; each is answered at once.
    @discardableResult
    static func send(
        _ pacer: inout Pacer,
        _ now: inout Instant,
        seconds: Double,
        size: Int = 50_000,
        shards: Int = 4,
        isRefused: (Int) -> Bool = { _ in false }
    ) -> Int {
        let end = now + .seconds(seconds)
        var (bytes, records) = (0, 0)
        while now < end {
            if let wait = pacer.wait(now: now) {
                pacer.ranOut(now: now)
                now += wait
                continue
            }
            pacer.sent(size, to: records % shards, now: now)
            bytes += size
            if isRefused(records) {
                pacer.throttled(records % shards, bytes: size, chance: 0.5, now: now)
            } else {
                pacer.succeeded(records % shards, now: now)
            }
            records += 1
        }
        return bytes
    }

    @Test func `an agent that nobody refuses has what it asks for within two seconds`() {
        var pacer = Pacer(shards: 64, now: start)
        var now = start
        Self.send(&pacer, &now, seconds: 2)
        let bytes = Self.send(&pacer, &now, seconds: 1)
        #expect(bytes > 64 << 20, "\(bytes) of what 64 shards take")
    }

    @Test func `what is sent keeps to the rate over any time`() {
        var random = Random()
        for _ in 0..<50 {
            let shards = 4 + random.below(50)
            var pacer = Pacer(shards: shards, now: start)
            var now = start
            // Into its course: after two refusals the rate is what decides.
            Self.send(&pacer, &now, seconds: 6) { $0 % 50 == 49 }
            let before = pacer.rate
            let size = 1 + random.below(100_000)
            let sent = Self.send(&pacer, &now, seconds: 2, size: size) { _ in random.oneIn(100) }
            let most = max(before, pacer.rate) * 2.2 + Double(max(size, 1049))
            #expect(Double(sent / size * max(size, 1049)) <= most, random.note)
        }
    }

    @Test func `small records are paid for as a shard counts them`() {
        var pacer = Pacer(shards: 1, .init(shardShare: 0.25), now: start)
        var now = start
        Self.send(&pacer, &now, seconds: 3, size: 10, shards: 1)
        let bytes = Self.send(&pacer, &now, seconds: 1, size: 10, shards: 1)
        // Half of what a shard takes: twice its share, which the shard's own bucket keeps.
        #expect(bytes <= 10 * 560, "\(bytes / 10) records a second")
    }

    @Test func `refusals beyond the share aimed for lower the rate, fewer raise it`() {
        var pacer = Pacer(shards: 4, now: start)
        var now = start
        var number = 0
        func refuse(every count: Int) -> (Int) -> Bool {
            { _ in
                number += 1; return number % count == 0
            }
        }
        Self.send(&pacer, &now, seconds: 8, size: 10_000, isRefused: refuse(every: 30))
        let low = pacer.rate
        Self.send(&pacer, &now, seconds: 30, size: 10_000)
        #expect(pacer.rate > 2 * low)
    }

    @Test func `a shard that refuses is left alone for longer each time, and forgiven`() throws {
        var pacer = Pacer(shards: 2, now: start)
        var now = start
        var last = Duration.zero
        for expected in [0.5, 1, 2, 4, 8, 8] {
            pacer.throttled(1, bytes: 50_000, chance: 0.5, now: now)
            let held = pacer.heldUntil(1, now: now)
            let until = try #require(held)
            #expect(until - now == .seconds(expected))
            #expect(pacer.heldUntil(0, now: now) == nil)
            // What was under way meanwhile is no news.
            pacer.throttled(1, bytes: 50_000, chance: 1, now: now)
            #expect(pacer.heldUntil(1, now: now) == until)
            (last, now) = (until - now, until)
        }
        #expect(last == .seconds(8))
        #expect(pacer.refusals(of: 1, now: now) == 6)
        pacer.succeeded(1, now: now)
        #expect(pacer.refusals(of: 1, now: now) == 5)
        #expect(pacer.refusals(of: 1, now: now + .seconds(3)) == 2)
        #expect(pacer.refusals(of: 1, now: now + .seconds(60)) == 0)
    }

    @Test func `a refusal after hours of silence does not stop an agent that had sent a lot before`() {
        var pacer = Pacer(shards: 8, now: start)
        var now = start
        Self.send(&pacer, &now, seconds: 5)
        now += .seconds(7200)
        pacer.sent(50_000, to: 0, now: now)
        pacer.throttled(0, bytes: 50_000, chance: 0.5, now: now + .milliseconds(40))
        #expect(pacer.rate > 2e6, "\(pacer.rate)")
    }

    @Test
    func `a shard that has refused more than once is tried with one record, and the rest follow when it takes that`() {
        var pacer = Pacer(shards: 1, now: start)
        var now = start
        for _ in 0..<3 {
            pacer.throttled(0, bytes: 50_000, chance: 0.5, now: now)
            now = pacer.heldUntil(0, now: now)!
        }
        pacer.sent(50_000, to: 0, now: now)
        #expect(pacer.heldUntil(0, now: now) != nil)
        pacer.succeeded(0, now: now + .milliseconds(40))
        #expect(pacer.heldUntil(0, now: now + .milliseconds(40)) == nil)
        pacer.sent(50_000, to: 0, now: now + .milliseconds(40))
        now += .milliseconds(80)
        pacer.throttled(0, bytes: 50_000, chance: 0.5, now: now)
        #expect(pacer.heldUntil(0, now: now) == now + .seconds(2))
    }

    @Test func `a dead shard costs the stream's rate two cuts, not one for each record`() {
        var pacer = Pacer(shards: 8, now: start)
        var now = start
        Self.send(&pacer, &now, seconds: 3)
        for _ in 0..<4 {
            pacer.throttled(5, bytes: 50_000, chance: 0, now: now)
            now = pacer.heldUntil(5, now: now)!
        }
        let rate = pacer.rate
        for _ in 0..<100 {
            pacer.throttled(5, bytes: 50_000, chance: 0, now: now)
            now += .milliseconds(250)
        }
        #expect(pacer.rate == rate)
    }

    @Test func `the linger grows while records are small and refused, up to two seconds, and goes back`() {
        var pacer = Pacer(shards: 1, now: start)
        pacer.throttled(0, bytes: 4096, chance: 0, now: start)
        #expect(pacer.linger == .milliseconds(100))
        for _ in 0..<40 { pacer.throttled(0, bytes: 1000, chance: 0, now: start) }
        #expect(pacer.linger == .seconds(2))
        for _ in 0..<20_000 { pacer.succeeded(0, now: start) }
        #expect(pacer.linger == .milliseconds(100))
        // What is longer by wish stays as it is.
        pacer = Pacer(shards: 1, .init(linger: .seconds(5)), now: start)
        pacer.throttled(0, bytes: 1000, chance: 0, now: start)
        #expect(pacer.linger == .seconds(5))
    }

    @Test func `without pacing nothing waits but for a shard that refuses`() {
        var pacer = Pacer(shards: 1, .init(shardShare: nil), now: start)
        for _ in 0..<100_000 { pacer.sent(1 << 20, to: 0, now: start) }
        #expect(pacer.wait(now: start) == nil && pacer.mayGo)
        pacer.throttled(0, bytes: 1 << 20, chance: 0.5, now: start)
        #expect(pacer.wait(now: start) == nil)
        #expect(pacer.heldUntil(0, now: start) != nil)
        #expect(pacer.aggregateSize(most: 51_200, now: start) == 51_200)
    }

    @Test func `the rate follows the number of shards, and shards keep what is known of them`() {
        var pacer = Pacer(shards: 2, now: start)
        var now = start
        Self.send(&pacer, &now, seconds: 4, size: 10_000, shards: 2) { $0 % 40 == 39 }
        pacer.throttled(1, bytes: 10_000, chance: 0.5, now: now)
        let rate = pacer.rate
        let held = pacer.heldUntil(1, now: now)
        pacer.adopt([1, nil, nil], Pacer.Limits())
        #expect(abs(pacer.rate - rate * 1.5) < 1)
        #expect(held != nil && pacer.heldUntil(0, now: now) == held)
        #expect(pacer.heldUntil(1, now: now) == nil && pacer.heldUntil(2, now: now) == nil)
    }
}

@Suite struct SpreadTests {
    private static func fill(
        _ aggregator: inout Aggregator,
        _ batcher: inout Batcher,
        aggregates: Int,
        _ now: Instant
    ) {
        let line = [UInt8](repeating: 120, count: 999) + [10]
        var position: UInt64 = 0
        let before = batcher.count
        while batcher.count < before + aggregates {
            aggregator.take(
                lines: line.span,
                under: nil,
                source: 1,
                position: position,
                receipt: now,
                into: &batcher
            )
            position += 1000
        }
    }

    private static func shards(_ aggregates: [SealedAggregate], _ map: ShardMap) -> [Int: Int] {
        aggregates.reduce(into: [:]) { $0[map.index(ofAll: $1.hashes)!, default: 0] += 1 }
    }

    @Test(arguments: [1, 2, 7, 100])
    func `every shard gets its part, and one shard's aggregate is filled at a time`(count: Int) throws {
        let now = Instant.now
        let pool = BufferPool(mostKept: 0)
        var batcher = try BatcherTests.batcher(shards: count, now: now)
        var aggregator = Aggregator(.spread, .init(), map: batcher.map, pool: pool, seed: 3)
        Self.fill(&aggregator, &batcher, aggregates: 10 * count, now)
        let all = batcher.takeAll()
        let byShard = Self.shards(all, batcher.map)
        #expect(byShard.count == count)
        #expect(byShard.values.max()! <= 14, "\(byShard)")
        #expect(all.allSatisfy { $0.size > 49_000 })
    }

    @Test func `a shard that refuses gets nothing while it cools down, and what it refused goes elsewhere at once`()
        throws
    {
        var now = Instant.now
        let pool = BufferPool(mostKept: 0)
        var random = SplitMix64(seed: 5)
        var batcher = try BatcherTests.batcher(shards: 8, now: now)
        var aggregator = Aggregator(.spread, .init(), map: batcher.map, pool: pool, seed: 3)
        Self.fill(&aggregator, &batcher, aggregates: 80, now)
        let mine = batcher.takeAll().filter { batcher.map.index(ofAll: $0.hashes) == 3 }
        #expect(!mine.isEmpty)
        for _ in 0..<5 {
            let (moved, homeless) = aggregator.putBack(
                mine,
                because: .throttled,
                into: &batcher,
                pool: pool,
                random: &random,
                now: now
            )
            #expect(homeless.isEmpty && moved.count == mine.count)
            for (before, after) in moved {
                #expect(before.origin === after.origin && after.origin.unsettled == 1)
                #expect(batcher.map.index(ofAll: after.hashes) != 3)
                let was = before.withData { Deaggregator().userRecords(of: $0) }
                let isNow = after.withData { Deaggregator().userRecords(of: $0) }
                let (old, new) = (try #require(was), try #require(isNow))
                #expect(old.map(\.data) == new.map(\.data))
                #expect(old.map(\.partitionKey) == new.map(\.partitionKey))
                let place = after.hashes.lowerBound
                #expect(after.key.explicitHashKey == place)
                #expect(new.allSatisfy { $0.hashKey(MD5()) == place })
            }
            _ = batcher.takeAll()
            now = batcher.pacer.heldUntil(3, now: now)! - .milliseconds(1)
            Self.fill(&aggregator, &batcher, aggregates: 80, now)
            #expect(Self.shards(batcher.takeAll(), batcher.map)[3] ?? 0 <= 1)
            now += .milliseconds(2)
        }
    }

    @Test func `what has its place for a reason keeps it`() throws {
        let now = Instant.now
        let pool = BufferPool(mostKept: 0)
        var random = SplitMix64(seed: 5)
        var batcher = try BatcherTests.batcher(shards: 8, now: now)
        var aggregator = Aggregator(.spread, .init(), map: batcher.map, pool: pool, seed: 3)
        // By its partition key, alone and with others; by another key that looks like the agent's own.
        var placed: [SealedAggregate] = []
        for (text, count) in [("a", 1), ("a", 2), ("bc", 1), ("bc", 3)] {
            var writer = AggregateWriter(maxSize: 1000, pool: pool)
            for _ in 0..<count {
                let key = RecordKey(partitionKey: Array(text.utf8), MD5())
                let run = Run(source: 1, first: 0, end: 1)
                _ = writer.append([1, 2, 3].span, under: key, from: run, receipt: now)
            }
            placed.append(writer.seal()!)
        }
        var writer = AggregateWriter(maxSize: 1000, pool: pool)
        for hash in [HashKey.lowest, HashKey(1)] {
            let key = RecordKey(partitionKey: [97], explicit: hash)
            _ = writer.append([1].span, under: key, from: Run(source: 1, first: 0, end: 1), receipt: now)
        }
        placed.append(writer.seal()!)
        let (moved, homeless) = aggregator.putBack(
            placed,
            because: .throttled,
            into: &batcher,
            pool: pool,
            random: &random,
            now: now
        )
        #expect(moved.isEmpty && homeless.isEmpty)
        #expect(Set(batcher.takeAll().map { ObjectIdentifier($0) }) == Set(placed.map { ObjectIdentifier($0) }))
    }
}
