import Agent
import Bytes
import Kinesis
import Platform

/// Prints dead letters: a record that was read as it is, one that was sent as the user records in it.
struct DeadLetterPrinter: ~Copyable {
    let format: RecordFormat
    /// Whether what is gzip in a record that was sent is printed inflated.
    let inflates: Bool
    private let deaggregator = Deaggregator()
    private var out = ByteWriter(capacity: 64 << 10)
    /// User records printed; a block counts by its lines.
    private(set) var count = 0

    init(format: RecordFormat, inflates: Bool) { (self.format, self.inflates) = (format, inflates) }

    /// Prints a letter; json: with where it came from, an aggregate's records all with the stretch of the whole.
    ///
    /// - Parameters:
    ///   - line: the letter as it lies in its file.
    ///   - most: records at most.
    mutating func print(_ line: [UInt8], _ time: String, _ letter: DeadLetters.Letter, most: Int) {
        let first = count
        if let sent = letter.sent {
            let users = sent.records > 1 ? deaggregator.userRecords(of: letter.data.span) : nil
            let key = sent.key.explicitHashKey.map { Array($0.description.utf8) }
            let single = UserRecord(partitionKey: sent.key.partitionKey, explicitHashKey: key, data: letter.data)
            for (index, record) in (users ?? [single]).enumerated() where count - first < most {
                let subSequence = users == nil ? nil : index
                for piece in Gzip.pieces(of: record.data, inflates: inflates).prefix(most - (count - first)) {
                    append(piece.data) { data, isText in
                        Self.json(time, letter, record, subSequence, piece.line, data, isText)
                    }
                }
            }
        } else if format == .json {
            out.append(line.span)
            out.append(10)
            count += 1
        } else {
            append(letter.data) { _, _ in .null }
        }
        if out.count > 1 << 20 { flush() }
    }

    private mutating func append(_ data: [UInt8], json: (_ data: WireValue, _ isText: Bool) -> WireValue) {
        switch format {
        case .raw: out.append(data.span)
        case .hex: out.append(text: hexadecimalText(data.span))
        case .json:
            let text = String(validating: data, as: UTF8.self)
            WireFormat.json.write(json(text.map { .text($0) } ?? .data(data), text != nil), to: &out)
        }
        out.append(10)
        count += 1
    }

    private static func json(
        _ time: String,
        _ letter: DeadLetters.Letter,
        _ record: UserRecord,
        _ subSequence: Int?,
        _ line: Int?,
        _ data: WireValue,
        _ isText: Bool
    ) -> WireValue {
        .object([
            "time": .text(time), "reason": .text(letter.reason), "input": .text(letter.input),
            "source": .text(letter.source), "first": .integer(Int64(clamping: letter.first)),
            "end": .integer(Int64(clamping: letter.end)),
            "aggregate": subSequence == nil ? nil : .integer(Int64(letter.sent?.records ?? 0)),
            "subSequenceNumber": subSequence.map { .integer(Int64($0)) }, "line": line.map { .integer(Int64($0)) },
            "partitionKey": .text(String(decoding: record.partitionKey, as: UTF8.self)),
            "explicitHashKey": record.explicitHashKey.map { .text(String(decoding: $0, as: UTF8.self)) },
            "text": isText ? data : nil, "data": isText ? nil : data,
        ])
    }

    /// Writes what has been printed so far.
    mutating func flush() {
        out.withBytes { StandardOutput.write($0) }
        out.clear()
    }
}
