import Bytes
import Kinesis
import Platform

/// The file of a segment: a header, records, and once it is closed an index of them.
///
///     "PENSPOOL", version, 0, number, milliseconds since 1970, zeros, CRC-32C of it all          64 bytes
///     records (SpoolRecord)
///     "PSr1", length, CRC-32C, kind 2, the contents as JSON and spaces
///     "PSEGEND1", where the index begins, CRC-32C of both, 0                                      24 bytes
package enum SpoolSegment {
    static let version: UInt32 = 1
    static let headerSize = Int(SpoolIndex.begin)
    static let trailerSize = 24

    static func name(_ number: UInt64) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, 16 - digits.count)) + digits + suffix
    }

    static let suffix = ".spool"
    /// No segment has such a number: there is always a next one.
    static let mostNumbers: UInt64 = 1 << 62

    static func number(ofFile name: String) -> UInt64? {
        guard name.hasSuffix(suffix) else { return nil }
        guard let number = UInt64(name.dropLast(suffix.count)), number < mostNumbers else { return nil }
        return self.name(number) == name ? number : nil
    }

    // MARK: header

    static func header(_ number: UInt64, milliseconds: Int64) -> [UInt8] {
        var out = ByteWriter(capacity: 64)
        out.append("PENSPOOL")
        out.append(integer: version)
        out.append(integer: UInt32(0))
        out.append(integer: number)
        out.append(integer: milliseconds)
        while out.count < headerSize - 4 { out.append(0) }
        out.append(integer: out.withBytes { CRC32C($0).value })
        return out.array
    }

    enum Header: Equatable {
        case good(number: UInt64, milliseconds: Int64)
        case newer(Int)
        case damaged
    }

    static func readHeader(_ bytes: Span<UInt8>) -> Header {
        guard bytes.count >= headerSize, bytes.array(0..<8) == Array("PENSPOOL".utf8) else { return .damaged }
        let version = bytes.integer(at: 8, as: UInt32.self)
        let sum = CRC32C(bytes.extracting(0..<headerSize - 4)).value
        guard sum == bytes.integer(at: headerSize - 4, as: UInt32.self) else { return .damaged }
        guard version <= Self.version else { return .newer(Int(version)) }
        return .good(
            number: bytes.integer(at: 16, as: UInt64.self),
            milliseconds: Int64(bitPattern: bytes.integer(at: 24, as: UInt64.self))
        )
    }

    // MARK: contents

    /// What a segment holds, as its index says it.
    package struct Contents: Equatable {
        package var records = 0
        package var amounts: [String: Ledger.Amount] = [:]
        /// For each source the first and last position.
        package var sources: [Source: ClosedRange<UInt64>] = [:]
        /// Stretches that hold no record: they were damaged when the segment was closed.
        package var damaged: [Range<UInt64>] = []

        /// Bytes of the index at most, without damage.
        var endingBound: Int { 512 + 512 * (sources.count + amounts.count) }

        /// Whether a segment whose records end at `end` can hold this: a good checksum does not make it true.
        func isPlausible(before end: UInt64) -> Bool {
            guard records <= Int(clamping: end) / SpoolRecord.fixedSize else { return false }
            var last = SpoolIndex.begin
            for range in damaged {
                guard !range.isEmpty, range.lowerBound >= last, range.upperBound <= end else { return false }
                last = range.upperBound
            }
            return true
        }

        package struct Source: Hashable, Sendable {
            package var input: String
            package var number: UInt32
        }

        mutating func add(_ record: SpoolRecord) {
            records += 1
            for origin in record.origins {
                amounts[origin.input, default: .init()] += origin.amount
                let source = Source(input: origin.input, number: origin.source)
                let range = sources[source] ?? origin.first...origin.end
                sources[source] = min(range.lowerBound, origin.first)...max(range.upperBound, origin.end)
            }
        }
    }

    /// What is written behind the records of a segment when it is closed.
    static func ending(_ contents: Contents, at offset: UInt64) -> [UInt8] {
        let value = WireValue.object([
            "records": .integer(Int64(contents.records)),
            "inputs": .list(
                contents.amounts.sorted { $0.key < $1.key }.map { name, amount in
                    .object([
                        "input": .text(name), "records": .integer(Int64(amount.records)),
                        "bytes": .integer(Int64(amount.bytes)),
                    ])
                }
            ),
            "sources": .list(
                contents.sources.map { source, range in
                    .object([
                        "input": .text(source.input), "source": .integer(Int64(source.number)),
                        "first": .integer(Int64(clamping: range.lowerBound)),
                        "end": .integer(Int64(clamping: range.upperBound)),
                    ])
                }
            ),
            "damaged": .list(
                contents.damaged.map {
                    .list([.integer(Int64(clamping: $0.lowerBound)), .integer(Int64(clamping: $0.upperBound))])
                }
            ),
        ])
        var body = WireFormat.json.encode(value)
        while body.count % 8 != 0 { body.append(UInt8(ascii: " ")) }
        var rest = ByteWriter(capacity: body.count + 64)
        rest.append(integer: UInt32(2))
        rest.append(body.span)
        var out = ByteWriter(capacity: body.count + 64)
        out.append(SpoolRecord.magic.span)
        out.append(integer: UInt32(16 + body.count))
        out.append(integer: rest.withBytes { CRC32C($0).value })
        rest.withBytes { out.append($0) }
        var trailer = ByteWriter(capacity: trailerSize)
        trailer.append("PSEGEND1")
        trailer.append(integer: offset)
        trailer.append(integer: trailer.withBytes { CRC32C($0).value })
        trailer.append(integer: UInt32(0))
        trailer.withBytes { out.append($0) }
        return out.array
    }

    /// The contents of a closed segment and where its records end; nil when it is not closed.
    static func readEnding(
        of file: borrowing ReadableFile,
        size: UInt64
    ) throws(SystemError) -> (contents: Contents, end: UInt64)? {
        guard size >= UInt64(headerSize + trailerSize) else { return nil }
        let trailer = try file.bytes(at: size - UInt64(trailerSize), count: trailerSize)
        guard trailer.count == trailerSize, Array(trailer[0..<8]) == Array("PSEGEND1".utf8),
            CRC32C(trailer.span.extracting(0..<16)).value == trailer.span.integer(at: 16, as: UInt32.self)
        else { return nil }
        let end = trailer.span.integer(at: 8, as: UInt64.self)
        let room = size - UInt64(trailerSize)
        guard end >= UInt64(headerSize), end <= room, room - end >= 16, room - end < 1 << 30 else { return nil }
        let bytes = try file.bytes(at: end, count: Int(size - end) - trailerSize)
        guard bytes.count >= 16, bytes.span.integer(at: 4, as: UInt32.self) == UInt32(bytes.count),
            CRC32C(bytes.span.extracting(12...)).value == bytes.span.integer(at: 8, as: UInt32.self),
            bytes.span.integer(at: 12, as: UInt32.self) == 2
        else { return nil }
        let body = Array(bytes[16...])
        guard let value = try? WireFormat.json.read(body.span) else { return nil }
        let contents = contents(value, body)
        return contents.isPlausible(before: end) ? (contents, end) : nil
    }

    private static func contents(_ value: WireValue, _ body: [UInt8]) -> Contents {
        func text(_ value: WireValue?) -> String { value?.text(in: body.span) ?? "" }
        func number(_ value: WireValue?) -> UInt64 { UInt64(clamping: value?.integer ?? 0) }
        var contents = Contents()
        contents.records = Int(number(value["records"]))
        for input in value["inputs"]?.list ?? [] {
            contents.amounts[text(input["input"])] = .init(
                records: Int(number(input["records"])),
                bytes: Int(number(input["bytes"]))
            )
        }
        for source in value["sources"]?.list ?? [] {
            let key = Contents.Source(
                input: text(source["input"]),
                number: UInt32(clamping: number(source["source"]))
            )
            let (first, end) = (number(source["first"]), number(source["end"]))
            contents.sources[key] = first...max(first, end)
        }
        for range in value["damaged"]?.list ?? [] {
            guard let ends = range.list, ends.count == 2 else { continue }
            contents.damaged.append(number(ends[0])..<max(number(ends[0]), number(ends[1])))
        }
        return contents
    }

    // MARK: records

    /// Reads the whole record at `offset`; nil when there is none, or a damaged one.
    static func record(
        of file: borrowing ReadableFile,
        at offset: UInt64,
        before end: UInt64,
        usual: Int = 56 << 10
    ) throws(SystemError) -> [UInt8]? {
        // One call reads most of them.
        let most = Int(clamping: end - min(end, offset))
        var bytes = try file.bytes(at: offset, count: min(most, usual))
        guard let length = SpoolRecord.length(bytes.span), length <= most else { return nil }
        if length > bytes.count {
            // Again from its start: joined to what is there, a long record would be in memory twice.
            bytes = try file.bytes(at: offset, count: length)
        }
        guard bytes.count >= length else { return nil }
        // A small one must not keep the room for a large one: many of them wait together.
        if length < bytes.count { bytes = Array(bytes[..<length]) }
        return SpoolRecord.kind(ofWhole: bytes.span) == 1 ? bytes : nil
    }

    /// The next whole record at or after `offset`: behind damage.
    static func nextRecord(
        of file: borrowing ReadableFile,
        from offset: UInt64,
        before end: UInt64
    ) throws(SystemError) -> UInt64? {
        var at = (offset + 7) / 8 * 8
        while at + UInt64(SpoolRecord.fixedSize) <= end {
            let bytes = try file.bytes(at: at, count: Int(min(1 << 20, end - at)))
            guard bytes.count >= 16 else { return nil }
            var candidates: [UInt64] = []
            var index = 0
            while index + 4 <= bytes.count {
                if bytes[index] == SpoolRecord.magic[0], bytes[index + 1] == SpoolRecord.magic[1],
                    bytes[index + 2] == SpoolRecord.magic[2], bytes[index + 3] == SpoolRecord.magic[3]
                {
                    candidates.append(at + UInt64(index))
                }
                index += 8
            }
            for candidate in candidates where try record(of: file, at: candidate, before: end) != nil {
                return candidate
            }
            at += UInt64(bytes.count) / 8 * 8
        }
        return nil
    }

    /// Whether something in a segment says that a record of it was safe.
    static func holdsSafeRecord(_ file: borrowing ReadableFile, size: UInt64) throws(SystemError) -> Bool {
        if let ending = try readEnding(of: file, size: size) { return ending.contents.records > 0 }
        var at = try nextRecord(of: file, from: SpoolIndex.begin, before: size)
        while let offset = at {
            guard let bytes = try record(of: file, at: offset, before: size) else { return false }
            if SpoolRecord.safeEnd(bytes.span) > SpoolIndex.begin { return true }
            at = try nextRecord(of: file, from: offset + UInt64(bytes.count), before: size)
        }
        return false
    }

    /// What was found where there is no index, or none that tells of the rest.
    struct Scanned {
        var contents: Contents
        /// Where the last whole record ends, and how many bytes stand behind it.
        var end: UInt64
        var torn: UInt64
        /// Those of the delivered stretches that begin and end where records do: no other can be true.
        var delivered: [Range<UInt64>]
        /// Whether there is damage in these, which an earlier run has passed.
        var hasPassedDamage: Bool
    }

    /// What a segment without an index holds: read from its first record on.
    ///
    /// A stretch that holds no whole record is damage when records behind it say that it was safe. If none does, a crash
    /// has left it: there the segment ends, and nothing behind was promised.
    /// - Parameters:
    ///   - isClosed: everything up to `size` was safe when the segment was closed: there is nothing torn.
    ///   - ahead: stretches that are delivered, whose records do not count, in order.
    static func scan(
        _ file: borrowing ReadableFile,
        size: UInt64,
        from begin: UInt64 = SpoolIndex.begin,
        isClosed: Bool = false,
        without ahead: [Range<UInt64>] = []
    ) throws(SystemError) -> Scanned {
        var whole: [(record: SpoolRecord, place: Range<UInt64>)] = []
        var bad: [Range<UInt64>] = []
        var safeEnd: UInt64 = 0
        var at = begin
        while at < size {
            if let bytes = try record(of: file, at: at, before: size), let read = SpoolRecord.readChecked(bytes.span) {
                whole.append((read.record, at..<at + UInt64(bytes.count)))
                safeEnd = max(safeEnd, SpoolRecord.safeEnd(bytes.span))
                at += UInt64(bytes.count)
            } else {
                let next = try nextRecord(of: file, from: at + 8, before: size) ?? size
                bad.append(at..<next)
                at = next
            }
        }
        let torn = isClosed ? nil : bad.first { $0.lowerBound >= safeEnd || $0.upperBound == size }
        let end = torn?.lowerBound ?? at
        let places = whole.map(\.place) + bad
        let (begins, ends) = (Set(places.map(\.lowerBound)), Set(places.map(\.upperBound)))
        let delivered = ahead.filter {
            begins.contains($0.lowerBound) && ends.contains($0.upperBound) && $0.upperBound <= end
        }
        func isDelivered(_ place: Range<UInt64>) -> Bool { delivered.contains { $0.contains(place.lowerBound) } }
        var contents = Contents()
        contents.damaged = bad.filter { $0.lowerBound < end && !isDelivered($0) }
        for (record, place) in whole where place.lowerBound < end && !isDelivered(place) { contents.add(record) }
        return Scanned(
            contents: contents,
            end: end,
            torn: size - end,
            delivered: delivered,
            hasPassedDamage: bad.contains(where: isDelivered)
        )
    }
}
