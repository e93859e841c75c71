import Agent
import Bytes
import Glibc
import Kinesis
import Platform

private let start = Instant.now

private func map(_ count: Int) -> ShardMap {
    let step = UInt128.max / UInt128(count)
    let shards = (0..<count).map { number in
        let (first, last) = (UInt128(number) * step, number == count - 1 ? .max : UInt128(number + 1) * step - 1)
        return Shard(id: ShardID(number: UInt64(number)), range: HashKey(first)...HashKey(last))
    }
    guard let map = try? ShardMap(shards) else { fatalError("the shards hold every hash key") }
    return map
}

/// An aggregator over so many shards, and where its aggregates go.
private struct Packing: ~Copyable {
    let pool = BufferPool(mostKept: 64 << 20)
    var aggregator: Aggregator
    var batcher: Batcher

    init(_ placement: Aggregator.Placement, shards: Int) {
        var limits = Batcher.Limits()
        limits.shardShare = nil
        batcher = Batcher(limits, map: map(shards), now: start)
        aggregator = Aggregator(placement, .init(), map: map(shards), pool: pool, seed: 1)
    }

    /// Takes a block so many times; its aggregates are what a call takes.
    mutating func take(lines block: [UInt8], rounds: Int) -> Int {
        var records = 0
        for _ in 0..<rounds {
            aggregator.take(
                lines: block.span,
                under: nil,
                source: 1,
                position: 0,
                receipt: start,
                into: &batcher
            )
            records += aggregator.takeCounts().records
            SealedAggregate.writeChecksums(of: batcher.takeAll())
        }
        return records
    }

    /// Aggregates of 50 KiB, full of lines.
    mutating func aggregates(_ count: Int) -> [SealedAggregate] {
        let block = logLines(217, 550)
        while batcher.count < count {
            aggregator.take(lines: block.span, under: nil, source: 1, position: 0, receipt: start, into: &batcher)
        }
        return Array(batcher.takeAll().prefix(count))
    }
}

/// Lines of so many bytes, the line end among them, that begin with a number.
private func logLines(_ size: Int, _ count: Int) -> [UInt8] {
    var lines: [UInt8] = []
    for number in 0..<count {
        let head = "\(1_000_000 + number) GET /api/v2/orders/\(number * 37) "
        lines += head.utf8
        for column in head.utf8.count..<size - 1 { lines.append(UInt8(97 + (column + number) % 26)) }
        lines.append(10)
    }
    return lines
}

private struct RingEnds: ~Copyable {
    var writer: RingWriter
    var reader: RingReader

    init(_ ring: Ring) {
        writer = RingWriter(ring)
        reader = RingReader(ring)
    }
}

func ring() -> (Int) -> Int {
    let payload = [UInt8](repeating: 120, count: 235)
    return kept(RingEnds(Ring(capacity: 1 << 20))) { ring, rounds in
        var taken = 0
        for _ in 0..<rounds {
            for _ in 0..<64 {
                _ = ring.writer.write(payload.span, as: RingEntry(kind: 0, source: 1, first: 0, end: 235))
            }
            ring.writer.publish()
            _ = ring.reader.drain(128 << 10) { payload, _ in
                taken += payload.count / 235
                return true
            }
        }
        return taken
    }
}

func partitionKeys() -> (Int) -> Int {
    let keys = (0..<64).map { Array("device-\(1000 + $0)-abcd".utf8) }
    return kept(MD5()) { md5, rounds in
        var sum: UInt128 = 0
        for _ in 0..<rounds { for key in keys { sum &+= HashKey(partitionKey: key.span, md5).value } }
        return sum == 0 ? 0 : rounds * keys.count
    }
}

func lookups() -> (Int) -> Int {
    let map = map(10_000)
    var random = SplitMix64(seed: 1)
    let hashes = (0..<256).map { _ in HashKey(UInt128(random.next()) << 64 | UInt128(random.next())) }
    return { rounds in
        var sum = 0
        for _ in 0..<rounds { for hash in hashes { sum += map.index(of: hash) } }
        return sum == 0 ? 0 : rounds * hashes.count
    }
}

