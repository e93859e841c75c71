import Bytes
import Kinesis
import Seeded
import Testing

@Suite struct BatcherTests {
    /// A single record of `size` bytes, taken in at `receipt`, with its number as its position.
    static func record(_ number: Int, size: Int = 100, receipt: Instant) -> SealedAggregate {
        var writer = AggregateWriter(maxSize: 50 << 10, pool: BufferPool(mostKept: 0))
        _ = writer.append(
            [UInt8](repeating: 7, count: size).span,
            under: RecordKey(partitionKey: [97], explicit: .lowest),
            from: Run(source: 1, first: UInt64(number), end: UInt64(number) + 1),
            receipt: receipt
        )
        return writer.seal()!
    }

    static func map(_ count: Int) throws -> ShardMap {
        let width = UInt128.max / UInt128(count)
        return try ShardMap(
            (0..<count).map { index in
                Shard(
                    id: ShardID(number: UInt64(index)),
                    range: HashKey(
                        UInt128(index) * width
                    )...(index == count - 1 ? .highest : HashKey(UInt128(index + 1) * width - 1))
                )
            }
        )
    }

    static func batcher(
        shards: Int,
        now: Instant,
        _ change: (inout Batcher.Limits) -> Void = { _ in }
    ) throws -> Batcher {
        var limits = Batcher.Limits()
        limits.shardShare = nil
        change(&limits)
        return Batcher(limits, map: try map(shards), now: now)
    }

    static func refuse(
        _ records: [SealedAggregate],
        by shard: Int,
        chance: Double,
        _ batcher: inout Batcher,
        _ now: Instant
    ) {
        for record in records { batcher.refused(record, by: shard, because: .throttled, chance: chance, now: now) }
        batcher.putBack(records, to: shard)
    }

    static func numbers(_ call: [SealedAggregate]) -> [Int] { call.map { Int($0.origin.runs[0].first) } }

    @Test func `what is to be copied is told once, also when it is queued again by another map`() throws {
        let start = Instant.now
        var limits = Batcher.Limits()
        limits.notesAdded = true
        var batcher = Batcher(limits, map: try Self.map(2), now: start)
        batcher.add(Self.record(1, receipt: start), to: 0)
        #expect(Self.numbers(batcher.takeAdded()) == [1])
        batcher.add(Self.record(2, receipt: start), to: 0)
        for aggregate in batcher.adopt(try Self.map(3), limits, now: start) { batcher.add(aggregate, to: 0) }
        // The first has no copy yet, so it is told again; whoever copies it knows.
        #expect(Self.numbers(batcher.takeAdded()) == [1, 2])
        #expect(batcher.takeAdded().isEmpty)
    }

    @Test func `a call that leaves for its linger takes the open aggregate along, with room and no limit`() throws {
        let start = Instant.now
        let pool = BufferPool(mostKept: 0)
        for (size, throttled, taken) in [(1000, false, 2), (1000, true, 0), (50_000, false, 1)] {
            var batcher = try Self.batcher(shards: 2, now: start) {
                $0.callBytes = 60_000
                $0.shardShare = 1
            }
            var aggregator = Aggregator(.spread, .init(), map: try Self.map(2), pool: pool, seed: 1)
            batcher.add(Self.record(1, size: 20_000, receipt: start), to: 0)
            aggregator.take(
                record: [UInt8](repeating: 7, count: size).span,
                under: nil,
                from: Run(source: 1, first: 2, end: 3),
                receipt: start + .milliseconds(50),
                into: &batcher
            )
            aggregator.sealAlong(into: &batcher, now: start + .milliseconds(99))
            #expect(batcher.count == 1 && !aggregator.isEmpty, "no call leaves yet")
            let now = start + .milliseconds(100)
            if throttled { Self.refuse([Self.record(3, receipt: start)], by: 0, chance: 0.5, &batcher, now) }
            aggregator.sealAlong(into: &batcher, now: now)
            #expect(aggregator.isEmpty == (taken == 2))
            #expect(batcher.next(now: now, flush: false).count == taken)
        }
    }

