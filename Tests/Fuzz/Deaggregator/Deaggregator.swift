import Bytes
import Kinesis

/// What is taken apart as an aggregate can be packed again, and comes apart as the same.
///
/// The input is tried as it stands, and as the protobuf of an aggregate whose magic and MD5 are right.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = unsafe Array(UnsafeBufferPointer(start: data, count: count))
    let md5 = MD5()
    let sum = md5.sum(of: input.span)
    check(input, md5)
    check(AggregateWriter.magic + input + sum.indices.map { sum[$0] }, md5)
    return 0
}

func check(_ data: [UInt8], _ md5: borrowing MD5) {
    let deaggregator = Deaggregator()
    guard let records = deaggregator.userRecords(of: data.span), !records.isEmpty else { return }
    var writer = AggregateWriter(maxSize: 1 << 26, pool: BufferPool(mostKept: 0))
    for (index, record) in records.enumerated() {
        _ = record.hashKey(md5)
        guard let key = key(of: record, md5) else { return }
        let run = Run(source: 1, first: UInt64(index), end: UInt64(index + 1))
        let size = writer.size(adding: record.data.count, under: key)
        precondition(writer.append(record.data.span, under: key, from: run, receipt: .now), "no room")
        precondition(writer.size == size, "another size than foretold")
    }
    let sealed = writer.seal()!
    let again = sealed.withData { deaggregator.userRecords(of: $0) }
    if records.count == 1 {
        let plain = sealed.withData { span in span.indices.map { span[$0] } }
        precondition(plain == records[0].data, "one record is sealed as it is")
    } else {
        precondition(again == records, "comes apart differently")
    }
}

/// The key a record would be produced under; nil for a hash key the API does not take.
func key(of record: UserRecord, _ md5: borrowing MD5) -> RecordKey? {
    guard let explicit = record.explicitHashKey else { return RecordKey(partitionKey: record.partitionKey, md5) }
    return HashKey(decimal: String(decoding: explicit, as: UTF8.self)).map {
        RecordKey(partitionKey: record.partitionKey, explicit: $0)
    }
}
