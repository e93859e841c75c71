import Agent
import Bytes
import Kinesis
import Platform
import Seeded
import Testing

@Suite struct SpoolStoreTests {
    static let limits = SpoolStore.Limits(maxSize: 64 << 20, keepFree: 0)

    /// An aggregate of one record, told from all others by its first position.
    static func aggregate(_ number: Int, size: Int = 50) -> SealedAggregate {
        var writer = AggregateWriter(maxSize: 1 << 20, pool: BufferPool(mostKept: 0))
        let key = RecordKey(partitionKey: Array("key-\(number)".utf8), explicit: HashKey(UInt128(number) << 100))
        let run = Run(source: 1, first: UInt64(number), end: UInt64(number + 1))
        let text = Array("\(number) ".utf8) + [UInt8](repeating: UInt8(number & 255), count: size)
        _ = writer.append(text.span, under: key, from: run, receipt: .now)
        return writer.seal()!
    }

    static func origin(_ number: Int, input: String = "app") -> SpoolRecord.Origin {
        .init(input: input, source: 7, first: UInt64(number), end: UInt64(number + 1), records: 1)
    }

    @discardableResult
    static func append(_ store: SpoolStore, _ number: Int, size: Int = 50, isHeld: Bool = false) throws -> SpoolLocation
    {
        let aggregate = aggregate(number, size: size)
        let record = SpoolRecord(aggregate, origins: [origin(number)], milliseconds: 1)
        return try unsafe store.append(record, aggregate.unsafeData, isHeld: isHeld, milliseconds: 1)
    }

    /// Everything that is owed, in order, by its number; it is held then.
    static func owed(_ store: SpoolStore) throws -> [(number: Int, location: SpoolLocation)] {
        var all: [(Int, SpoolLocation)] = []
        while let owed = try store.takeOwed() {
            let text = String(decoding: owed.bytes[owed.data].prefix { $0 != 32 }, as: UTF8.self)
            #expect(owed.record.origins == [origin(Int(text) ?? -1)])
            all.append((Int(text) ?? -1, owed.location))
        }
        return all
    }

    @Test func `a record comes back as it was, with its key, hash keys and origins`() throws {
        var random = Random()
        let store = try SpoolStore(Scratch().path + "/spool", Self.limits)
        for number in 0..<200 {
            let aggregate = Self.aggregate(number, size: random.below(200_000))
            let origins = (0..<random.below(4)).map {
                Self.origin($0, input: String(repeating: "é", count: random.below(9)))
            }
            let record = SpoolRecord(aggregate, origins: origins, milliseconds: Int64(number))
            _ = try unsafe store.append(record, aggregate.unsafeData, isHeld: false, milliseconds: 1)
            try store.sync()
            let back = try #require(try store.takeOwed())
            #expect(back.record == record, random.note)
            #expect(aggregate.withData { Array($0) } == Array(back.bytes[back.data]), random.note)
        }
    }

    @Test func `what was synced is owed by the next run, in order, but for what was delivered`() throws {
        var random = Random()
        for _ in 0..<30 {
            let scratch = try Scratch()
            var number = 0
            var open: [Int] = []
            for _ in 0..<6 {
                let store = try SpoolStore(scratch["spool"], .init(maxSize: 16 << 20, keepFree: 0))
                #expect(store.found.records == open.count, random.note)
                #expect(store.found.amounts["app"]?.records ?? 0 == open.count, random.note)
                let owed = try Self.owed(store)
                #expect(owed.map(\.number) == open, random.note)
                // Kinesis takes them in any order.
                var delivered = owed.filter { _ in random.oneIn(2) }
                if random.oneIn(4) { delivered = Array(owed.prefix(random.below(owed.count + 1))) }
                for (_, location) in delivered.shuffled(using: &random) { store.deliver(location) }
                let done = Set(delivered.map(\.number))
                open.removeAll { done.contains($0) }
                if random.oneIn(2) {
                    for (number, location) in owed where !done.contains(number) { store.letGo(location) }
                }
                _ = try store.settle()
                for _ in 0..<random.below(40) {
                    // Some large ones, so that there are several segments.
                    try Self.append(store, number, size: random.oneIn(3) ? 500_000 : 100)
                    open.append(number)
                    number += 1
                }
                // Some runs end as they should, some do not.
                if random.oneIn(2) { try store.closeActive() } else { try store.sync() }
            }
        }
    }