    @Test func `no call takes the open aggregate along to a shard that has not taken what waits`() throws {
        let start = Instant.now
        for (waiting, taken) in [(20, true), (25, false)] {
            // A shard takes a MiB at once, but for what is spared.
            var batcher = try Self.batcher(shards: 1, now: start) {
                $0.callBytes = 4 << 20
                $0.shardShare = 1
            }
            for number in 0..<waiting { batcher.add(Self.record(number, size: 40_000, receipt: start), to: 0) }
            #expect(batcher.takesAlong(1000, to: 0, now: start + .milliseconds(100)) == taken)
        }
    }

    @Test func `a call leaves when its oldest record has waited for the linger, and no sooner`() throws {
        let start = Instant.now
        var batcher = try Self.batcher(shards: 2, now: start)
        batcher.add(Self.record(1, receipt: start), to: 0)
        batcher.add(Self.record(2, receipt: start + .milliseconds(50)), to: 1)
        #expect(batcher.nextDue(now: start, flush: false) == start + .milliseconds(100))
        #expect(batcher.next(now: start + .milliseconds(99), flush: false).isEmpty)
        #expect(Set(Self.numbers(batcher.next(now: start + .milliseconds(100), flush: false))) == [1, 2])
        #expect(batcher.count == 0 && batcher.bytes == 0)
        #expect(batcher.nextDue(now: start, flush: false) == nil)
    }

    @Test func `a call holds as many records and bytes as it may`() throws {
        let now = Instant.now
        var batcher = try Self.batcher(shards: 3, now: now) { $0.callRecords = 7 }
        for number in 0..<20 { batcher.add(Self.record(number, receipt: now), to: number % 3) }
        #expect(batcher.next(now: now, flush: false).count == 7)
        #expect(batcher.next(now: now, flush: false).count == 7)
        #expect(batcher.next(now: now, flush: false).isEmpty)
        #expect(batcher.next(now: now, flush: true).count == 6)

        batcher = try Self.batcher(shards: 2, now: now) { $0.callBytes = 1000 }
        for number in 0..<10 { batcher.add(Self.record(number, size: 299, receipt: now), to: number % 2) }
        #expect(batcher.next(now: now, flush: true).reduce(0) { $0 + $1.size } == 900)
        // One that is too large for any call has a call of its own.
        batcher = try Self.batcher(shards: 2, now: now) { $0.callBytes = 1000 }
        batcher.add(Self.record(1, size: 5000, receipt: now), to: 0)
        batcher.add(Self.record(2, size: 10, receipt: now), to: 1)
        #expect(Self.numbers(batcher.next(now: now, flush: true)) == [1])
        #expect(Self.numbers(batcher.next(now: now, flush: true)) == [2])
    }

    @Test func `a shard keeps its order, also over what is put back`() throws {
        let now = Instant.now
        var batcher = try Self.batcher(shards: 1, now: now) { $0.callRecords = 100 }
        for number in 0..<300 { batcher.add(Self.record(number, receipt: now), to: 0) }
        let first = batcher.next(now: now, flush: true)
        #expect(Self.numbers(first) == Array(0..<100))
        batcher.putBack(Array(first[40...]), to: 0)
        #expect(batcher.count == 260)
        var all = Self.numbers(Array(first[..<40]))
        while batcher.count > 0 { all += Self.numbers(batcher.next(now: now, flush: true)) }
        #expect(all == Array(0..<300))
    }

    @Test func `a held shard holds back only itself`() throws {
        let now = Instant.now
        var batcher = try Self.batcher(shards: 2, now: now)
        batcher.add(Self.record(1, receipt: now), to: 0)
        Self.refuse([Self.record(0, receipt: now)], by: 0, chance: 0.5, &batcher, now)
        batcher.add(Self.record(2, receipt: now), to: 1)
        #expect(Self.numbers(batcher.next(now: now, flush: true)) == [2])
        let when = batcher.nextDue(now: now, flush: true)
        let due = try #require(when)
        #expect(due == now + .milliseconds(100))
        #expect(Self.numbers(batcher.next(now: due, flush: true)) == [0, 1])
    }

