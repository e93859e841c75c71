import Bytes
import COpenSSL
import Kinesis
import Seeded
import Testing

/// Records that bring their partition keys, many at a time.
@Suite struct KeyedBlockTests {
    private struct Input: Equatable {
        var key: [UInt8]
        var data: [UInt8]

        var isPlaced: Bool { !key.isEmpty && String(validating: key, as: UTF8.self) != nil }

        /// Where OpenSSL's MD5 puts it.
        var hash: HashKey {
            HashKey(MD5Tests.reference(key).reduce(UInt128(0)) { $0 << 8 | UInt128($1) })
        }
    }

    private static func shards(_ random: inout Random) throws -> ShardMap {
        let ends = Set((0..<random.below(150)).map { _ in UInt128.random(in: 1..<UInt128.max, using: &random) })
            .sorted()
        let starts = [0] + ends.map { $0 + 1 }
        return try ShardMap(
            zip(starts, ends + [.max]).enumerated().map { number, range in
                Shard(id: ShardID(number: UInt64(number)), range: HashKey(range.0)...HashKey(range.1))
            }
        )
    }

    private static func key(_ random: inout Random) -> [UInt8] {
        switch random.below(20) {
        case 0: []
        // Also the key that shards give where records have none.
        case 1: random.oneIn(2) ? Aggregator.anyPartitionKey : random.bytes(2 + random.below(40))
        case 2: Array("Gerät-\(random.below(50))-😀".utf8)
        case 3: [UInt8](repeating: 97, count: 2 + random.below(255))
        case 4..<10: Array("\(random.below(40))".utf8)
        // Those that differ by their length alone, and those around the longest that is remembered.
        case 10: [98] + [UInt8](repeating: 0, count: random.below(3))
        case 11: [UInt8](repeating: 99, count: 36 + random.below(6))
        // More than are remembered, again and again.
        case 12..<16: Array("sensor-\(random.below(6_000))".utf8)
        default: Array("device-\(random.below(100_000))".utf8)
        }
    }

    private static func block(of inputs: [Input]) -> [UInt8] {
        inputs.flatMap { input in
            [input.data.count, input.key.count].flatMap { length in
                (0..<4).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) }
            } + input.key + input.data
        }
    }

    /// The records of an aggregate, each with its partition key; how many of them have an explicit hash key, too; and the hash
    /// key that Kinesis places the whole by.
    private static func records(
        of aggregate: SealedAggregate
    ) -> (place: HashKey, records: [Input], explicit: Int) {
        let key = aggregate.key
        let place = key.explicitHashKey ?? Input(key: key.partitionKey, data: []).hash
        guard aggregate.recordCount > 1 else {
            let record = Input(key: key.partitionKey, data: aggregate.withData { Array($0) })
            return (place, [record], key.explicitHashKey == nil ? 0 : 1)
        }
        let users = aggregate.withData { Deaggregator().userRecords(of: $0) } ?? []
        return (
            place, users.map { Input(key: $0.partitionKey, data: $0.data) },
            users.count { $0.explicitHashKey != nil }
        )
    }

    @Test func `each record comes to the shard of its key, whole, and behind those that were before it`() throws {
        var random = Random()
        for round in 0..<40 {
            let map = try Self.shards(&random)
            var limits = Aggregator.Limits()
            limits.size = [700, 5_000, 51_200].randomElement(using: &random)!
            limits.records = random.oneIn(3) ? 1 + random.below(20) : 0
            let cutsLong = random.oneIn(3)
            if cutsLong { (limits.record, limits.longLines) = (200, .truncate) }
            var batching = Batcher.Limits()
            batching.shardShare = nil
            let now = Instant.now
            var batcher = Batcher(batching, map: map, now: now)
            let pool = BufferPool(mostKept: 0)
            var aggregator = Aggregator(.key, limits, map: map, pool: pool, seed: random.next())
            var (inputs, position): ([Input], UInt64) = ([], 0)
            // Now and then so many that what is remembered is driven out; or first those that are seen once, until none is
            // looked up any more.
            let (blocks, onlyOnce) = round % 13 == 0 ? (400, random.below(150)) : (30, 0)
            for number in 0..<blocks {
                let block = (0..<random.below(150)).map { _ in
                    let key = number < onlyOnce ? Array("once-\(random.next())".utf8) : Self.key(&random)
                    // Around where a length takes two bytes, and three.
                    let size = random.oneIn(300) ? 16_360 + random.below(40) : random.below(300)
                    // A cut looks for UTF-8.
                    return Input(key: key, data: random.bytes(size).map { $0 & 0x7f })
                }
                let bytes = Self.block(of: block)
                aggregator.take(
                    keyed: bytes.span,
                    source: 1,
                    position: position,
                    receipt: now,
                    into: &batcher
                )
                position += UInt64(block.reduce(0) { $0 + $1.data.count })
                inputs += cutsLong ? block.map { Input(key: $0.key, data: Array($0.data.prefix(200))) } : block
            }
            aggregator.sealAll(into: &batcher)
            let counts = aggregator.takeCounts()
            #expect(counts.records == inputs.count, random.note)
            #expect(counts.keyless == inputs.count { !$0.isPlaced }, random.note)

            var sent: [[UInt8]: [[UInt8]]] = [:]
            for input in inputs where input.isPlaced { sent[input.key, default: []].append(input.data) }
            var came: [[UInt8]: [[UInt8]]] = [:]
            var keyless: [[UInt8]] = []
            // Every byte is in one run, and once.
            var spans = Spans(from: 0)
            for aggregate in batcher.takeAll() {
                let (place, records, explicit) = Self.records(of: aggregate)
                // aws_kinesis_agg misreads a mixture.
                #expect(explicit == 0, random.note)
                #expect(records.count == aggregate.recordCount, random.note)
                #expect(aggregate.dataCount <= limits.size || aggregate.recordCount == 1, random.note)
                #expect(limits.records == 0 || aggregate.recordCount <= limits.records, random.note)
                let runs = aggregate.origin.runs
                #expect(runs.reduce(0) { $0 + Int($1.records) } == aggregate.recordCount, random.note)
                #expect(runs.allSatisfy { $0.source == 1 }, random.note)
                for run in runs { spans.settle(run.first..<run.end) }
                let shard = map[place]
                #expect(shard.range.contains(aggregate.hashes.lowerBound), random.note)
                #expect(shard.range.contains(aggregate.hashes.upperBound), random.note)
                for record in records {
                    #expect(aggregate.hashes.contains(record.hash), random.note)
                    #expect(shard.range.contains(record.hash), random.note)
                    // A drawn one is not among those that were sent.
                    if sent[record.key] == nil {
                        keyless.append(record.data)
                    } else {
                        came[record.key, default: []].append(record.data)
                    }
                }
            }
            #expect(spans.settled == position && !spans.hasGap, random.note)
            #expect(came == sent, random.note)
            let rest = inputs.filter { !$0.isPlaced }.map(\.data)
            #expect(keyless.map { "\($0)" }.sorted() == rest.map { "\($0)" }.sorted(), random.note)
        }
    }
}
