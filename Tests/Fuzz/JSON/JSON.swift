import Bytes
import Kinesis

/// What is read as JSON can be written, and reads as the same again, by way of CBOR too; any bytes survive base64.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = unsafe Array(UnsafeBufferPointer(start: data, count: count))
    checkBase64(input)
    for sent in [0, 1, 2] { _ = try? PutRecords.results(input.span, as: .json, for: sent) }
    _ = ServiceError(status: 400, errorType: nil, body: input.span, format: nil)
    let text = String(decoding: input, as: UTF8.self)
    _ = ServiceError(status: 400, errorType: text, body: input.span, format: .cbor)
    if let time = CivilTime(httpDate: text) {
        precondition(CivilTime(httpDate: time.httpDate) == time, "another time: \(time)")
    }
    // Long strings are not validated before they are asked for.
    guard let value = try? WireFormat.json.read(input.span), let value = owned(value, input) else { return 0 }
    let written = WireFormat.json.encode(value)
    guard let again = try? WireFormat.json.read(written.span) else { preconditionFailure("unreadable: \(value)") }
    precondition(owned(again, written) == value, "read differently: \(value)")
    let cbor = WireFormat.cbor.encode(value)
    precondition((try? WireFormat.cbor.read(cbor.span)) == value, "CBOR reads differently: \(value)")
    return 0
}

func checkBase64(_ input: [UInt8]) {
    if let bytes = Base64.decode(input.span) {
        precondition(Base64.size(of: bytes.count) == input.count)
        precondition(decoded(bytes) == bytes, "base64 of decoded bytes")
    }
    precondition(decoded(input) == input, "base64 of the input")
}

func decoded(_ bytes: [UInt8]) -> [UInt8]? {
    var out = ByteWriter()
    Base64.encode(bytes.span, to: &out)
    return Base64.decode(out.array.span)
}

/// `value` with its slices copied out of `input`; nil when one is not UTF-8.
func owned(_ value: WireValue, _ input: [UInt8]) -> WireValue? {
    switch value {
    case .slice:
        return value.text(in: input.span).map { .text($0) }
    case .list(let values):
        let values = values.map { owned($0, input) }
        return values.contains(nil) ? nil : .list(values.compactMap { $0 })
    case .map(let members):
        let values = members.map { owned($0.value, input) }
        return values.contains(nil) ? nil : .map(zip(members, values).map { .init($0.name, $1!) })
    case .null, .bool, .integer, .number, .text, .data, .time:
        return value
    }
}
