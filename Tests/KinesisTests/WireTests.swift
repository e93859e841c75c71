import CBase64
import Bytes
import Kinesis
import Seeded
import Testing

@Suite struct WireTests {
    @Test(arguments: WireFormat.allCases)
    func `a tree reads back as it was written`(format: WireFormat) throws {
        var random = Random()
        for _ in 0..<2000 {
            let value = random.tree(format, depth: 0)
            let bytes = format.encode(value)
            let again = try format.read(bytes.span).owned(by: bytes, as: format)
            #expect(again == value, random.note)
            #expect(format.encode(again) == bytes, random.note)
        }
    }

    @Test(arguments: WireFormat.allCases)
    func `what is cut short, or followed by more, is refused`(format: WireFormat) throws {
        var random = Random()
        for _ in 0..<200 {
            let bytes = format.encode(.list([random.tree(format, depth: 2), .text("end")]))
            for count in bytes.indices {
                #expect(throws: WireFault.self, random.note) { try format.read(Array(bytes[..<count]).span) }
            }
            let more = bytes + [0x30]
            let fault = #expect(throws: WireFault.self) { try format.read(more.span) }
            #expect(fault?.reason == .trailing && fault?.offset == bytes.count, random.note)
        }
    }

    @Test(arguments: [63, 64, 65, 100_000])
    func `nesting is read to 64 levels`(depth: Int) {
        let inputs: [(WireFormat, [UInt8])] = [
            (.json, .init(repeating: 0x5b, count: depth) + .init(repeating: 0x5d, count: depth)),
            (.cbor, .init(repeating: 0x81, count: depth - 1) + [0x80]),
            (.cbor, .init(repeating: 0xc2, count: depth - 1) + [0x00]),
            (.cbor, .init(repeating: 0x9f, count: depth) + .init(repeating: 0xff, count: depth)),
        ]
        for (format, bytes) in inputs {
            if depth <= 64 {
                #expect(throws: Never.self) { try format.read(bytes.span) }
            } else {
                let fault = #expect(throws: WireFault.self) { try format.read(bytes.span) }
                #expect(fault?.reason == .depth && fault?.offset == 64)
            }
        }
    }

    @Test(arguments: WireFormat.allCases)
    func `its content type names a format, with parameters or without`(format: WireFormat) {
        #expect(WireFormat(contentType: format.contentType) == format)
        #expect(WireFormat(contentType: format.contentType.uppercased() + "; charset=utf-8") == format)
        #expect(WireFormat(contentType: "text/html") == nil)
    }

    @Test func `a time is read from either form`() throws {
        let time = WireValue.time(milliseconds: 1_500_000_000_123)
        let cbor = WireFormat.cbor.encode(time)
        #expect(cbor.hex == "c11b0000015d3ef7987b")
        #expect(try WireFormat.cbor.read(cbor.span) == time)
        let json = WireFormat.json.encode(time)
        #expect(json == Array("1500000000.123".utf8))
        #expect(try WireFormat.json.read(json.span).milliseconds == 1_500_000_000_123)
        #expect(WireValue.integer(.max).milliseconds == nil)
        #expect(WireValue.number(.nan).milliseconds == nil)
        #expect(WireFormat.json.encode(.time(milliseconds: -1)) == Array("-0.001".utf8))
    }
}

