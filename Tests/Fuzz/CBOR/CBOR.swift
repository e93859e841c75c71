import Bytes
import Kinesis

/// What is read as CBOR can be written, and reads as the same again; answers and errors made of it do not trap.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = unsafe Array(UnsafeBufferPointer(start: data, count: count))
    for sent in [0, 1, 2] { _ = try? PutRecords.results(input.span, as: .cbor, for: sent) }
    _ = ServiceError(status: 400, errorType: nil, body: input.span, format: .cbor)
    guard let value = try? WireFormat.cbor.read(input.span) else { return 0 }
    let written = WireFormat.cbor.encode(owned(value, input))
    guard let again = try? WireFormat.cbor.read(written.span) else { preconditionFailure("unreadable: \(value)") }
    // Bytes are compared, not values: NaN is not equal to itself.
    precondition(WireFormat.cbor.encode(owned(again, written)) == written, "read differently: \(value)")
    _ = WireFormat.json.encode(owned(value, input))
    _ = (value.milliseconds, value.integer, value["Records"]?.text(in: input.span))
    return 0
}

/// `value` with its slices copied out of `input`.
func owned(_ value: WireValue, _ input: [UInt8]) -> WireValue {
    switch value {
    case .slice(let range): .data(Array(input[range]))
    case .list(let values): .list(values.map { owned($0, input) })
    case .map(let members): .map(members.map { .init($0.name, owned($0.value, input)) })
    case .null, .bool, .integer, .number, .text, .data, .time: value
    }
}