    @Test func `what is delivered behind more gaps than are noted is sent again, and nothing is lost`() throws {
        let folder = try Scratch().path + "/spool"
        let first = try SpoolStore(folder, Self.limits)
        for number in 0..<1000 { try Self.append(first, number) }
        try first.sync()
        for owed in try Self.owed(first) where owed.number % 2 == 1 { first.deliver(owed.location) }
        _ = try first.settle()
        #expect(first.isSettled)
        let owed = try Self.owed(SpoolStore(folder, Self.limits)).map(\.number)
        let noted = 168
        #expect(owed == (0..<1000).filter { $0 % 2 == 0 || $0 > 2 * noted })
    }

    @Test func `the report leaves out what was delivered behind a gap`() throws {
        let scratch = try Scratch()
        let store = try SpoolStore(scratch["spool/stream"], Self.limits)
        for number in 0..<10 { try Self.append(store, number) }
        try store.sync()
        for owed in try Self.owed(store) where [3, 4, 8].contains(owed.number) { store.deliver(owed.location) }
        _ = try store.settle()
        let report = try #require(try SpoolReport.all(stateDirectory: scratch.path).first)
        #expect(report.segments.map(\.owed) == [7] && report.segments[0].inputs["app"]?.records == 7)
        var records = 0
        try report.records { _, _ in
            records += 1
            return true
        }
        #expect(records == 7)
    }

    @Test func `what is delivered behind a segment that had been delivered to its end before is noted`() throws {
        let folder = try Scratch().path + "/spool"
        // A run notes the end of the segment that it writes, and appends nothing more.
        let first = try SpoolStore(folder, Self.limits)
        try Self.append(first, 1)
        try first.sync()
        for owed in try Self.owed(first) { first.deliver(owed.location) }
        #expect(!first.isSettled)
        _ = try first.settle()
        // The next dies before it has noted anything; the one after that delivers all.
        let second = try SpoolStore(folder, Self.limits)
        try Self.append(second, 2)
        try second.sync()
        let third = try SpoolStore(folder, Self.limits)
        #expect(try Self.owed(third).map(\.number) == [2])
        for number in 3...4 { try Self.append(third, number) }
        try third.sync()
        let fourth = try SpoolStore(folder, Self.limits)
        let owed = try Self.owed(fourth)
        #expect(owed.map(\.number) == [2, 3, 4])
        for record in owed { fourth.deliver(record.location) }
        #expect(!fourth.isSettled)
        _ = try fourth.settle()
        #expect(try Self.owed(SpoolStore(folder, Self.limits)).isEmpty)
    }

    @Test func `a torn end is cut off at every byte, and every record before it is owed`() throws {
        let scratch = try Scratch()
        var ends: [UInt64] = []
        do {
            let store = try SpoolStore(scratch["spool"], Self.limits)
            for number in 0..<40 {
                let location = try Self.append(store, number, size: 30)
                ends.append(location.offset)
            }
            try store.sync()
        }
        let whole = try Folder.read(scratch["spool/0000000000000001.spool"])
        ends = Array(ends.dropFirst()) + [UInt64(whole.count)]
        for size in stride(from: whole.count, through: max(0, whole.count - 4096), by: -1) {
            let torn = try Scratch()
            try Folder.create(torn["spool"])
            try torn.write("spool/0000000000000001.spool", Array(whole[..<size]))
            let store = try SpoolStore(torn["spool"], Self.limits)
            let good = ends.filter { $0 <= UInt64(size) }.count
            #expect(store.found.setAside.isEmpty && store.found.damaged == 0)
            #expect(try Self.owed(store).map(\.number) == Array(0..<good))
            let end = good == 0 ? (size < 64 ? 0 : 64) : ends[good - 1]
            #expect(store.found.torn == UInt64(size) - end)
        }
    }

