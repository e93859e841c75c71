import Bytes
import Kinesis
import Seeded
import Testing

@Suite struct AggregateWriterTests {
    func plainKey(_ text: String) -> RecordKey { RecordKey(partitionKey: Array(text.utf8), MD5()) }

    /// What one writer was given since its last seal.
    struct Content {
        var records: [UserRecord] = []
        var runs: [Run] = []
        var firstKey: RecordKey?
        var firstReceipt: Instant?

        mutating func add(
            _ data: [UInt8],
            _ key: RecordKey,
            _ run: Run,
            _ receipt: Instant
        ) {
            let explicit = key.explicitHashKey.isEmpty ? nil : key.explicitHashKey
            records.append(UserRecord(partitionKey: key.partitionKey, explicitHashKey: explicit, data: data))
            if let last = runs.last, last.source == run.source, last.end == run.first {
                runs[runs.count - 1].end = run.end
                runs[runs.count - 1].records += run.records
            } else {
                runs.append(run)
            }
            firstKey = firstKey ?? key
            firstReceipt = firstReceipt ?? receipt
        }
    }

    /// Seals and compares with what libprotobuf-c packs.
    func check(
        _ writer: inout AggregateWriter,
        _ content: Content,
        _ note: Comment,
        _ location: SourceLocation = #_sourceLocation
    ) {
        func expect(_ condition: Bool, _ what: String) {
            if !condition { Issue.record("\(what); \(note)", sourceLocation: location) }
        }
        let size = writer.size
        let sealed = writer.seal()
        expect(writer.isEmpty && writer.recordCount == 0 && writer.firstReceipt == nil, "a sealed writer is empty")
        guard let sealed, let key = content.firstKey else {
            return expect(sealed == nil && content.records.isEmpty, "nothing seals to nil alone")
        }
        if content.records.count == 1 {
            expect(sealed.array == content.records[0].data, "one record is sealed plain")
            let explicit = key.explicitHashKey.isEmpty ? nil : key.hash
            expect(sealed.key.partitionKey == key.partitionKey, "its own key")
            expect(sealed.key.explicitHashKey == explicit, "its own hash key, if it was given one")
        } else {
            expect(sealed.array == packedByLibprotobuf(content.records), "libprotobuf-c packs other bytes")
            expect(sealed.dataCount == size, "the size before the seal")
            expect(sealed.dataCount <= writer.maxSize, "never above maxSize")
            expect(sealed.key.partitionKey == [97], "the outer key")
            expect(sealed.key.explicitHashKey == key.hash, "a hash key inside the shard")
        }
        expect(writer.maxRecords == 0 || sealed.recordCount <= writer.maxRecords, "never above maxRecords")
        expect(sealed.recordCount == content.records.count, "the number of records")
        expect(sealed.userBytes == content.records.reduce(0) { $0 + $1.data.count }, "the user's bytes")
        expect(sealed.size == sealed.dataCount + sealed.key.partitionKey.count, "the size with the key")
        expect(sealed.origin.runs == content.runs, "the runs cover what was appended")
        expect(sealed.firstReceipt == content.firstReceipt, "the first receipt")
        expect(sealed.footprint >= sealed.dataCount, "the memory")
    }

    func keys(_ count: Int, explicit: Bool, _ random: inout Random) -> [RecordKey] {
        (0..<count).map { index in
            let text = "\(index)" + String(repeating: "k", count: random.below(random.oneIn(8) ? 250 : 20))
            guard explicit else { return plainKey(text) }
            // Some share a partition key, some a hash key.
            let hash = HashKey(UInt128(random.next()) << UInt128(random.below(65)))
            return RecordKey(partitionKey: Array((random.oneIn(3) ? "same" : text).utf8), explicit: hash)
        }
    }

