internal import Bytes

/// Reads CBOR (RFC 8949) as AWS SDKs write it: definite and indefinite lengths, all widths, tags, of which 1 is a time.
struct CBORReader {
    private var at = 0

    static func read(_ input: Span<UInt8>) throws(WireFault) -> WireValue {
        var reader = CBORReader()
        let value = try reader.value(input, depth: 0)
        guard reader.at == input.count else { throw reader.fault(.trailing) }
        return value
    }

    private func fault(_ reason: WireFault.Reason) -> WireFault { WireFault(reason: reason, offset: at) }

    private enum Major: UInt8 { case unsigned, negative, bytes, text, array, map, tag, simple }

    /// Length `nil`: indefinite.
    private mutating func head(_ input: Span<UInt8>) throws(WireFault) -> (major: Major, info: UInt8, argument: UInt64?)
    {
        guard at < input.count else { throw fault(.ended) }
        let first = input[at]
        let (major, info) = (Major(rawValue: first >> 5)!, first & 31)
        switch info {
        case 0..<24:
            at += 1
            return (major, info, UInt64(info))
        case 24...27:
            let width = 1 << Int(info - 24)
            guard input.count - at > width else { throw fault(.ended) }
            var argument: UInt64 = 0
            for offset in 1...width { argument = argument << 8 | UInt64(input[at + offset]) }
            at += 1 + width
            return (major, info, argument)
        case 31:
            at += 1
            return (major, info, nil)
        default: throw fault(.unexpected)
        }
    }

    private mutating func value(_ input: Span<UInt8>, depth: Int) throws(WireFault) -> WireValue {
        guard depth < WireFault.deepest else { throw fault(.depth) }
        let start = at
        let (major, info, argument) = try head(input)
        switch major {
        case .unsigned:
            guard let argument, let value = Int64(exactly: argument) else { throw fault(.number) }
            return .integer(value)
        case .negative:
            guard let argument, let value = Int64(exactly: argument) else { throw fault(.number) }
            return .integer(-1 - value)
        case .bytes:
            guard let argument else { return try .data(chunks(input, of: .bytes)) }
            return try .slice(take(argument, of: input))
        case .text:
            guard let argument else {
                let bytes = try chunks(input, of: .text)
                guard let text = String(validating: bytes, as: UTF8.self) else { throw fault(.utf8) }
                return .text(text)
            }
            return try .text(text(argument, input))
        case .array: return try .list(list(argument, input, depth))
        case .map: return try .map(map(argument, input, depth))
        case .tag:
            guard let tag = argument else { throw fault(.unexpected) }
            let inner = try value(input, depth: depth + 1)
            guard tag == 1 else { return inner }
            // The SDKs write integer milliseconds; RFC 8949 says seconds, and a fraction can be nothing else.
            switch inner {
            case .integer(let milliseconds): return .time(milliseconds: milliseconds)
            case .number(let seconds):
                guard let milliseconds = Int64(exactly: (seconds * 1000).rounded()) else { throw fault(.number) }
                return .time(milliseconds: milliseconds)
            case .null, .bool, .text, .slice, .data, .time, .list, .map: throw fault(.unexpected)
            }
        case .simple:
            switch info {
            case 20: return .bool(false)
            case 21: return .bool(true)
            case 22, 23: return .null
            case 25: return .number(Self.half(UInt16(argument!)))
            case 26: return .number(Double(Float(bitPattern: UInt32(argument!))))
            case 27: return .number(Double(bitPattern: argument!))
            default:
                at = start
                throw fault(.unexpected)
            }
        }
    }

    private mutating func take(_ count: UInt64, of input: Span<UInt8>) throws(WireFault) -> Range<Int> {
        guard count <= UInt64(input.count - at) else { throw fault(.ended) }
        defer { at += Int(count) }
        return at..<at + Int(count)
    }

    private mutating func text(_ count: UInt64, _ input: Span<UInt8>) throws(WireFault) -> String {
        let range = try take(count, of: input)
        let text = unsafe input.extracting(range).withUnsafeBytes { unsafe String(validating: $0, as: UTF8.self) }
        guard let text else { throw fault(.utf8) }
        return text
    }