@Suite struct CBORTests {
    /// RFC 8949, appendix A: those that this reader takes.
    @Test(
        arguments: [
            ("00", .integer(0)), ("01", .integer(1)), ("0a", .integer(10)), ("17", .integer(23)),
            ("1818", .integer(24)),
            ("1819", .integer(25)), ("1864", .integer(100)), ("1903e8", .integer(1000)),
            ("1a000f4240", .integer(1_000_000)),
            ("1b000000e8d4a51000", .integer(1_000_000_000_000)), ("20", .integer(-1)), ("29", .integer(-10)),
            ("3863", .integer(-100)), ("3903e7", .integer(-1000)), ("f90000", .number(0)), ("f98000", .number(-0.0)),
            ("f93c00", .number(1)), ("fb3ff199999999999a", .number(1.1)), ("f93e00", .number(1.5)),
            ("f97bff", .number(65504)), ("fa47c35000", .number(100_000)),
            ("fa7f7fffff", .number(3.4028234663852886e+38)),
            ("fb7e37e43c8800759c", .number(1e300)), ("f90001", .number(5.960464477539063e-8)),
            ("f90400", .number(0.00006103515625)), ("f9c400", .number(-4)), ("fbc010666666666666", .number(-4.1)),
            ("f97c00", .number(.infinity)), ("f9fc00", .number(-.infinity)), ("fa7f800000", .number(.infinity)),
            ("fb7ff0000000000000", .number(.infinity)), ("f4", .bool(false)), ("f5", .bool(true)), ("f6", .null),
            ("f7", .null), ("c11a514b67b0", .time(milliseconds: 1_363_896_240)),
            ("c1fb41d452d9ec200000", .time(milliseconds: 1_363_896_240_500)), ("d74401020304", .data([1, 2, 3, 4])),
            ("40", .data([])), ("4401020304", .data([1, 2, 3, 4])), ("60", .text("")), ("6161", .text("a")),
            ("6449455446", .text("IETF")), ("62225c", .text("\"\\")), ("62c3bc", .text("ü")), ("63e6b0b4", .text("水")),
            ("64f0908591", .text("𐅑")), ("80", .list([])),
            ("83010203", .list([.integer(1), .integer(2), .integer(3)])),
            (
                "8301820203820405",
                .list([.integer(1), .list([.integer(2), .integer(3)]), .list([.integer(4), .integer(5)])])
            ),
            ("a0", .map([])),
            ("a26161016162820203", .map([.init("a", .integer(1)), .init("b", .list([.integer(2), .integer(3)]))])),
            ("5f42010243030405ff", .data([1, 2, 3, 4, 5])), ("7f657374726561646d696e67ff", .text("streaming")),
            ("9fff", .list([])),
            (
                "9f018202039f0405ffff",
                .list([.integer(1), .list([.integer(2), .integer(3)]), .list([.integer(4), .integer(5)])])
            ),
            (
                "bf61610161629f0203ffff",
                .map([.init("a", .integer(1)), .init("b", .list([.integer(2), .integer(3)]))])
            ),
            ("1b7fffffffffffffff", .integer(.max)), ("3b7fffffffffffffff", .integer(.min)),
        ] as [(String, WireValue)]
    )
    func `reads the examples of RFC 8949`(hex: String, value: WireValue) throws {
        let bytes = Array(hex: hex)
        #expect(try WireFormat.cbor.read(bytes.span).owned(by: bytes, as: .cbor) == value)
    }

    @Test(arguments: ["f97e00", "fa7fc00000", "fb7ff8000000000000"])
    func `reads NaN of every width`(hex: String) throws {
        guard case .number(let value) = try WireFormat.cbor.read(Array(hex: hex).span) else {
            Issue.record("no number")
            return
        }
        #expect(value.isNaN)
    }

    /// Lengths of 2^62 and the like: refused before anything is reserved for them.
    @Test(arguments: [
        "", "1c", "1f", "5b7fffffffffffffff00", "5bffffffffffffffff00", "7b7fffffffffffffff61", "9b7fffffffffffffff00",
        "9bffffffffffffffff00", "bb7fffffffffffffff616100", "bbffffffffffffffff616100", "9a0fffffff00",
        "1bffffffffffffffff",
        "3bffffffffffffffff", "61ff", "7f61ffff", "a10000", "a14100", "5f6161ff", "7f4161ff", "5f5f4100ffff", "ff",
        "81ff",
        "a161610061", "bf6161ff", "f8ff", "e0", "f0", "c16161", "c1fb7ff8000000000000", "df00", "1803ff", "fc",
    ])
    func `refuses what is no CBOR, or not ours`(hex: String) {
        #expect(throws: WireFault.self) { try WireFormat.cbor.read(Array(hex: hex).span) }
    }
}

