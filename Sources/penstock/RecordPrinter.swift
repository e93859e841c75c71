import ArgumentParser
import Bytes
import CZlib
import Kinesis
import Platform

/// How user records are printed.
enum RecordFormat: String, ExpressibleByArgument, CaseIterable {
    /// The data, a line end behind each record.
    case raw
    /// A JSON object a line, with keys and position; data that is not UTF-8 in base64.
    case json
    /// The data in hexadecimal, a line a record.
    case hex
}

/// Takes Kinesis records apart and prints their user records.
struct RecordPrinter: ~Copyable {
    let format: RecordFormat
    /// Whether user records that are gzip are printed inflated.
    let inflates: Bool
    /// Whether aggregates are printed that the KCL drops.
    let printsMisplaced: Bool
    private let deaggregator = Deaggregator()
    private let md5 = MD5()
    private var out = ByteWriter(capacity: 64 << 10)
    /// User records printed; a block counts by its lines.
    private(set) var count = 0
    /// Aggregates with a record whose hash key lies outside the range of the shard they were read from, and their records.
    private(set) var misplaced = (aggregates: 0, records: 0)

    init(format: RecordFormat, inflates: Bool, printsMisplaced: Bool = true) {
        (self.format, self.inflates, self.printsMisplaced) = (format, inflates, printsMisplaced)
    }

    /// Where a Kinesis record was found.
    struct Origin {
        var partitionKey: [UInt8] = []
        var shard: Shard?
        var sequenceNumber: String?
    }

    /// Prints the user records of one Kinesis record; at most `most` of them.
    mutating func print(_ data: Span<UInt8>, from origin: Origin, most: Int = .max) {
        let users = deaggregator.userRecords(of: data)
        let plain = unsafe data.withUnsafeBufferPointer { unsafe Array($0) }
        let records = users ?? [UserRecord(partitionKey: origin.partitionKey, data: plain)]
        // A plain record lies where Kinesis put it; only an aggregate can hold what belongs elsewhere.
        if let users, let shard = origin.shard, !users.allSatisfy({ shard.range.contains($0.hashKey(md5)) }) {
            misplaced.aggregates += 1
            misplaced.records += users.count
            guard printsMisplaced else { return }
        }
        let last = count + min(most, .max - count)
        for (index, record) in records.enumerated() where count < last {
            let subSequence = users == nil ? nil : index
            for piece in Gzip.pieces(of: record.data, inflates: inflates).prefix(last - count) {
                append(piece.data, record, subSequence, piece.line, origin)
            }
        }
        if out.count > 1 << 20 { flush() }
    }

    private mutating func append(
        _ data: [UInt8],
        _ record: UserRecord,
        _ subSequence: Int?,
        _ line: Int?,
        _ origin: Origin
    ) {
        count += 1
        switch format {
        case .raw: out.append(data.span)
        case .hex: out.append(text: hexadecimalText(data.span))
        case .json:
            let text = String(validating: data, as: UTF8.self)
            WireFormat.json.write(
                .object([
                    "shard": origin.shard.map { .text("\($0.id)") },
                    "sequenceNumber": origin.sequenceNumber.map { .text($0) },
                    "subSequenceNumber": subSequence.map { .integer(Int64($0)) },
                    "line": line.map { .integer(Int64($0)) },
                    "partitionKey": .text(String(decoding: record.partitionKey, as: UTF8.self)),
                    "explicitHashKey": record.explicitHashKey.map { .text(String(decoding: $0, as: UTF8.self)) },
                    "data": text.map { .text($0) },
                    "dataBase64": text == nil ? .data(data) : nil,
                ]),
                to: &out
            )
        }
        out.append(10)
    }

    /// Writes what has been printed so far.
    mutating func flush() {
        out.withBytes { StandardOutput.write($0) }
        out.clear()
    }
}

/// gzip, as producers put it into records: CloudWatch Logs subscriptions, and Penstock's own compression.
enum Gzip {
    /// The largest record that is inflated; what would become more stays as it is.
    private static let largest = 256 << 20

    /// What a record's data is to be printed as: itself; or inflated, a block line by line with each line's number.
    static func pieces(of data: [UInt8], inflates: Bool) -> [(data: [UInt8], line: Int?)] {
        guard inflates, let inflated = inflated(data) else { return [(data, nil)] }
        // A record has no line end behind it, each of a block's has.
        guard inflated.last == 10 else { return [(inflated, nil)] }
        let lines = inflated.dropLast().split(separator: 10, omittingEmptySubsequences: false)
        return lines.enumerated().map { (Array($1), $0) }
    }

    /// The inflated bytes; nil when `bytes` are not gzip, or damaged.
    static func inflated(_ bytes: [UInt8]) -> [UInt8]? {
        guard bytes.count >= 18, bytes[0] == 0x1f, bytes[1] == 0x8b else { return nil }
        var stream = unsafe z_stream()
        // 15 bits of window, and 16 for gzip's head and checksum.
        guard unsafe czlib_inflate_init(&stream, 15 + 16) == Z_OK else { return nil }
        defer { unsafe inflateEnd(&stream) }
        var out: [UInt8] = []
        var input = bytes
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        var isOver = false
        unsafe input.withUnsafeMutableBufferPointer { input in
            unsafe stream.next_in = input.baseAddress
            unsafe stream.avail_in = UInt32(input.count)
            while !isOver, out.count < largest {
                let result = unsafe chunk.withUnsafeMutableBufferPointer { room in
                    unsafe stream.next_out = room.baseAddress
                    unsafe stream.avail_out = UInt32(room.count)
                    return unsafe inflate(&stream, Z_NO_FLUSH)
                }
                guard result == Z_OK || result == Z_STREAM_END else { return }
                unsafe out.append(contentsOf: chunk[..<(chunk.count - Int(stream.avail_out))])
                // One more member may follow: gzip files may be joined.
                if result == Z_STREAM_END {
                    isOver = unsafe stream.avail_in == 0 || inflateReset(&stream) != Z_OK
                } else if unsafe stream.avail_in == 0 && stream.avail_out > 0 {
                    return
                }
            }
        }
        return isOver ? out : nil
    }
}
