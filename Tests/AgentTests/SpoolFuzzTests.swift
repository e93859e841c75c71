import Agent
import Bytes
import Kinesis
import Platform
import Seeded
import Testing

/// Segments with anything in them: whoever opens them goes on, and sends what was not touched.
@Suite struct SpoolFuzzTests {
    static let extremes: [UInt64] = [0, 1, 63, 64, 65, 104, 1000, 1 << 31, 1 << 32, 1 << 62, 1 << 63, .max - 24, .max]

    static func set(_ bytes: inout [UInt8], _ offset: Int, _ value: UInt64, count: Int = 8) {
        for index in 0..<count where offset + index < bytes.count {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index))
        }
    }

    static func crc(_ bytes: some Sequence<UInt8>) -> UInt64 { UInt64(CRC32C(Array(bytes).span).value) }

    /// Numbers of a record become others, under a checksum that is right.
    static func lie(_ bytes: inout [UInt8], recordAt offset: Int, _ random: inout Random) {
        let length = Int(bytes[offset + 4]) | Int(bytes[offset + 5]) << 8
        for _ in 0...random.below(3) {
            let value = random.oneIn(2) ? extremes.randomElement(using: &random)! : random.next()
            let place = 16 + 4 * random.below(max(1, (length - 16) / 4))
            set(&bytes, offset + place, value, count: random.oneIn(2) ? 4 : min(8, length - place))
        }
        if random.oneIn(8) {
            // One that ends before its numbers do.
            set(&bytes, offset + 4, 16, count: 4)
            set(&bytes, offset + 12, 1, count: 4)
            set(&bytes, offset + 8, crc(bytes[offset + 12..<offset + 16]), count: 4)
            return
        }
        set(&bytes, offset + 8, crc(bytes[offset + 12..<offset + length]), count: 4)
    }

    /// An index that says anything, under checksums that are right.
    static func ending(at end: Int, _ random: inout Random) -> [UInt8] {
        func number() -> String {
            [
                "0", "-1", "64", "700", "1e99", "9223372036854775807", "-9223372036854775808", "18446744073709551615",
                "\"a\"",
            ]
            .randomElement(using: &random)!
        }
        let damaged = (0..<random.below(4)).map { _ in "[\(number()),\(number())]" }.joined(separator: ",")
        let files = "[{\"input\":\"app\",\"device\":\"\(number())\",\"first\":\(number()),\"end\":\(number())}]"
        let amount = "{\"input\":\"app\",\"records\":\(number()),\"bytes\":\(number())}"
        var body = Array(
            """
            {"records":\(number()),"inputs":[\(amount),\(amount)],"files":\(files),"damaged":[\(damaged)]}
            """.utf8
        )
        if random.oneIn(10) { body = random.bytes(random.below(80)) }
        while body.count % 8 != 0 { body.append(32) }
        var out = Array("PSr1".utf8) + [UInt8](repeating: 0, count: 12) + body
        set(&out, 4, UInt64(out.count), count: 4)
        set(&out, 12, 2, count: 4)
        set(&out, 8, crc(out[12...]), count: 4)
        var trailer = Array("PSEGEND1".utf8) + [UInt8](repeating: 0, count: 16)
        set(&trailer, 8, random.oneIn(3) ? extremes.randomElement(using: &random)! : UInt64(end))
        set(&trailer, 16, crc(trailer[0..<16]), count: 4)
        return out + trailer
    }

    /// A position that nobody wrote, under a checksum that is right.
    static func position(_ random: inout Random) -> [UInt8] {
        var slot = Array("PSPOSIT1".utf8) + [UInt8](repeating: 0, count: 32)
        for place in [8, 16, 24] { set(&slot, place, extremes.randomElement(using: &random)!) }
        set(&slot, 32, crc(slot[0..<32]), count: 4)
        var stretches: [UInt8] = []
        let count = random.below(4)
        for _ in 0..<count * 3 {
            var number = [UInt8](repeating: 0, count: 8)
            set(&number, 0, random.oneIn(4) ? extremes.randomElement(using: &random)! : UInt64(1 + random.below(500)))
            if stretches.count % 24 == 0, random.oneIn(2) { set(&number, 0, 1) }
            stretches += number
        }
        slot += [UInt8](repeating: 0, count: 8)
        set(&slot, 40, UInt64(count), count: 4)
        set(&slot, 44, crc((slot[8..<16] + stretches)[...]), count: 4)
        return slot + stretches
    }

    /// Changes a segment.
    ///
    /// - Returns: the first byte that is not as it was; 0 where nothing can be said.
    static func change(_ bytes: inout [UInt8], _ records: [Int], _ random: inout Random) -> Int {
        var first = 64 + random.below(bytes.count - 64)
        switch random.below(5) {
        case 0:
            for _ in 0...random.below(4) {
                let place = 64 + random.below(bytes.count - 64)
                bytes[place] ^= 1 << UInt8(random.below(8))
                first = min(first, place)
            }
        case 1: bytes.removeLast(bytes.count - first)
        case 2:
            let from = random.below(bytes.count)
            let part = bytes[from..<from + random.below(bytes.count - from)]
            bytes.replaceSubrange(first..<min(bytes.count, first + random.below(200)), with: part)
        case 3:
            first = records.randomElement(using: &random)!
            lie(&bytes, recordAt: first, &random)
        default:
            // What an index says is believed.
            first = 0
            bytes += ending(at: bytes.count, &random)
        }
        return first
    }

    @Test func `no segment stops the agent, and records before what was changed are owed`() throws {
        var random = Random()
        let begin = Instant.now
        var (rounds, changes) = (0, 0)
        while Instant.now - begin < .seconds(2) {
            rounds += 1
            let scratch = try Scratch()
            var offsets: [Int] = []
            let (isClosed, isPositionGood) = (random.oneIn(2), !random.oneIn(4))
            do {
                let store = try SpoolStore(scratch["spool/stream"], SpoolStoreTests.limits)
                for number in 0..<1 + random.below(12) {
                    offsets.append(Int(try SpoolStoreTests.append(store, number, size: random.below(300)).offset))
                    if random.oneIn(3) { try store.sync() }
                }
                if isClosed { try store.closeActive() } else { try store.sync() }
            }
            let whole = try Folder.read(scratch["spool/stream/0000000000000001.spool"])
            let ends = offsets.dropFirst().map { $0 } + [whole.count]
            var first = 0
            // Looking costs little; what the last change has left is opened.
            for _ in 0..<30 {
                var bytes = whole
                first = Self.change(&bytes, offsets, &random)
                let file = try WrittenFile(scratch["spool/stream/0000000000000001.spool"])
                try file.write(bytes, at: 0)
                try file.truncate(to: UInt64(bytes.count))
                if !isPositionGood {
                    try WrittenFile(scratch["spool/stream/position"]).write(Self.position(&random), at: 0)
                }
                let reports = try SpoolReport.all(stateDirectory: scratch.path, verifying: random.oneIn(2))
                #expect(reports.count == 1)
                for report in reports { try report.records { _, _ in true } }
                changes += 1
            }
            for _ in 0..<2 {
                let store = try SpoolStore(scratch["spool/stream"], SpoolStoreTests.limits)
                let ledger = Ledger(inputs: ["app"])
                for (input, amount) in store.found.amounts { ledger.carryOver(amount, of: ledger.number(of: input)) }
                var owed: [Int: SpoolLocation] = [:]
                var all: [SpoolLocation] = []
                while let record = try store.takeOwed() {
                    for origin in record.record.origins {
                        ledger.read(
                            .init(records: origin.records, bytes: Int(clamping: origin.end - origin.first)),
                            of: 0
                        )
                    }
                    let text = String(decoding: record.bytes[record.data].prefix { $0 != 32 }, as: UTF8.self)
                    // A change may have copied whole records behind themselves.
                    if let number = Int(text) { owed[number] = owed[number] ?? record.location }
                    all.append(record.location)
                }
                for (number, end) in ends.enumerated() where end <= first && isPositionGood {
                    #expect(owed[number]?.offset == UInt64(offsets[number]), random.note)
                }
                for location in all.shuffled(using: &random) where !random.oneIn(4) { store.letGo(location) }
                while let record = try store.takeOwed() { all.append(record.location) }
                // The second run finds it as the first did.
                _ = try store.settle()
                if rounds % 2 == 0 { for location in all { store.deliver(location) } }
            }
        }
        #expect(rounds > 5 && changes >= 30 * rounds)
    }
}