@Suite struct JSONTests {
    @Test(
        arguments: [
            (#""""#, .text("")), (#""\"\\\/\b\f\n\r\t""#, .text("\"\\/\u{8}\u{c}\n\r\t")),
            (#""\u00e9\u65e5""#, .text("é日")),
            (#""\ud83d\ude00""#, .text("😀")), (#""\ud83d""#, .text("\u{fffd}")), (#""\ude00x""#, .text("\u{fffd}x")),
            (#""\ud83d\ud83d\ude00""#, .text("\u{fffd}😀")), (#""\ud83dx""#, .text("\u{fffd}x")),
            (#""\ud83d\n""#, .text("\u{fffd}\n")), (#""\u0000""#, .text("\0")), (#""\\""#, .text("\\")),
            ("0", .integer(0)), ("-0", .integer(0)), ("-1", .integer(-1)), ("9223372036854775807", .integer(.max)),
            ("-9223372036854775808", .integer(.min)), ("9223372036854775808", .number(9223372036854775808)),
            ("1.0", .number(1)), ("1e2", .number(100)), ("1E+2", .number(100)), ("-1.5e-3", .number(-0.0015)),
            (" \t\r\n[ ] \n", .list([])), ("{ }", .map([])),
            (
                " { \"a\" : [ true , false , null ] } ",
                .map([.init("a", .list([.bool(true), .bool(false), .null]))])
            ),
        ] as [(String, WireValue)]
    )
    func `reads JSON`(text: String, value: WireValue) throws {
        #expect(try WireFormat.json.read(Array(text.utf8).span) == value)
    }

    @Test(arguments: [
        "", " ", "tru", "nul", "truex", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "{", "{\"a\"", "{\"a\":", "{\"a\":1",
        "{\"a\":1,", "{\"a\":1,}", "{a:1}", "{1:1}", "{\"a\" 1}", "01", "-", "-01", "+1", ".5", "1.", "1.e5", "1e",
        "1e+", "0x1",
        "1e999", "NaN", "Infinity", "\"", "\"a", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\ud83d\\u12\"",
        "\"\n\"",
        "\"\t\"", "\"\\n\n\"", "'a'", "1 1", "[] []", "\u{feff}1", "\"\\u+123\"", "\u{a0}1",
    ])
    func `refuses what is no JSON`(text: String) {
        #expect(throws: WireFault.self) { try WireFormat.json.read(Array(text.utf8).span) }
    }

    @Test(arguments: [
        [0x22, 0xff, 0x22], [0x22, 0xc3, 0x22], [0x22, 0xed, 0xa0, 0x80, 0x22], [0x22, 0x5c, 0x6e, 0xff, 0x22],
    ])
    func `refuses strings that are not UTF-8`(bytes: [UInt8]) {
        #expect(throws: WireFault.self) { try WireFormat.json.read(bytes.span) }
    }

    @Test func `a long string stays in the input, and is no text when it is not UTF-8`() throws {
        let good = Array("\"\(String(repeating: "é", count: 100))\"".utf8)
        let value = try WireFormat.json.read(good.span)
        #expect(value == .slice(1..<good.count - 1))
        let text = value.text(in: good.span)
        #expect(text == String(repeating: "é", count: 100))
        let bad = [0x22] + [UInt8](repeating: 0xff, count: 100) + [0x22]
        let invalid = try WireFormat.json.read(bad.span).text(in: bad.span)
        #expect(invalid == nil)
    }

    @Test func `a number of any length costs no more than a refusal`() {
        let long = [UInt8](repeating: UInt8(ascii: "9"), count: 1_000_000)
        #expect(throws: WireFault.self) { try WireFormat.json.read(long.span) }
    }
}

@Suite struct Base64Tests {
    static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    /// Bit by bit.
    static func encoded(_ bytes: [UInt8]) -> [UInt8] {
        var out: [UInt8] = []
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = Array(bytes[start..<min(start + 3, bytes.count)])
            let bits = (group + [0, 0])[..<3].reduce(0) { $0 << 8 | Int($1) }
            let digits = [18, 12, 6, 0].map { alphabet[bits >> $0 & 63] }
            out += digits[...group.count] + .init(repeating: UInt8(ascii: "="), count: 3 - group.count)
        }
        return out
    }

    @Test func `writes and reads what the plainest code does`() {
        var random = Random()
        for count in Array(0..<200) + [1 << 16, 3 << 20, (3 << 20) + 1, (6 << 20) - 1] {
            let bytes = random.bytes(count)
            let wanted = Self.encoded(bytes)
            var out = ByteWriter()
            Base64.encode(bytes.span, to: &out)
            let same = out.array == wanted
            #expect(same, random.note)
            #expect(Base64.size(of: count) == wanted.count)
            for way in 0...cbase64_best().rawValue {
                let written = unsafe [UInt8](unsafeUninitializedCapacity: wanted.count) { room, used in
                    // Whole, or in parts.
                    let longest = random.oneIn(2) ? wanted.count : 1 + random.below(200)
                    while used < wanted.count {
                        let size = min(wanted.count - used, random.oneIn(2) ? longest : 1 + random.below(longest))
                        unsafe bytes.withUnsafeBytes {
                            unsafe cbase64_encode_part(
                                .init(rawValue: way),
                                $0.baseAddress,
                                count,
                                used,
                                room.baseAddress! + used,
                                size
                            )
                        }
                        used += size
                    }
                }
                let isSame = written == wanted
                #expect(isSame, "way \(way), \(random.note)")
            }
            let back = Base64.decode(wanted.span) == bytes
            #expect(back, random.note)
        }
    }

    @Test(arguments: [
        "A", "AA", "AAA", "AA=A", "A===", "====", "=", "==", "AAAA=", "AA==AAAA", "AAA=AAAA", "AA A", "AAA\n", "AA-_",
        "AAé",
        "A=AA", "=AAA", "AAAAA", "AAAAA===", "\0\0\0\0",
    ])
    func `refuses what is no base64`(text: String) {
        let bytes = Base64.decode(Array(text.utf8).span)
        #expect(bytes == nil)
    }

    @Test func `one strange character anywhere is refused`() {
        var random = Random()
        let good = Self.encoded(random.bytes(99))
        for index in good.indices {
            for byte in UInt8.min ... .max where !Self.alphabet.contains(byte) && byte != UInt8(ascii: "=") {
                var bad = good
                bad[index] = byte
                if Base64.decode(bad.span) != nil { Issue.record("took \(byte) at \(index)") }
            }
        }
    }
}

extension Random {
    mutating func text() -> String {
        let pieces = ["a", "\"", "\\", "\n", "\u{0}", "\u{1f}", "é", "日", "😀", "/", "\u{7f}", "\u{2028}", " ", "x"]
        return (0..<below(oneIn(10) ? 200 : 8)).map { _ in pieces[below(pieces.count)] }.joined()
    }

    /// Any value that `format` can give back as it was.
    mutating func tree(_ format: WireFormat, depth: Int) -> WireValue {
        switch below(depth > 5 ? 6 : 9) {
        case 0: return .null
        case 1: return .bool(oneIn(2))
        case 2:
            let value = Int64(bitPattern: next()) >> Int64(below(64))
            return .integer([value, .max, .min, 0][oneIn(8) ? below(4) : 0])
        case 3:
            let value = Double(bitPattern: next())
            return .number(value.isFinite ? value : 0.1)
        case 4: return .text(text())
        case 5:
            guard format == .cbor else { return .text(text()) }
            return oneIn(2) ? .data(bytes(below(300))) : .time(milliseconds: Int64(bitPattern: next()))
        case 6, 7: return .list((0..<below(5)).map { _ in tree(format, depth: depth + 1) })
        default: return .map((0..<below(5)).map { _ in .init(text(), tree(format, depth: depth + 1)) })
        }
    }
}
