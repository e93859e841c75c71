import Bytes
import Kinesis
import Seeded
import Testing

/// Ordered delivery against a stream that refuses, splits and loses answers, and beside a spool, by a model: what arrives
/// first of each key arrives in order.
@Suite struct OrderTests {
    @Test func `records of a key arrive in order, whatever is refused, resharded, and spooled`() throws {
        var random = Random()
        for _ in 0..<60 { try history(&random) }
    }

    @Test func `what was sent in order holds up its shard until its answer, also where order is given up`() throws {
        let now = Instant.now
        var limits = Batcher.Limits()
        (limits.isOrdered, limits.shardShare, limits.linger) = (true, nil, .zero)
        let map = try BatcherTests.map(2)
        var batcher = Batcher(limits, map: map, now: now)
        for number in 0..<3 {
            let aggregate = record(number, key: 0, now)
            batcher.add(aggregate, to: map.index(of: aggregate.hashes.lowerBound))
        }
        let first = batcher.next(now: now, flush: true)
        #expect(first.count == 1 && batcher.next(now: now, flush: true).isEmpty)
        limits.isOrdered = false
        for aggregate in batcher.adopt(map, limits, now: now) {
            batcher.add(aggregate, to: map.index(of: aggregate.hashes.lowerBound))
        }
        batcher.decided(first[0])
        #expect(batcher.next(now: now, flush: true).count == 2)
    }

    /// A record of `key`, its number as its content and position.
    private func record(_ number: Int, key: Int, _ now: Instant) -> SealedAggregate {
        var writer = AggregateWriter(maxSize: 50 << 10, pool: BufferPool(mostKept: 0))
        _ = writer.append(
            Array("\(key) \(number)".utf8).span,
            under: RecordKey(partitionKey: Array("key-\(key)".utf8), MD5()),
            from: Run(source: UInt32(key), first: UInt64(number), end: UInt64(number) + 1),
            receipt: now
        )
        return writer.seal()!
    }

    /// The key and number of a record.
    private func content(of aggregate: SealedAggregate) -> (key: Int, number: Int) {
        let text = aggregate.withData { data in
            unsafe data.withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
        }
        let words = text.split(separator: " ").compactMap { Int($0) }
        return (words[0], words[1])
    }

    /// What comes back when a record has been in the spool.
    private func restored(_ aggregate: SealedAggregate, _ now: Instant) -> SealedAggregate {
        aggregate.withData { data in
            SealedAggregate(
                restored: data,
                recordCount: 1,
                userBytes: data.count,
                key: aggregate.key,
                hashes: aggregate.hashes,
                copy: SpoolLocation(segment: 1, offset: 0),
                receipt: now,
                pool: BufferPool(mostKept: 0)
            )
        }
    }

    private func history(_ random: inout Random) throws {
        var now = Instant.now
        var limits = Batcher.Limits()
        (limits.isOrdered, limits.shardShare, limits.linger) = (true, nil, .zero)
        limits.callRecords = 1 + random.below(6)
        var counts = [1 + random.below(6)]
        var batcher = Batcher(limits, map: try BatcherTests.map(counts[0]), now: now)
        let keys = 12
        var (made, arrived) = ([Int](repeating: 0, count: keys), [[Int]](repeating: [], count: keys))
        var inFlight: [[SealedAggregate]] = []
        let total = 300
        var steps = 0
        var spooled: [SealedAggregate] = []
        // Came back, and not settled.
        var backlog = 0
        while made.reduce(0, +) < total || batcher.count > 0 || !inFlight.isEmpty || !spooled.isEmpty || backlog > 0 {
            steps += 1
            try #require(steps < 100_000, random.note)
            now += .milliseconds(random.below(300))
            batcher.holdsLive = !spooled.isEmpty || backlog > 0
            switch random.below(13) {
            case 0...3 where made.reduce(0, +) < total:
                let key = random.below(keys)
                let aggregate = record(made[key], key: key, now)
                made[key] += 1
                batcher.add(aggregate, to: batcher.map.index(of: aggregate.hashes.lowerBound))
            case 4...6:
                let call = batcher.next(now: now, flush: true)
                let shards = call.map { batcher.map.index(of: $0.hashes.lowerBound) }
                #expect(Set(shards).count == shards.count, random.note)
                if !call.isEmpty { inFlight.append(call) }
            case 7 where random.oneIn(10) && counts.count < 6:
                // Another map while calls are under way.
                counts.append(1 + random.below(6))
                for aggregate in batcher.adopt(try BatcherTests.map(counts.last!), limits, now: now) {
                    batcher.add(aggregate, to: batcher.map.index(of: aggregate.hashes.lowerBound))
                }
            case 8 where random.oneIn(4):
                // Some copies are being written, and have to stay until they are.
                let stays = 1 + random.below(8)
                spooled += batcher.takeOldest(above: 0) { _ in !random.oneIn(stays) }
            case 9, 10:
                guard !spooled.isEmpty else { continue }
                let aggregate = restored(spooled.removeFirst(), now)
                backlog += 1
                batcher.add(aggregate, to: batcher.map.index(of: aggregate.hashes.lowerBound))
            default:
                guard !inFlight.isEmpty else { continue }
                let call = inFlight.remove(at: random.below(inFlight.count))
                let isAnswered = !random.oneIn(5)
                for aggregate in call {
                    let (key, number) = content(of: aggregate)
                    let isStored = random.oneIn(2)
                    if isStored { arrived[key].append(number) }
                    if isStored, isAnswered, aggregate.isBacklog { backlog -= 1 }
                    batcher.decided(aggregate)
                    if !isStored || !isAnswered {
                        let shard = batcher.map.index(of: aggregate.hashes.lowerBound)
                        if isAnswered {
                            batcher.refused(aggregate, by: shard, because: .throttled, chance: 0.5, now: now)
                        }
                        batcher.putBack([aggregate], to: shard)
                    }
                }
            }
        }
        for key in 0..<keys {
            // What came twice came right behind itself.
            var latest = -1
            for number in arrived[key] {
                #expect(number == latest || number == latest + 1, random.note)
                latest = number
            }
            #expect(latest == made[key] - 1, random.note)
        }
    }
}