func lines() -> (Int) -> Int {
    // As many as a call of 1 MiB carries.
    let block = logLines(217, 4700)
    return kept(Packing(.spread, shards: 4)) { packing, rounds in packing.take(lines: block, rounds: rounds) }
}

/// 1,000 records of 100 bytes, under so many keys in turn.
private func keyedBlock(_ keys: Int) -> [UInt8] {
    var block: [UInt8] = []
    for number in 0..<1000 {
        let key = Array("device-\(number % keys * 7919)".utf8)
        for length in [100, key.count] { block += (0..<4).map { UInt8(truncatingIfNeeded: length >> ($0 * 8)) } }
        block += key + [UInt8](repeating: 120, count: 100)
    }
    return block
}

func keyed() -> (Int) -> Int {
    let block = keyedBlock(1000)
    return kept(Packing(.key, shards: 64)) { packing, rounds in
        var records = 0
        for _ in 0..<rounds {
            packing.aggregator.take(keyed: block.span, source: 1, position: 0, receipt: start, into: &packing.batcher)
            records += packing.aggregator.takeCounts().records
            SealedAggregate.writeChecksums(of: packing.batcher.takeAll())
        }
        return records
    }
}

/// 100-byte records under one key, into aggregates that owe their checksums.
func packed() -> (Int) -> Int {
    let block = (0..<1000).flatMap { _ in [100, 0, 0, 0] + [UInt8](repeating: 120, count: 100) }
    let key = RecordKey(partitionKey: Array("device".utf8), MD5())
    return packed(Packing(.key, shards: 1)) { packing, position in
        packing.aggregator.take(
            records: block.span,
            under: key,
            source: 1,
            position: position,
            receipt: start,
            into: &packing.batcher
        )
    }
}

/// The same under so many keys.
func packedByKey(_ keys: Int, shards: Int) -> (Int) -> Int {
    let block = keyedBlock(keys)
    return packed(Packing(.key, shards: shards)) { packing, position in
        packing.aggregator.take(
            keyed: block.span,
            source: 1,
            position: position,
            receipt: start,
            into: &packing.batcher
        )
    }
}

private func packed(
    _ packing: consuming Packing,
    take: @escaping (inout Packing, UInt64) -> Void
) -> (Int) -> Int {
    var position: UInt64 = 0
    return kept(packing) { packing, rounds in
        var records = 0
        for _ in 0..<rounds {
            take(&packing, position)
            position += 100_000
            records += packing.aggregator.takeCounts().records
            _ = packing.batcher.takeAll()
        }
        return records
    }
}

/// JSON lines of which a field is the key, each another's.
func fields(_ keys: Int) -> (Int) -> Int {
    let block = (0..<keys).flatMap { number in
        Array("{\"time\":\"2026-11-21T08:00:00Z\",\"id\":\"device-\(number * 7919)\",\"value\":\(number),".utf8)
            + Array("\"text\":\"\(String(repeating: "x", count: 120))\"}\n".utf8)
    }
    return kept(Packing(.field(JSONPointer("/id")!), shards: 64)) { packing, rounds in
        packing.take(lines: block, rounds: rounds)
    }
}

/// The checksum of an aggregate of 50 KiB that is alone.
func checksums() -> (Int) -> Int {
    let data = logLines(217, 235)
    return kept(MD5()) { md5, rounds in
        var sum = 0
        for _ in 0..<rounds { sum += Int(md5.sum(of: data.span)[0]) }
        return sum == 0 ? 0 : rounds
    }
}