    @Test func `a flipped bit costs its own record, which is counted, and the segment is kept`() throws {
        var random = Random()
        let scratch = try Scratch()
        for isClosed in [true, false] {
            do {
                let store = try SpoolStore(scratch["spool"], Self.limits)
                for number in 0..<20 {
                    try Self.append(store, number, size: 40)
                    // What a later record calls safe was promised.
                    if !isClosed { try store.sync() }
                }
                if isClosed { try store.closeActive() } else { try store.sync() }
            }
            let name = try #require(
                Folder.entries(of: scratch["spool"]).map(\.name).filter { $0.hasSuffix(".spool") }.max()
            )
            var bytes = try Folder.read(scratch["spool/" + name])
            let records = 64..<(bytes.count / 2)
            bytes[records.lowerBound + random.below(records.count)] ^= 1 << UInt8(random.below(8))
            try Folder.replace(scratch["spool/" + name], with: bytes)
            let store = try SpoolStore(scratch["spool"], Self.limits)
            let owed = try Self.owed(store)
            #expect(owed.count == 19, random.note)
            #expect(Set(owed.map(\.number)).count == 19, random.note)
            #expect(store.found.damaged + UInt64(store.damagedBytes) > 0, random.note)
            for (_, location) in owed { store.deliver(location) }
            let kept = try store.settle()
            #expect(kept == [scratch["spool/" + name + ".rest"]], random.note)
        }
    }

    @Test func `a hole in what was never synced is no damage: there the segment ends`() throws {
        let scratch = try Scratch()
        var offsets: [UInt64] = []
        do {
            let store = try SpoolStore(scratch["spool"], Self.limits)
            for number in 0..<20 {
                offsets.append(try Self.append(store, number, size: 40).offset)
                if number == 9 { try store.sync() }
            }
        }
        let path = scratch["spool/0000000000000001.spool"]
        var bytes = try Folder.read(path)
        for index in Int(offsets[12])..<Int(offsets[13]) { bytes[index] = 0 }
        try Folder.replace(path, with: bytes)
        let store = try SpoolStore(scratch["spool"], Self.limits)
        #expect(try Self.owed(store).map(\.number) == Array(0..<12))
        #expect(store.found.damaged == 0 && store.found.torn == UInt64(bytes.count) - offsets[12])
    }

    @Test func `a damaged position sends again, and a torn one is the one before`() throws {
        let scratch = try Scratch()
        do {
            let store = try SpoolStore(scratch["spool"], Self.limits)
            for number in 0..<10 { try Self.append(store, number) }
            try store.sync()
            for (number, location) in try Self.owed(store) where number < 6 {
                store.deliver(location)
                if number == 2 || number == 5 { _ = try store.settle() }
            }
        }
        let name = scratch["spool/position"]
        let position = try Folder.read(name)
        // Two writes, the second into the first place.
        for (place, first) in [(0, 3), (4096, 6)] {
            var torn = position
            for index in place + 20..<place + 40 { torn[index] = 0 }
            try Folder.replace(name, with: torn)
            let store = try SpoolStore(scratch["spool"], Self.limits)
            #expect(try Self.owed(store).map(\.number) == Array(first..<10))
            #expect(!store.found.positionWasLost)
        }
        var torn = position
        torn[4096 + 20] ^= 1
        do {
            // The very first write, torn: the other place is still empty.
            for index in 0..<4096 { torn[index] = 0 }
            try Folder.replace(name, with: torn)
            let store = try SpoolStore(scratch["spool"], Self.limits)
            #expect(!store.found.positionWasLost)
            #expect(try Self.owed(store).map(\.number) == Array(0..<10))
        }
        torn = position
        torn[20] ^= 1
        torn[4096 + 20] ^= 1
        try Folder.replace(name, with: torn)
        let store = try SpoolStore(scratch["spool"], Self.limits)
        #expect(store.found.positionWasLost)
        #expect(try Self.owed(store).map(\.number) == Array(0..<10))
    }

    @Test func `a number is never given again, so that an old position says nothing of a new segment`() throws {
        let scratch = try Scratch()
        do {
            let store = try SpoolStore(scratch["spool"], Self.limits)
            try Self.append(store, 0)
            try store.sync()
            for (_, location) in try Self.owed(store) { store.deliver(location) }
            _ = try store.settle()
        }
        // The segment's name did not outlive the crash, the position did.
        try Folder.remove(scratch["spool/0000000000000001.spool"])
        do {
            let store = try SpoolStore(scratch["spool"], Self.limits)
            try Self.append(store, 1)
            try store.sync()
        }
        #expect(try Self.owed(SpoolStore(scratch["spool"], Self.limits)).map(\.number) == [1])
    }

    @Test func `a newer version is refused and left alone`() throws {
        let scratch = try Scratch()
        do {
            let store = try SpoolStore(scratch["spool"], Self.limits)
            try Self.append(store, 0)
            try store.sync()
        }
        let path = scratch["spool/0000000000000001.spool"]
        var bytes = try Folder.read(path)
        bytes[8] = 2
        let sum = CRC32C(bytes.span.extracting(0..<60)).value
        for index in 0..<4 { bytes[60 + index] = UInt8(truncatingIfNeeded: sum >> (8 * index)) }
        try Folder.replace(path, with: bytes)
        #expect(throws: SpoolStore.Fault.newer(path: path, version: 2)) {
            try SpoolStore(scratch["spool"], Self.limits)
        }
        #expect(try Folder.read(path) == bytes)
    }

    @Test func `the files never pass the limit, and space comes back with what is delivered`() throws {
        let scratch = try Scratch()
        let limits = SpoolStore.Limits(maxSize: 16 << 20, keepFree: 0)
        let store = try SpoolStore(scratch["spool"], limits)
        func size() throws -> Int {
            try Folder.entries(of: scratch["spool"]).reduce(0) {
                $0 + Int(try FileStatus(of: scratch["spool/" + $1.name]).size)
            }
        }
        for _ in 0..<3 {
            var written = 0
            while try store.room() > 110_000 {
                try Self.append(store, written, size: 100_000)
                written += 1
            }
            try store.sync()
            #expect(written > 140)
            #expect(try size() <= limits.maxSize)
            for (_, location) in try Self.owed(store) { store.deliver(location) }
            _ = try store.settle()
        }
        #expect(try size() < 3 << 20)
        // The file system's own room counts as well.
        let free = try Folder.freeBytes(scratch.path)
        store.limit(to: .init(maxSize: 16 << 20, keepFree: free - (1 << 20)))
        #expect(try store.room() < 1 << 20)
        store.limit(to: .init(maxSize: 16 << 20, keepFree: free + (1 << 30)))
        #expect(try store.room() == 0)
    }

    @Test func `records that a failed sync may have lost are written again behind what is safe`() throws {
        let scratch = try Scratch()
        let store = try SpoolStore(scratch["spool"], Self.limits)
        for number in 0..<3 { try Self.append(store, number) }
        try store.sync()
        let lost = try (3..<5).map { try Self.append(store, $0) }
        #expect(store.abandonUnsynced() == lost[0])
        for number in 3..<6 { try Self.append(store, number) }
        try store.sync()
        #expect(try Self.owed(store).map(\.number) == Array(0..<6))
        #expect(try Self.owed(SpoolStore(scratch["spool"], Self.limits)).map(\.number) == Array(0..<6))
    }

    @Test func `records that nobody can write again stay when a sync fails`() throws {
        let scratch = try Scratch()
        let store = try SpoolStore(scratch["spool"], Self.limits)
        for number in 0..<3 { try Self.append(store, number) }
        #expect(store.abandonUnsynced(isOnlyCopy: true) == nil)
        try Self.append(store, 3)
        try store.sync()
        #expect(try Self.owed(store).map(\.number) == Array(0..<4))
        #expect(try Self.owed(SpoolStore(scratch["spool"], Self.limits)).map(\.number) == Array(0..<4))
    }

    @Test func `a segment that could not be removed is removed a little later`() throws {
        let scratch = try Scratch()
        let store = try SpoolStore(scratch["spool"], Self.limits)
        let name = "spool/0000000000000001.spool"
        let location = try Self.append(store, 1, isHeld: true)
        try store.closeActive()
        let size = store.size
        try scratch.move(name, to: "away")
        try Folder.create(scratch[name])
        store.deliver(location)
        #expect(throws: SystemError.self) { try store.settle() }
        #expect(!store.isSettled)
        Folder.removeTree(scratch[name])
        try scratch.move("away", to: name)
        #expect(try store.settle() == [])
        #expect(store.isSettled && store.size < size)
        #expect((try? FileStatus(of: scratch[name])) == nil)
    }

    @Test func `a segment with damage that an earlier run has passed is kept as well`() throws {
        let scratch = try Scratch()
        let name = "spool/0000000000000001.spool"
        do {
            let store = try SpoolStore(scratch["spool"], Self.limits)
            let all = try (0..<5).map { try Self.append(store, $0) }
            try store.closeActive()
            var bytes = try Folder.read(scratch[name])
            for byte in Int(all[2].offset)..<Int(all[3].offset) { bytes[byte] = 0 }
            let file = try WrittenFile(scratch[name])
            try file.write(bytes, at: 0)
            // The first is not delivered yet: there is a gap in front of the damage.
            for owed in try Self.owed(store) where owed.number > 0 { store.deliver(owed.location) }
            _ = try store.settle()
        }
        let store = try SpoolStore(scratch["spool"], Self.limits)
        let owed = try Self.owed(store)
        #expect(owed.map(\.number) == [0])
        for record in owed { store.deliver(record.location) }
        #expect(try store.settle() == [scratch[name + ".rest"]])
    }

    @Test func `a segment that is gone leaves no other its number`() throws {
        let scratch = try Scratch()
        do {
            let store = try SpoolStore(scratch["spool"], .init(maxSize: 16 << 20, keepFree: 0))
            for number in 0..<8 { try Self.append(store, number, size: 900_000) }
            try store.sync()
            for owed in try Self.owed(store) where owed.number > 0 { store.deliver(owed.location) }
            _ = try store.settle()
        }
        for entry in try Folder.entries(of: scratch["spool"])
        where entry.name.hasSuffix(".spool") && !entry.name.hasSuffix("01.spool") {
            try scratch.move("spool/" + entry.name, to: entry.name)
        }
        let store = try SpoolStore(scratch["spool"], Self.limits)
        try Self.append(store, 9, size: 900_000)
        try store.sync()
        #expect(try Self.owed(SpoolStore(scratch["spool"], Self.limits)).map(\.number) == [0, 9])
    }

    @Test func `damage that reaches over records that were delivered ahead costs what is owed alone`() throws {
        let scratch = try Scratch()
        let store = try SpoolStore(scratch["spool"], Self.limits)
        let all = try (0..<6).map { try Self.append(store, $0, isHeld: true) }
        try store.sync()
        store.deliver(all[2])
        for number in [1, 4, 5] { store.letGo(all[number]) }
        let name = "spool/0000000000000001.spool"
        var bytes = try Folder.read(scratch[name])
        for byte in Int(all[1].offset)..<Int(all[5].offset) { bytes[byte] = 0 }
        let file = try WrittenFile(scratch[name])
        try file.write(bytes, at: 0)
        #expect(try Self.owed(store).map(\.number) == [5])
        for number in [0, 3, 5] { store.deliver(all[number]) }
        #expect(store.index.isEmpty)
        #expect(store.damagedBytes == Int(all[2].offset - all[1].offset + all[5].offset - all[4].offset))
    }

    @Test func `very many files in few records do not make the spool pass its limit`() throws {
        let scratch = try Scratch()
        let limits = SpoolStore.Limits(maxSize: 16 << 20, keepFree: 0)
        let store = try SpoolStore(scratch["spool"], limits)
        var number = 0
        while true {
            let aggregate = Self.aggregate(number)
            let origins = (0..<500).map { index in
                SpoolRecord.Origin(
                    input: "app",
                    source: UInt32(number * 500 + index),
                    first: 1 << 62,
                    end: 1 << 62 + 1,
                    records: 1
                )
            }
            guard try store.room() > aggregate.size + SpoolRecord.overhead(origins: 500) else { break }
            let record = SpoolRecord(aggregate, origins: origins, milliseconds: 1)
            _ = try unsafe store.append(record, aggregate.unsafeData, isHeld: false, milliseconds: 1)
            number += 1
        }
        try store.closeActive()
        #expect(number > 50)
        #expect(store.size <= limits.maxSize)
    }

    @Test func `files whose names are not a segment's are left alone`() throws {
        let scratch = try Scratch()
        try Folder.create(scratch["spool"])
        let names = ["spool/+5.spool", "spool/5.spool", "spool/18446744073709551615.spool"]
        for name in names { try scratch.write(name, "what") }
        let store = try SpoolStore(scratch["spool"], Self.limits)
        try Self.append(store, 1)
        try store.closeActive()
        for name in names { #expect(try Folder.read(scratch[name]) == Array("what".utf8)) }
    }
}
