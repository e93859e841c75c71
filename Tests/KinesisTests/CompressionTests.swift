import Bytes
import Kinesis
import Seeded
import Testing

@Suite struct CompressionTests {
    /// Everything that became of a text, by aggregator and batcher alone.
    static func sealed(
        _ placement: Aggregator.Placement,
        _ text: [UInt8],
        _ random: inout Random,
        _ change: (inout Aggregator.Limits) -> Void
    ) throws -> (all: [SealedAggregate], records: Int, bytes: Int) {
        let now = Instant.now
        let map = try BatcherTests.map(3)
        var limits = Aggregator.Limits()
        change(&limits)
        var aggregator = Aggregator(
            placement,
            limits,
            map: map,
            pool: BufferPool(mostKept: 0),
            seed: UInt64(random.below(1 << 30))
        )
        var batcher = Batcher(.init(), map: map, now: now)
        let key = placement == .key ? RecordKey(partitionKey: [1, 2], MD5()) : nil
        // In blocks as a collector cuts them.
        var at = 0
        while at < text.count {
            let reach = min(text.count, at + 1 + random.below(200_000))
            let end = text[reach - 1..<text.count].firstIndex(of: 10).map { $0 + 1 } ?? text.count
            aggregator.take(
                lines: text.span.extracting(at..<end),
                under: key,
                source: 1,
                position: UInt64(at),
                receipt: now,
                into: &batcher
            )
            if random.below(10) == 0 { aggregator.sealAll(into: &batcher) }
            at = end
        }
        aggregator.sealAll(into: &batcher)
        let counts = aggregator.takeCounts()
        return (batcher.takeAll(), counts.records, counts.bytes)
    }

    @Test(arguments: [Compression.gzip, .gzipRecord])
    func `what is compressed is accounted for to the byte`(compression: Compression) throws {
        var random = Random()
        for placement in [Aggregator.Placement.spread, .random, .key, .field(JSONPointer("/a")!)] {
            var (text, count, bytes): ([UInt8], Int, Int) = ([], 0, 0)
            for _ in 0..<20_000 {
                let letters = random.below(4) == 0 ? 26 : 2
                let line = (0..<random.below(120)).map { _ in UInt8(97 + random.below(letters)) }
                text += line
                if random.below(5) == 0 { text.append(13) }
                text.append(10)
                count += 1
                bytes += line.count
            }
            let most = random.below(2) * 700
            let sealed = try Self.sealed(placement, text, &random) {
                $0.compression = compression
                $0.records = most
            }
            #expect(sealed.records == count && sealed.bytes == bytes, random.note)
            #expect(sealed.all.reduce(0) { $0 + $1.recordCount } == count, random.note)
            #expect(sealed.all.reduce(0) { $0 + $1.userBytes } == bytes, random.note)
            #expect(most == 0 || sealed.all.allSatisfy { $0.recordCount <= most }, random.note)
            // Every byte of the text is in one run, and once.
            var spans = Spans(from: 0)
            for run in sealed.all.flatMap(\.origin.runs) { spans.settle(run.first..<run.end) }
            #expect(spans.settled == UInt64(text.count) && !spans.hasGap, random.note)
            let runs = sealed.all.flatMap(\.origin.runs)
            #expect(runs.reduce(0) { $0 + Int($1.records) } == count, random.note)
            if compression == .gzip {
                #expect(sealed.all.allSatisfy { $0.array.starts(with: [0x1f, 0x8b, 8]) }, random.note)
                #expect(sealed.all.allSatisfy { $0.hashes.lowerBound == $0.hashes.upperBound }, random.note)
            }
        }
    }

    @Test func `a block stays a block when its shard is split`() throws {
        var random = Random()
        let text = Array(String(repeating: "the same line again\n", count: 5000).utf8)
        let sealed = try Self.sealed(.key, text, &random) { $0.compression = .gzip }.all
        let aggregator = Aggregator(
            .key,
            .init(),
            map: try BatcherTests.map(64),
            pool: BufferPool(mostKept: 0),
            seed: 1
        )
        for block in sealed {
            let pieces = aggregator.regroup(block, pool: BufferPool(mostKept: 0))
            #expect(pieces.count == 1 && pieces[0].aggregate === block, random.note)
            #expect(pieces[0].shard == aggregator.map.index(of: block.hashes.lowerBound))
        }
    }

    @Test func `blocks come to about the size that was asked for, and never near the stream's limit`() throws {
        var random = Random()
        // What compresses to nearly nothing, and then what does not at all.
        var text = Array(String(repeating: "all the same, and the same again\n", count: 100_000).utf8)
        let noise = text.count
        while text.count < noise + 4_000_000 { text.append(UInt8(14 + random.below(242))) }
        for at in stride(from: noise + 200, to: text.count, by: 200) { text[at] = 10 }
        let sealed = try Self.sealed(.spread, text, &random) { $0.compression = .gzip }.all
        #expect(sealed.allSatisfy { $0.dataCount < 1 << 20 }, random.note)
        let ofNoise = sealed.filter { $0.origin.runs[0].first > noise + 2_000_000 }.map(\.dataCount)
        #expect(!ofNoise.isEmpty && ofNoise.allSatisfy { $0 < 60 << 10 }, random.note)
    }

    @Test func `a block that its shard refuses goes to another as it is`() throws {
        var random = Random()
        let text = Array(String(repeating: "the same line again\n", count: 5000).utf8)
        let sealed = try Self.sealed(.spread, text, &random) { $0.compression = .gzip }.all
        let now = Instant.now
        let pool = BufferPool(mostKept: 0)
        var batcher = try BatcherTests.batcher(shards: 3, now: now)
        var aggregator = Aggregator(.spread, .init(), map: batcher.map, pool: pool, seed: 3)
        var chance = SplitMix64(seed: random.next())
        let refused = try #require(sealed.first { $0.recordCount > 1 })
        let (moved, homeless) = aggregator.putBack(
            [refused],
            because: .throttled,
            into: &batcher,
            pool: pool,
            random: &chance,
            now: now
        )
        #expect(moved.count == 1 && homeless.isEmpty, random.note)
        let after = try #require(moved.first?.after)
        #expect(after.array == refused.array && after.key.partitionKey == refused.key.partitionKey, random.note)
        #expect(batcher.map.index(ofAll: after.hashes) != batcher.map.index(ofAll: refused.hashes), random.note)
        #expect(after.key.explicitHashKey == after.hashes.lowerBound && after.origin === refused.origin, random.note)
        #expect(after.recordCount == refused.recordCount && after.userBytes == refused.userBytes, random.note)
    }
}