    @Test(arguments: [false, true])
    func `packs what libprotobuf-c packs, whatever the records, keys and limits`(explicit: Bool) {
        var random = Random()
        let pool = BufferPool(mostKept: 1 << 20)
        var (sealed, plain) = (0, 0)
        for _ in 0..<60 {
            let most = [200, 1000, 5000, 51_200, 300_000][random.below(5)]
            let maxRecords = random.oneIn(3) ? 1 + random.below(20) : 0
            var writer = AggregateWriter(maxSize: most, maxRecords: maxRecords, pool: pool)
            let keys = keys([1, 2, 8, 9, 40, 200, 700][random.below(7)], explicit: explicit, &random)
            var content = Content()
            var positions: [UInt64] = [0, 1000, 5]
            for step in 0..<600 {
                let key = keys[random.below(keys.count)]
                let data = random.bytes(
                    random.oneIn(60) ? random.below(most * 2) : random.below([3, 130, 300][random.below(3)])
                )
                let source = random.oneIn(4) ? random.below(3) : 0
                let skipped = random.oneIn(10) ? 3 : 0
                let first = positions[source] + UInt64(skipped)
                let run = Run(source: UInt32(source), first: first, end: first + UInt64(data.count + 1))
                positions[source] = run.end
                let receipt = Instant.now + .seconds(step)
                while true {
                    let size = writer.size(adding: data.count, under: key)
                    let fits = writer.isEmpty || (size <= most && (maxRecords == 0 || writer.recordCount < maxRecords))
                    let before = writer.size
                    let taken = writer.append(data.span, under: key, from: run, receipt: receipt)
                    #expect(taken == fits, random.note)
                    #expect(writer.size == (taken ? size : before), random.note)
                    if taken { break }
                    if content.records.count == 1 { plain += 1 } else { sealed += 1 }
                    check(&writer, content, random.note)
                    content = Content()
                }
                content.add(data, key, run, receipt)
            }
            check(&writer, content, random.note)
        }
        #expect(sealed > 100 && plain > 20, random.note)
    }

    /// Splitting by hand and appending one by one.
    @Test(arguments: [false, true])
    func `takes the lines of a block as if each were appended by itself`(explicit: Bool) {
        var random = Random()
        let pool = BufferPool(mostKept: 1 << 20)
        var stops: [AggregateWriter.BlockStop] = []
        for _ in 0..<120 {
            let most = [150, 1000, 5000, 51_200][random.below(4)]
            let longest = [20, 100, 1000, 100_000][random.below(4)]
            let maxRecords = random.oneIn(3) ? 1 + random.below(20) : 0
            var writer = AggregateWriter(maxSize: most, maxRecords: maxRecords, pool: pool)
            var other = AggregateWriter(maxSize: most, maxRecords: maxRecords, pool: pool)
            let keys = keys([1, 2, 9, 40, 200][random.below(5)], explicit: explicit, &random)
            var content = Content()
            var position: UInt64 = random.next() >> 20
            for _ in 0..<40 {
                var block: [UInt8] = []
                for _ in 0..<random.below(30) {
                    let count = random.oneIn(10) ? random.below(longest + 10) : random.below(40)
                    block += random.bytes(count).map { $0 == 10 ? 13 : $0 }
                    block += random.oneIn(3) ? [13, 10] : [10]
                }
                if random.oneIn(8) { block += random.bytes(random.below(10)).map { $0 == 10 ? 13 : $0 } }
                let key = keys[random.below(keys.count)]
                let receipt = Instant.now
                var offset = 0
                while true {
                    let start = offset
                    let stop = writer.appendLines(
                        of: block.span,
                        from: &offset,
                        longest: longest,
                        under: key,
                        source: 3,
                        position: position,
                        receipt: receipt
                    )
                    stops.append(stop)
                    // By hand: what had to be taken, and why it had to stop.
                    var (at, wanted) = (start, AggregateWriter.BlockStop.blockEnded)
                    while at < block.count {
                        let end = block[at...].firstIndex(of: 10)
                        var line = block[at..<(end ?? block.count)]
                        if line.last == 13 { line.removeLast() }
                        if line.count > longest {
                            wanted = .longRecord
                            break
                        }
                        let next = end.map { $0 + 1 } ?? block.count
                        let run = Run(source: 3, first: position + UInt64(at), end: position + UInt64(next))
                        let data = Array(line)
                        guard other.append(data.span, under: key, from: run, receipt: receipt) else {
                            wanted = .aggregateFull
                            break
                        }
                        content.add(Array(line), key, run, receipt)
                        at = next
                    }
                    #expect(offset == at && stop == wanted, random.note)
                    guard offset == at, stop == wanted else { return }
                    if stop == .blockEnded { break }
                    if stop == .aggregateFull {
                        check(&writer, content, random.note)
                        check(&other, content, random.note)
                        content = Content()
                    } else {
                        offset = block[offset...].firstIndex(of: 10).map { $0 + 1 } ?? block.count
                    }
                }
                position += UInt64(block.count)
            }
            check(&writer, content, random.note)
        }
        for stop in [AggregateWriter.BlockStop.blockEnded, .aggregateFull, .longRecord] {
            #expect(stops.filter { $0 == stop }.count > 100, random.note)
        }
    }

