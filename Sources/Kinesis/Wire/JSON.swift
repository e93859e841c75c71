internal import Bytes

/// Reads JSON (RFC 8259).
struct JSONReader {
    private var at = 0

    static func read(_ input: Span<UInt8>) throws(WireFault) -> WireValue {
        var reader = JSONReader()
        let value = try reader.value(input, depth: 0)
        reader.skipSpace(input)
        guard reader.at == input.count else { throw reader.fault(.trailing) }
        return value
    }

    private func fault(_ reason: WireFault.Reason) -> WireFault { WireFault(reason: reason, offset: at) }

    private mutating func skipSpace(_ input: Span<UInt8>) {
        while at < input.count {
            switch input[at] {
            case 0x20, 0x0a, 0x0d, 0x09: at += 1
            default: return
            }
        }
    }

    private func peek(_ input: Span<UInt8>) throws(WireFault) -> UInt8 {
        guard at < input.count else { throw fault(.ended) }
        return input[at]
    }

    /// Whether the next byte that is no space is `byte`; it is taken then.
    private mutating func take(_ byte: Unicode.Scalar, _ input: Span<UInt8>) throws(WireFault) -> Bool {
        skipSpace(input)
        guard try peek(input) == UInt8(ascii: byte) else { return false }
        at += 1
        return true
    }

    private mutating func value(_ input: Span<UInt8>, depth: Int) throws(WireFault) -> WireValue {
        guard depth < WireFault.deepest else { throw fault(.depth) }
        skipSpace(input)
        switch try peek(input) {
        case UInt8(ascii: "{"):
            at += 1
            return try .map(members(input, depth))
        case UInt8(ascii: "["):
            at += 1
            return try .list(values(input, depth))
        case UInt8(ascii: "\""):
            at += 1
            return try string(input)
        case UInt8(ascii: "t"): return try word("true", .bool(true), input)
        case UInt8(ascii: "f"): return try word("false", .bool(false), input)
        case UInt8(ascii: "n"): return try word("null", .null, input)
        default: return try number(input)
        }
    }

    private mutating func members(_ input: Span<UInt8>, _ depth: Int) throws(WireFault) -> [WireValue.Member] {
        var members: [WireValue.Member] = []
        if try take("}", input) { return members }
        while true {
            guard try take("\"", input) else { throw fault(.key) }
            let name = try string(input, slicing: false)
            guard case .text(let name) = name else { throw fault(.key) }
            guard try take(":", input) else { throw fault(.unexpected) }
            members.append(.init(name, try value(input, depth: depth + 1)))
            if try take("}", input) { return members }
            guard try take(",", input) else { throw fault(.unexpected) }
        }
    }

    private mutating func values(_ input: Span<UInt8>, _ depth: Int) throws(WireFault) -> [WireValue] {
        var values: [WireValue] = []
        if try take("]", input) { return values }
        while true {
            values.append(try value(input, depth: depth + 1))
            if try take("]", input) { return values }
            guard try take(",", input) else { throw fault(.unexpected) }
        }
    }

    private mutating func word(
        _ word: StaticString,
        _ value: WireValue,
        _ input: Span<UInt8>
    ) throws(WireFault) -> WireValue {
        let count = word.utf8CodeUnitCount
        guard input.count - at >= count else { throw fault(.ended) }
        for index in 0..<count where unsafe input[at + index] != word.utf8Start[index] { throw fault(.unexpected) }
        at += count
        return value
    }

    /// Bytes above which a string without escapes stays in the input.
    private static let sliced = 64

    /// Reads a string; its opening quote is taken.
    private mutating func string(_ input: Span<UInt8>, slicing: Bool = true) throws(WireFault) -> WireValue {
        let start = at
        guard let quote = input.firstOffset(of: UInt8(ascii: "\""), from: at) else {
            at = input.count
            throw fault(.ended)
        }
        // A backslash before the first quote means escapes, maybe of that quote.
        let plain = input.extracting(start..<quote)
        guard plain.firstOffset(of: UInt8(ascii: "\\")) == nil else { return try .text(escaped(input)) }
        // Without an early end, so that many bytes are compared at once.
        var lowest: UInt8 = 0xff
        for index in plain.indices { lowest = min(lowest, plain[index]) }
        guard lowest >= 0x20 else { throw fault(.unexpected) }
        at = quote + 1
        if slicing, plain.count > Self.sliced { return .slice(start..<quote) }
        let text = unsafe plain.withUnsafeBytes { unsafe String(validating: $0, as: UTF8.self) }
        guard let text else { throw fault(.utf8) }
        return .text(text)
    }