    @Test func `a shard's own limits are kept over any second`() throws {
        let start = Instant.now
        var batcher = try Self.batcher(shards: 1, now: start) { $0.shardShare = 1 }
        for number in 0..<3500 { batcher.add(Self.record(number, size: 10, receipt: start), to: 0) }
        var sent: [(Instant, Int)] = []
        var now = start
        while batcher.count > 0, now < start + .seconds(10) {
            let call = batcher.next(now: now, flush: true)
            if !call.isEmpty { sent.append((now, call.count)) }
            now += .milliseconds(10)
        }
        #expect(batcher.count == 0)
        // The burst of one second, then a thousand a second.
        #expect(sent.filter { $0.0 < start + .milliseconds(100) }.reduce(0) { $0 + $1.1 } <= 1100)
        let last = try #require(sent.last).0 - start
        #expect(last >= .milliseconds(2400) && last <= .milliseconds(2700), "\(last)")
    }

    @Test func `another map gives no shard its burst again, and new shards none`() throws {
        let now = Instant.now
        var batcher = try Self.batcher(shards: 2, now: now) { $0.shardShare = 1 }
        func burst(_ shard: Int, _ batcher: inout Batcher) -> Int {
            for number in 0..<40 { batcher.add(Self.record(number, size: 51_200, receipt: now), to: shard) }
            var sent = 0
            // The pacer's own second.
            while case let call = batcher.next(now: now, flush: true), !call.isEmpty { sent += call.count }
            return sent
        }
        var limits = Batcher.Limits()
        limits.shardShare = 1
        // The first shard stays, the second is split.
        let first = batcher.map.shards[0]
        let second = batcher.map.shards[1].range
        let middle = HashKey(second.lowerBound.value + (second.upperBound.value - second.lowerBound.value) / 2)
        let map = try ShardMap([
            first, Shard(id: ShardID(number: 7), range: second.lowerBound...middle),
            Shard(id: ShardID(number: 8), range: HashKey(middle.value + 1)...second.upperBound),
        ])
        let sent = burst(0, &batcher)
        #expect(sent > 0)
        let waiting = batcher.adopt(map, limits, now: now)
        #expect(waiting.count == 40 - sent && batcher.count == 0)
        #expect(burst(1, &batcher) == 0 && burst(2, &batcher) == 0)
    }

    @Test func `a shard that cools down does not keep records from the others, nor their memory`() throws {
        let now = Instant.now
        var batcher = try Self.batcher(shards: 8, now: now) { $0.shardShare = 1 }
        #expect(!batcher.isSupplied(now: now))
        let records = (0..<200).map { Self.record($0, size: 50_000, receipt: now + .milliseconds($0)) }
        Self.refuse(records, by: 2, chance: 0.5, &batcher, now)
        #expect(!batcher.isSupplied(now: now))
        let later = now + .seconds(1)
        for number in 200..<232 { batcher.add(Self.record(number, size: 50_000, receipt: later), to: number % 8) }
        #expect(batcher.isSupplied(now: now))
        // Its oldest go; of the others' lines nothing that goes out soon.
        let bytes = batcher.bytes
        let taken = batcher.takeExcess(above: bytes - 3_000_000, now: now) { $0.origin.runs[0].first != 5 }
        #expect(Self.numbers(taken) == Array(0..<61).filter { $0 != 5 })
        #expect(batcher.bytes == bytes - taken.reduce(0) { $0 + $1.size })
        let rest = batcher.takeExcess(above: 0, now: now) { _ in true }
        #expect(rest.count == 144)
        #expect(rest.allSatisfy { $0.origin.runs[0].first < 200 || $0.origin.runs[0].first % 8 == 2 })
    }

    @Test func `a full call that a shard held back is due when the shard is free, not at its linger`() throws {
        let now = Instant.now
        var batcher = try Self.batcher(shards: 1, now: now) {
            $0.linger = .seconds(60)
            $0.callRecords = 10
        }
        let records = (0..<20).map { Self.record($0, receipt: now) }
        Self.refuse(records, by: 0, chance: 0, &batcher, now)
        let when = batcher.nextDue(now: now, flush: false)
        let due = try #require(when)
        #expect(due == now + .milliseconds(50))
        #expect(batcher.next(now: due, flush: false).count == 10)
    }