/// Aggregates for 64 shards through the batcher, calls and answers.
func pacing() -> (Int) -> Int {
    var packing = Packing(.spread, shards: 64)
    let aggregates = packing.aggregates(256)
    var now = start
    return kept(Batcher(.init(), map: map(64), now: start)) { batcher, rounds in
        var taken = 0
        for _ in 0..<rounds {
            for (index, aggregate) in aggregates.enumerated() { batcher.add(aggregate, to: index % 64) }
            while batcher.count > 0 {
                now += .milliseconds(20)
                let call = batcher.next(now: now, flush: false)
                taken += call.count
                for aggregate in call {
                    batcher.decided(aggregate)
                    batcher.succeeded(
                        batcher.map.index(of: aggregate.hashes.lowerBound),
                        bytes: aggregate.size,
                        now: now
                    )
                }
            }
        }
        return taken
    }
}

/// Bodies of calls of 20 aggregates.
func bodies(_ format: WireFormat) -> (Int) -> Int {
    var packing = Packing(.spread, shards: 4)
    let aggregates = packing.aggregates(20)
    var heads = ByteWriter(capacity: 1 << 20)
    var pieces: [PutRecords.Piece] = []
    return { rounds in
        var bytes = 0
        for _ in 0..<rounds {
            bytes += PutRecords.write(aggregates, to: .name("logs"), as: format, heads: &heads, pieces: &pieces)
        }
        return bytes == 0 ? 0 : rounds * aggregates.count
    }
}

func signatures() -> (Int) -> Int {
    let keys = Credentials(
        accessKeyID: "AKIAIOSFODNN7EXAMPLE",
        secretAccessKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    )
    var signature = SigV4(credentials: keys, region: "eu-central-1")
    let time = SigningTime(unixSeconds: 1_795_276_800)
    let headers = [
        ("Host", "kinesis.eu-central-1.amazonaws.com"), ("Content-Type", "application/x-amz-cbor-1.1"),
        ("X-Amz-Date", time.text), ("X-Amz-Target", "Kinesis_20131202.PutRecords"),
    ]
    let hash = String(repeating: "0", count: 64)
    return { rounds in
        var bytes = 0
        for _ in 0..<rounds {
            let request = SigV4.Request(headers: headers, bodyHash: hash)
            bytes += signature.authorization(for: request, at: time).utf8.count
        }
        return bytes == 0 ? 0 : rounds
    }
}

func deaggregation() -> (Int) -> Int {
    var packing = Packing(.spread, shards: 4)
    let aggregate = packing.aggregates(1)[0]
    return kept(Deaggregator()) { deaggregator, rounds in
        var records = 0
        for _ in 0..<rounds { records += aggregate.withData { deaggregator.userRecords(of: $0) }?.count ?? 0 }
        return records
    }
}

/// Aggregates appended to the spool; the kernel's part is not counted.
func spooling() -> (Int) -> Int {
    var packing = Packing(.spread, shards: 4)
    let aggregate = packing.aggregates(1)[0]
    let origin = SpoolRecord.Origin(input: "app", source: 1, first: 0, end: 50_000, records: aggregate.recordCount)
    let record = SpoolRecord(aggregate, origins: [origin], milliseconds: 1_795_276_800_000)
    return kept(TemporarySpool()) { spool, rounds in
        do {
            for _ in 0..<rounds {
                _ = try unsafe spool.store.append(record, aggregate.unsafeData, isHeld: false, milliseconds: 0)
            }
        } catch { fatalError("the spool in \(spool.folder) cannot be written: \(error)") }
        return rounds
    }
}

private final class TemporarySpool {
    let folder = "/tmp/penstock-works-\(Machine.processNumber)"
    let store: SpoolStore

    init() {
        do { store = try SpoolStore(folder, .init(maxSize: 1 << 40, keepFree: 0)) } catch {
            fatalError("no spool can be made in \(folder): \(error)")
        }
    }

    deinit {
        try? store.closeActive()
        for entry in (try? Folder.entries(of: folder)) ?? [] { try? Folder.remove(Folder.joined(folder, entry.name)) }
        unsafe _ = rmdir(folder)
    }
}