    private mutating func escaped(_ input: Span<UInt8>) throws(WireFault) -> String {
        var bytes: [UInt8] = []
        while true {
            let byte = try peek(input)
            switch byte {
            case UInt8(ascii: "\""):
                at += 1
                guard let text = String(validating: bytes, as: UTF8.self) else { throw fault(.utf8) }
                return text
            case UInt8(ascii: "\\"):
                at += 1
                bytes.append(contentsOf: String(try escape(input)).utf8)
            case 0..<0x20: throw fault(.unexpected)
            default:
                bytes.append(byte)
                at += 1
            }
        }
    }

    private mutating func escape(_ input: Span<UInt8>) throws(WireFault) -> Unicode.Scalar {
        let byte = try peek(input)
        at += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"):
            let first = try hex4(input)
            if let scalar = Unicode.Scalar(first) { return scalar }
            // A surrogate is half a scalar; one without its other half stands for none.
            let rest = input.count - at
            guard (0xd800..<0xdc00).contains(first), rest >= 6, input[at] == UInt8(ascii: "\\"),
                input[at + 1] == UInt8(ascii: "u")
            else { return "\u{fffd}" }
            let back = at
            at += 2
            let second = try hex4(input)
            guard (0xdc00..<0xe000).contains(second) else {
                at = back
                return "\u{fffd}"
            }
            return Unicode.Scalar(0x10000 + (first - 0xd800) << 10 + (second - 0xdc00)) ?? "\u{fffd}"
        default: throw fault(.escape)
        }
    }

    private mutating func hex4(_ input: Span<UInt8>) throws(WireFault) -> UInt32 {
        guard input.count - at >= 4 else { throw fault(.ended) }
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = Character(Unicode.Scalar(input[at])).hexDigitValue else { throw fault(.escape) }
            value = value << 4 | UInt32(digit)
            at += 1
        }
        return value
    }

    private mutating func number(_ input: Span<UInt8>) throws(WireFault) -> WireValue {
        let start = at
        var isInteger = true
        if try peek(input) == UInt8(ascii: "-") { at += 1 }
        let digits = try digits(input)
        // JSON has no leading zeros.
        if digits > 1, input[at - digits] == UInt8(ascii: "0") { throw fault(.unexpected) }
        if at < input.count, input[at] == UInt8(ascii: ".") {
            at += 1
            isInteger = false
            _ = try self.digits(input)
        }
        if at < input.count, input[at] | 0x20 == UInt8(ascii: "e") {
            at += 1
            isInteger = false
            if at < input.count, input[at] == UInt8(ascii: "+") || input[at] == UInt8(ascii: "-") { at += 1 }
            _ = try self.digits(input)
        }
        guard at - start <= 400 else { throw fault(.number) }
        let text = unsafe input.extracting(start..<at).withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
        if isInteger, let value = Int64(text) { return .integer(value) }
        guard let value = Double(text), value.isFinite else { throw fault(.number) }
        return .number(value)
    }

    private mutating func digits(_ input: Span<UInt8>) throws(WireFault) -> Int {
        let start = at
        while at < input.count, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(input[at]) { at += 1 }
        guard at > start else { throw at < input.count ? fault(.unexpected) : fault(.ended) }
        return at - start
    }
}

enum JSONWriter {
    static func write(_ value: WireValue, to out: inout ByteWriter) {
        switch value {
        case .null: out.append("null")
        case .bool(let value): out.append(value ? "true" : "false")
        case .integer(let value): out.append(text: String(value))
        case .number(let value): out.append(text: value.isFinite ? String(value) : "null")
        case .text(let text): self.text(text, to: &out)
        case .data(let bytes):
            out.append("\"")
            Base64.encode(bytes.span, to: &out)
            out.append("\"")
        case .slice: preconditionFailure("a slice belongs to the input it was read from")
        case .time(let milliseconds):
            let fraction = String(milliseconds.magnitude % 1000 + 1000).dropFirst()
            out.append(text: "\(milliseconds < 0 ? "-" : "")\(milliseconds.magnitude / 1000).\(fraction)")
        case .list(let values):
            out.append("[")
            for (index, value) in values.enumerated() {
                if index > 0 { out.append(",") }
                write(value, to: &out)
            }
            out.append("]")
        case .map(let members):
            out.append("{")
            for (index, member) in members.enumerated() {
                if index > 0 { out.append(",") }
                text(member.name, to: &out)
                out.append(":")
                write(member.value, to: &out)
            }
            out.append("}")
        }
    }

    static func text(_ text: String, to out: inout ByteWriter) {
        out.append("\"")
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""): out.append("\\\"")
            case UInt8(ascii: "\\"): out.append("\\\\")
            case 0x0a: out.append("\\n")
            case 0x0d: out.append("\\r")
            case 0x09: out.append("\\t")
            case 0..<0x20:
                out.append("\\u00")
                out.append(text: hexadecimalText([byte].span))
            default: out.append(byte)
            }
        }
        out.append("\"")
    }
}