    /// The promise a sleeping lane stands on: before `nextDue` there is nothing, and then there is something.
    @Test func `there is nothing before the time that is due, and something then`() throws {
        var random = Random()
        for _ in 0..<200 {
            var now = Instant.now
            let shards = 1 + random.below(5)
            var batcher = try Self.batcher(shards: shards, now: now) {
                $0.linger = .milliseconds(random.below(3) * 400)
                $0.callBytes = 1000 + random.below(50_000)
                $0.callRecords = 1 + random.below(20)
                $0.shardShare = random.oneIn(3) ? nil : Double(1 + random.below(10)) / 1000
            }
            for _ in 0..<60 {
                switch random.below(6) {
                case 0...2:
                    let receipt = now - .milliseconds(random.below(300))
                    batcher.add(
                        Self.record(0, size: 1 + random.below(4000), receipt: receipt),
                        to: random.below(shards)
                    )
                case 3:
                    let record = Self.record(0, size: 1 + random.below(4000), receipt: now)
                    let shard = random.below(shards)
                    if random.oneIn(2) {
                        batcher.putBack([record], to: shard)
                    } else {
                        Self.refuse([record], by: shard, chance: Double(random.below(100)) / 100, &batcher, now)
                    }
                case 4: now += .milliseconds(random.below(500))
                default: _ = batcher.next(now: now, flush: false)
                }
                let flush = random.oneIn(4)
                while !batcher.next(now: now, flush: flush).isEmpty {}
                guard let due = batcher.nextDue(now: now, flush: flush) else {
                    #expect(batcher.count == 0, random.note)
                    continue
                }
                #expect(due > now, random.note)
                var (before, then) = (batcher, batcher)
                let moment = due - .nanoseconds(2)
                if moment > now { #expect(before.next(now: moment, flush: flush).isEmpty, random.note) }
                // A shard's hold may end while its limits still bind: then the next time is further on, and there it is.
                var (at, hops) = (due, 0)
                while then.next(now: at, flush: flush).isEmpty, hops < 20 {
                    let next = then.nextDue(now: at, flush: flush)
                    check(next.map { $0 > at } ?? false, random.note)
                    at = next ?? at
                    hops += 1
                }
                #expect(hops <= 2 * shards, random.note)
            }
        }
    }
}

@Suite struct BackoffTests {
    @Test func `each wait lies between the first and three times the one before`() {
        var random = Random()
        var backoff = Backoff(first: .milliseconds(100), longest: .seconds(10))
        var last = Duration.milliseconds(100)
        for _ in 0..<1000 {
            let wait = backoff.next(chance: Double(random.below(1001)) / 1000)
            #expect(wait >= .milliseconds(100) && wait <= min(.seconds(10), last * 3 + .microseconds(1)), random.note)
            last = wait
        }
        for _ in 0..<20 { last = backoff.next(chance: 1) }
        #expect(last == .seconds(10))
        backoff.reset()
        #expect(backoff.next(chance: 1) == .milliseconds(300))
    }
}

@Suite struct WireChoiceTests {
    let now = Instant.now

    @Test func `speaks CBOR for good once a call was understood`() {
        var wire = WireChoice()
        #expect(wire.format(now: now) == .cbor)
        check(!wire.understood(.cbor, now: now))
        check(!wire.notUnderstood(.cbor))
        #expect(wire.format(now: now) == .cbor)
    }

    @Test func `settles on JSON when the same call succeeds as JSON, and tries CBOR again after an hour`() {
        var wire = WireChoice()
        check(wire.notUnderstood(.cbor))
        #expect(wire.format(now: now) == .json)
        check(wire.understood(.json, now: now))
        check(!wire.understood(.json, now: now))
        #expect(wire.format(now: now + .seconds(3599)) == .json)
        #expect(wire.format(now: now + .seconds(3600)) == .cbor)
        // A JSON call that was still under way settles on JSON again; the refused CBOR call is made again at once.
        check(wire.understood(.json, now: now + .seconds(3600)))
        check(wire.notUnderstood(.cbor))
        #expect(wire.format(now: now + .seconds(3601)) == .json)
    }

    @Test func `an outage is no refusal of CBOR`() {
        var wire = WireChoice()
        check(wire.notUnderstood(.cbor))
        check(wire.notUnderstood(.cbor))
        check(!wire.notUnderstood(.json))
        #expect(wire.format(now: now) == .cbor)
    }

    @Test(arguments: WireFormat.allCases)
    func `what the operator says holds`(format: WireFormat) {
        var wire = WireChoice(forced: format)
        check(!wire.notUnderstood(format))
        check(!wire.understood(.json, now: now))
        #expect(wire.format(now: now) == format)
    }
}