    private mutating func isBreak(_ input: Span<UInt8>) throws(WireFault) -> Bool {
        guard at < input.count else { throw fault(.ended) }
        guard input[at] == 0xff else { return false }
        at += 1
        return true
    }

    private mutating func chunks(_ input: Span<UInt8>, of kind: Major) throws(WireFault) -> [UInt8] {
        var bytes: [UInt8] = []
        while try !isBreak(input) {
            let (major, _, argument) = try head(input)
            guard major == kind, let argument else { throw fault(.unexpected) }
            let range = try take(argument, of: input)
            for index in range { bytes.append(input[index]) }
        }
        return bytes
    }

    private mutating func list(_ count: UInt64?, _ input: Span<UInt8>, _ depth: Int) throws(WireFault) -> [WireValue] {
        var values: [WireValue] = []
        if let count {
            // Every value takes a byte at least: no length can make us reserve more than the input has.
            guard count <= UInt64(input.count - at) else { throw fault(.ended) }
            for _ in 0..<count { values.append(try value(input, depth: depth + 1)) }
        } else {
            while try !isBreak(input) { values.append(try value(input, depth: depth + 1)) }
        }
        return values
    }

    private mutating func map(
        _ count: UInt64?,
        _ input: Span<UInt8>,
        _ depth: Int
    ) throws(WireFault) -> [WireValue.Member] {
        var members: [WireValue.Member] = []
        if let count, count > UInt64(input.count - at) / 2 { throw fault(.ended) }
        while true {
            if let count {
                if members.count == count { return members }
            } else if try isBreak(input) {
                return members
            }
            guard case .text(let name) = try value(input, depth: depth + 1) else { throw fault(.key) }
            members.append(.init(name, try value(input, depth: depth + 1)))
        }
    }

    private static func half(_ bits: UInt16) -> Double {
        let (exponent, fraction) = (Int(bits >> 10 & 31), Double(bits & 1023))
        let magnitude: Double =
            switch exponent {
            case 0: fraction * 0x1p-24
            case 31: fraction == 0 ? .infinity : .nan
            default: (1024 + fraction) * Double(sign: .plus, exponent: exponent - 25, significand: 1)
            }
        return bits >> 15 == 0 ? magnitude : -magnitude
    }
}

/// Writes CBOR with definite lengths.
enum CBORWriter {
    static func write(_ value: WireValue, to out: inout ByteWriter) {
        switch value {
        case .null: out.append(0xf6)
        case .bool(let value): out.append(value ? 0xf5 : 0xf4)
        case .integer(let value):
            value >= 0 ? head(0, UInt64(value), to: &out) : head(1, UInt64(-1 - value), to: &out)
        case .number(let value):
            out.append(0xfb)
            for shift in stride(from: 56, through: 0, by: -8) {
                out.append(UInt8(truncatingIfNeeded: value.bitPattern >> UInt64(shift)))
            }
        case .text(let text): self.text(text, to: &out)
        case .data(let bytes):
            head(2, UInt64(bytes.count), to: &out)
            out.append(bytes.span)
        case .slice: preconditionFailure("a slice belongs to the input it was read from")
        case .time(let milliseconds):
            out.append(0xc1)
            write(.integer(milliseconds), to: &out)
        case .list(let values):
            head(4, UInt64(values.count), to: &out)
            for value in values { write(value, to: &out) }
        case .map(let members):
            head(5, UInt64(members.count), to: &out)
            for member in members {
                text(member.name, to: &out)
                write(member.value, to: &out)
            }
        }
    }

    static func text(_ text: String, to out: inout ByteWriter) {
        head(3, UInt64(text.utf8.count), to: &out)
        out.append(text: text)
    }

    /// Writes a head of `major` with the shortest form of `argument`.
    static func head(_ major: UInt8, _ argument: UInt64, to out: inout ByteWriter) {
        let (info, width): (UInt8, Int) =
            switch argument {
            case 0..<24: (UInt8(argument), 0)
            case ..<0x100: (24, 1)
            case ..<0x1_0000: (25, 2)
            case ..<0x1_0000_0000: (26, 4)
            default: (27, 8)
            }
        out.append(major << 5 | info)
        for byte in 0..<width {
            out.append(UInt8(truncatingIfNeeded: argument >> UInt64((width - 1 - byte) * 8)))
        }
    }
}