    @Test(arguments: [16_384, 16_385, 20_000])
    func `more hash keys under one partition key than an index of two bytes can name fill an aggregate`(count: Int) {
        let pool = BufferPool(mostKept: 1 << 22)
        var writer = AggregateWriter(maxSize: 8 << 20, pool: pool)
        var contents = [Content()]
        for index in 0..<count {
            let key = RecordKey(partitionKey: [65], explicit: HashKey(UInt128(index)))
            let run = Run(source: 0, first: UInt64(index), end: UInt64(index + 1))
            let receipt = Instant.now
            if !writer.append([1, 2].span, under: key, from: run, receipt: receipt) {
                check(&writer, contents[contents.count - 1], "\(index)")
                contents.append(Content())
                let taken = writer.append([1, 2].span, under: key, from: run, receipt: receipt)
                #expect(taken)
            }
            contents[contents.count - 1].add([1, 2], key, run, receipt)
        }
        check(&writer, contents[contents.count - 1], "the last")
        #expect(contents.count == (count > 16_384 ? 2 : 1))
    }

    @Test func `a record above the limit travels alone and plain, and the next aggregate is of the usual size`() {
        let pool = BufferPool(mostKept: 1 << 22)
        var writer = AggregateWriter(maxSize: 1000, pool: pool)
        let key = plainKey("k")
        let run = Run(source: 0, first: 0, end: 1_000_001)
        let large = [UInt8](repeating: 1, count: 1_000_000)
        var taken = writer.append(large.span, under: key, from: run, receipt: .now)
        #expect(taken)
        taken = writer.append([7].span, under: key, from: run, receipt: .now)
        #expect(!taken)
        let sealed = writer.seal()
        #expect(sealed?.array == large)
        _ = writer.append([1].span, under: key, from: run, receipt: .now)
        let next = writer.seal()
        #expect(next.map { $0.footprint < 20_000 } == true)
    }

    /// What is kept free for the tables in front is as the last ones were; the records behind it then end later or earlier.
    @Test(arguments: [50 << 10, 200 << 10, 1 << 20])
    func `an aggregate takes few buffers, however many keys it and the one before it have`(size: Int) {
        var random = Random()
        let pool = BufferPool(mostKept: 1 << 22)
        var writer = AggregateWriter(maxSize: size, pool: pool)
        for _ in 0..<40 {
            let (keys, length) = (random.oneIn(3) ? 1 : 10_000, 1 + random.below(120))
            let record = random.bytes(10 + random.below(200))
            let before = pool.taken
            while true {
                let key = plainKey("\(random.below(keys))" + String(repeating: "k", count: length))
                guard writer.append(record.span, under: key, from: Run(source: 0, first: 0, end: 1), receipt: .now)
                else { break }
            }
            _ = writer.seal()
            #expect(pool.taken - before < 24, random.note)
        }
    }

    @Test func `a sealed aggregate keeps its bytes while its writer and pool go on`() {
        var random = Random()
        let pool = BufferPool(mostKept: 1 << 20)
        var writer = AggregateWriter(maxSize: 2000, pool: pool, keepsTables: false)
        let key = plainKey("k")
        var held: [(SealedAggregate, [UserRecord])] = []
        let deaggregator = Deaggregator()
        for _ in 0..<500 {
            var records: [UserRecord] = []
            while true {
                let data = random.bytes(random.below(300))
                let run = Run(source: 0, first: 0, end: 1)
                guard writer.append(data.span, under: key, from: run, receipt: .now) else { break }
                records.append(UserRecord(partitionKey: key.partitionKey, data: data))
            }
            if let sealed = writer.seal() { held.append((sealed, records)) }
            if held.count > 20 { held.remove(at: random.below(20)) }
            let (sealed, wanted) = held[random.below(held.count)]
            let found = sealed.withData { deaggregator.userRecords(of: $0) }
            #expect(found == wanted, random.note)
        }
        held = []
        #expect(pool.used == 0)
    }
}
