public import Bytes

/// The two forms in which Kinesis speaks: the same values, with bytes and times written differently.
public enum WireFormat: String, Sendable, CaseIterable {
    /// `application/x-amz-cbor-1.1`: bytes as they are, times as tagged milliseconds.
    case cbor
    /// `application/x-amz-json-1.1`: bytes in base64, times as seconds with a fraction.
    case json

    public var contentType: String {
        switch self {
        case .cbor: "application/x-amz-cbor-1.1"
        case .json: "application/x-amz-json-1.1"
        }
    }

    /// The format a Content-Type names, with or without parameters.
    public init?(contentType: String) {
        let name = contentType.prefix { $0 != ";" && $0 != " " }.lowercased()
        guard let format = Self.allCases.first(where: { $0.contentType == name }) else { return nil }
        self = format
    }

    /// Reads one value that fills `input`.
    public func read(_ input: Span<UInt8>) throws(WireFault) -> WireValue {
        switch self {
        case .cbor: try CBORReader.read(input)
        case .json: try JSONReader.read(input)
        }
    }

    /// Appends `value`.
    public func write(_ value: WireValue, to out: inout ByteWriter) {
        switch self {
        case .cbor: CBORWriter.write(value, to: &out)
        case .json: JSONWriter.write(value, to: &out)
        }
    }

    /// `value` in this form.
    public func encode(_ value: WireValue) -> [UInt8] {
        var out = ByteWriter()
        write(value, to: &out)
        return out.array
    }
}

/// A request or an answer as a tree, whichever form it came in.
public enum WireValue: Equatable, Sendable {
    case null
    case bool(Bool)
    case integer(Int64)
    case number(Double)
    case text(String)
    /// Read: bytes of the input at this range, which are not copied: a CBOR byte string, or a long JSON string without
    /// escapes. `text(in:)` and `data(in:)` give what it means.
    case slice(Range<Int>)
    /// Written: bytes.
    case data([UInt8])
    /// A time, in milliseconds since 1970.
    case time(milliseconds: Int64)
    case list([WireValue])
    case map([Member])

    public struct Member: Equatable, Sendable {
        public var name: String
        public var value: WireValue

        public init(_ name: String, _ value: WireValue) { (self.name, self.value) = (name, value) }
    }

    /// A map of the members whose values are not nil.
    public static func object(_ members: KeyValuePairs<String, WireValue?>) -> WireValue {
        .map(members.compactMap { name, value in value.map { Member(name, $0) } })
    }

    /// The value of a map's member; nil where there is none, or it is null.
    public subscript(name: String) -> WireValue? {
        guard case .map(let members) = self, let member = members.first(where: { $0.name == name }) else { return nil }
        return member.value == .null ? nil : member.value
    }

    /// The text of a string; nil for anything else, and for bytes that are no UTF-8.
    ///
    /// - Parameter input: what the value was read from.
    public func text(in input: Span<UInt8>) -> String? {
        switch self {
        case .text(let text): text
        case .slice(let range):
            unsafe input.extracting(range).withUnsafeBytes { unsafe String(validating: $0, as: UTF8.self) }
        case .null, .bool, .integer, .number, .data, .time, .list, .map: nil
        }
    }

    /// The bytes of record data: a byte string in CBOR, base64 in JSON; nil for anything else.
    ///
    /// - Parameter input: what the value was read from.
    public func data(in input: Span<UInt8>, as format: WireFormat) -> [UInt8]? {
        switch (self, format) {
        case (.data(let bytes), .cbor): bytes
        case (.slice(let range), .cbor): unsafe input.extracting(range).withUnsafeBufferPointer { unsafe Array($0) }
        case (.slice(let range), .json): Base64.decode(input.extracting(range))
        case (.text(let text), .json): Base64.decode(Array(text.utf8).span)
        case (.null, _), (.bool, _), (.integer, _), (.number, _), (.time, _), (.list, _), (.map, _), (.text, .cbor),
            (.data, .json):
            nil
        }
    }

    /// The integer of a number that has no fraction.
    public var integer: Int64? {
        switch self {
        case .integer(let value): value
        case .number(let value): Int64(exactly: value)
        case .null, .bool, .text, .slice, .data, .time, .list, .map: nil
        }
    }

    /// The value of any number.
    public var number: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        case .null, .bool, .text, .slice, .data, .time, .list, .map: nil
        }
    }

    public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }

    public var list: [WireValue]? { if case .list(let values) = self { values } else { nil } }

    public var members: [Member]? { if case .map(let members) = self { members } else { nil } }

    /// A time in milliseconds since 1970: CBOR's tag, or JSON's seconds.
    public var milliseconds: Int64? {
        switch self {
        case .time(let milliseconds): milliseconds
        case .integer(let seconds):
            seconds.multipliedReportingOverflow(by: 1000).overflow ? nil : seconds * 1000
        case .number(let seconds): Int64(exactly: (seconds * 1000).rounded())
        case .null, .bool, .text, .slice, .data, .list, .map: nil
        }
    }
}

/// What made an input unreadable, and where.
public struct WireFault: Error, Equatable, CustomStringConvertible {
    public var reason: Reason
    /// Bytes into the input.
    public var offset: Int

    public enum Reason: String, Sendable {
        case ended = "it ends in the middle of a value"
        case unexpected = "unexpected byte"
        case trailing = "something follows the value"
        case depth = "nested deeper than 64 levels"
        case number = "a number out of range"
        case utf8 = "a string that is not UTF-8"
        case escape = "an escape that does not exist"
        case base64 = "data that is not base64"
        case key = "a key that is no string"
    }

    public var description: String { "\(reason.rawValue), at byte \(offset)" }

    /// Levels of nesting that are read; the API uses four.
    static let deepest = 64
}
