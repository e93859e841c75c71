public import Bytes

/// A PutRecords request, in both directions.
public enum PutRecords {
    /// Where a body's bytes lie, in order: parts written into the head buffer, and record data that stays where it is.
    public enum Piece: Equatable {
        /// Bytes of the head buffer.
        case head(Range<Int>)
        /// The data of the record at this index.
        case data(Int)
        /// The same in base64.
        case base64(Int)
    }

    /// Writes the body for `records` into `heads` and lists its pieces in `pieces`.
    ///
    /// The records' data stays in place: the body is read from the aggregates as it is sent.
    /// - Returns: bytes of the body.
    public static func write(
        _ records: [SealedAggregate],
        to stream: StreamName,
        as format: WireFormat,
        heads: inout ByteWriter,
        pieces: inout [Piece]
    ) -> Int {
        SealedAggregate.writeChecksums(of: records)
        heads.clear(keeping: 256 << 10)
        pieces.removeAll(keepingCapacity: true)
        return switch format {
        case .cbor: writeCBOR(records, stream, &heads, &pieces)
        case .json: writeJSON(records, stream, &heads, &pieces)
        }
    }

    private static func writeCBOR(
        _ records: [SealedAggregate],
        _ stream: StreamName,
        _ heads: inout ByteWriter,
        _ pieces: inout [Piece]
    ) -> Int {
        var (start, total) = (0, 0)
        CBORWriter.head(5, 2, to: &heads)
        CBORWriter.text(stream.member, to: &heads)
        CBORWriter.text(stream.text, to: &heads)
        CBORWriter.text("Records", to: &heads)
        CBORWriter.head(4, UInt64(records.count), to: &heads)
        for (index, record) in records.enumerated() {
            CBORWriter.head(5, record.key.explicitHashKey == nil ? 2 : 3, to: &heads)
            CBORWriter.text("PartitionKey", to: &heads)
            let key = record.key
            CBORWriter.head(3, UInt64(key.partitionKey.count), to: &heads)
            heads.append(key.partitionKey.span)
            if let hash = key.explicitHashKey {
                CBORWriter.text("ExplicitHashKey", to: &heads)
                CBORWriter.text(hash.description, to: &heads)
            }
            CBORWriter.text("Data", to: &heads)
            let count = record.dataCount
            CBORWriter.head(2, UInt64(count), to: &heads)
            pieces.append(.head(start..<heads.count))
            pieces.append(.data(index))
            total += heads.count - start + count
            start = heads.count
        }
        if start < heads.count {
            pieces.append(.head(start..<heads.count))
            total += heads.count - start
        }
        return total
    }

    private static func writeJSON(
        _ records: [SealedAggregate],
        _ stream: StreamName,
        _ heads: inout ByteWriter,
        _ pieces: inout [Piece]
    ) -> Int {
        var (start, total) = (0, 0)
        heads.append("{")
        JSONWriter.text(stream.member, to: &heads)
        heads.append(":")
        JSONWriter.text(stream.text, to: &heads)
        heads.append(",\"Records\":[")
        for (index, record) in records.enumerated() {
            heads.append(index == 0 ? "{\"PartitionKey\":" : ",{\"PartitionKey\":")
            JSONWriter.text(String(decoding: record.key.partitionKey, as: UTF8.self), to: &heads)
            if let hash = record.key.explicitHashKey {
                heads.append(",\"ExplicitHashKey\":\"")
                heads.append(text: hash.description)
                heads.append("\"")
            }
            heads.append(",\"Data\":\"")
            pieces.append(.head(start..<heads.count))
            pieces.append(.base64(index))
            total += heads.count - start + Base64.size(of: record.dataCount)
            start = heads.count
            heads.append("\"}")
        }
        heads.append("]}")
        pieces.append(.head(start..<heads.count))
        return total + heads.count - start
    }

    /// What became of one record of a call.
    public enum Result: Equatable, Sendable {
        case stored(in: ShardID)
        case refused(ServiceError)
    }

    /// Reads an answer.
    ///
    /// - Parameter count: records of the call. An answer with another number of results is no answer at all: nothing in
    ///   it says which record a result belongs to.
    /// - Throws: when the answer cannot be trusted; the whole call must be made again.
    public static func results(
        _ answer: Span<UInt8>,
        as format: WireFormat,
        for count: Int
    ) throws(Distrust) -> [Result] {
        let value: WireValue
        do { value = try format.read(answer) } catch { throw .unreadable(error) }
        guard let records = value["Records"]?.list else { throw .noRecords }
        guard records.count == count else { throw .wrongCount(records.count, sent: count) }
        var results: [Result] = []
        results.reserveCapacity(count)
        for record in records {
            if let code = record["ErrorCode"]?.text(in: answer) {
                let message = record["ErrorMessage"]?.text(in: answer) ?? ""
                results.append(.refused(ServiceError(code: code, message: message)))
            } else if let shard = record["ShardId"]?.text(in: answer), let id = ShardID(shard) {
                results.append(.stored(in: id))
            } else {
                throw .neitherStoredNorRefused
            }
        }
        return results
    }

    /// Why an answer with status 200 cannot be trusted.
    public enum Distrust: Error, Equatable, CustomStringConvertible {
        case unreadable(WireFault)
        case noRecords
        case wrongCount(Int, sent: Int)
        case neitherStoredNorRefused

        public var description: String {
            switch self {
            case .unreadable(let fault): "the answer cannot be read: \(fault)"
            case .noRecords: "the answer has no Records"
            case .wrongCount(let count, let sent): "the answer has \(count) results for \(sent) records"
            case .neitherStoredNorRefused: "a result has neither a shard nor an error code"
            }
        }
    }
}

/// A stream by its name or its ARN.
public enum StreamName: Hashable, Sendable, CustomStringConvertible {
    case name(String)
    case arn(String)

    /// The request member that carries it.
    public var member: String {
        switch self {
        case .name: "StreamName"
        case .arn: "StreamARN"
        }
    }

    public var text: String {
        switch self {
        case .name(let text), .arn(let text): text
        }
    }

    public var description: String { text }
}
