public import Bytes
internal import CText

/// Finds one value in a JSON text by its path (RFC 6901), and reads no more of the text than it must.
///
/// Costs about a nanosecond for each byte up to the value; allocates nothing.
public struct JSONPointer: Equatable, Sendable {
    /// As it was written.
    public let text: String
    private let tokens: [[UInt8]]
    private let starts: [Start]

    /// Values nested deeper than this are not searched.
    private static let deepest = 128

    /// A pointer like `/device/id`; nil if the text is none.
    public init?(_ text: String) {
        guard text.hasPrefix("/") else { return nil }
        var tokens: [[UInt8]] = []
        for token in text.utf8.dropFirst().split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false) {
            var (bytes, isEscaped): ([UInt8], Bool) = ([], false)
            for byte in token {
                switch (isEscaped, byte) {
                case (true, UInt8(ascii: "0")): bytes.append(UInt8(ascii: "~"))
                case (true, UInt8(ascii: "1")): bytes.append(UInt8(ascii: "/"))
                case (true, _): return nil
                case (false, UInt8(ascii: "~")): break
                case (false, _): bytes.append(byte)
                }
                isEscaped = !isEscaped && byte == UInt8(ascii: "~")
            }
            guard !isEscaped else { return nil }
            tokens.append(bytes)
        }
        (self.text, self.tokens, starts) = (text, tokens, tokens.map(Start.init))
    }

    /// What of a token is compared at once; no reference, which a copy for each record would count.
    private struct Start: Equatable {
        /// Bytes of the token.
        let count: Int
        /// The first sixteen of them, and a bit for each.
        let block: SIMD16<UInt8>
        let bits: UInt32

        init(_ bytes: [UInt8]) {
            count = bytes.count
            var (block, bits) = (SIMD16<UInt8>(repeating: 0), 0 as UInt32)
            for (index, byte) in bytes.prefix(16).enumerated() {
                block[index] = byte
                bits |= 1 << UInt32(index)
            }
            (self.block, self.bits) = (block, bits)
        }
    }

    /// Where the value lies.
    enum Value: Equatable {
        /// Its bytes stand in the text as they are.
        case plain(Range<Int>)
        /// A string with escapes, whose first byte is at this offset.
        case escaped(Int)
    }

    /// Appends the value to `out`: a string's characters, or a number, `true` or `false` as it is written.
    ///
    /// - Parameter most: bytes of the value at most; what is longer is cut there.
    /// - Returns: false if there is no such value, if it is null, an empty string, an object or an array, or if the text
    ///   before it is no JSON; `out` is then as it was.
    public func read(_ text: Span<UInt8>, into out: inout ByteWriter, most: Int) -> Bool {
        switch find(in: text, most: most) {
        case nil: return false
        case .plain(let range):
            out.append(text.extracting(range))
            return true
        case .escaped(let start): return Self.decode(text, from: start, into: &out, most: most)
        }
    }

    /// Finds the value, as `read` does; a plain one has at most `most` bytes then, and at least one.
    func find(in text: Span<UInt8>, most: Int) -> Value? {
        var at = 0
        let tokens = tokens.span
        for index in tokens.indices {
            Self.skipSpace(text, &at)
            guard at < text.count else { return nil }
            switch text[at] {
            case UInt8(ascii: "{"): guard enter(index, ofObject: text, &at) else { return nil }
            case UInt8(ascii: "["): guard Self.enter(tokens[index].span, ofArray: text, &at) else { return nil }
            default: return nil
            }
        }
        Self.skipSpace(text, &at)
        guard at < text.count else { return nil }
        let start = at
        switch text[at] {
        case UInt8(ascii: "\""):
            at = Self.stop(text, at + 1)
            // The rest of a long one need not be read.
            if at - start - 1 > most + 4 { return .plain(Self.cut(text, start + 1, most)) }
            guard at < text.count else { return nil }
            if text[at] == UInt8(ascii: "\\") { return .escaped(start + 1) }
            return at == start + 1 ? nil : .plain(Self.cut(text, start + 1, min(most, at - start - 1)))
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "t"), UInt8(ascii: "f"):
            guard Self.skipWord(text, &at) else { return nil }
            return .plain(start..<min(at, start + most))
        default: return nil
        }
    }

    /// Appends a string with escapes; false if it is none, or empty, and `out` is then as it was.
    static func decode(_ text: Span<UInt8>, from start: Int, into out: inout ByteWriter, most: Int) -> Bool {
        let before = out.count
        var at = start
        if string(text, &at, into: &out, most: most), out.count > before { return true }
        out.truncate(to: before)
        return false
    }

    // MARK: going down

    /// Moves to the value of the member that the token with this index names.
    private func enter(_ token: Int, ofObject text: Span<UInt8>, _ at: inout Int) -> Bool {
        let start = starts[token]
        at += 1
        while true {
            Self.skipSpace(text, &at)
            guard Self.take(UInt8(ascii: "\""), text, &at) else { return false }
            guard let isSame = matches(token, start, text, &at) else { return false }
            Self.skipSpace(text, &at)
            guard Self.take(UInt8(ascii: ":"), text, &at) else { return false }
            if isSame { return true }
            guard Self.skipValue(text, &at) else { return false }
            Self.skipSpace(text, &at)
            guard Self.take(UInt8(ascii: ","), text, &at) else { return false }
        }
    }

    /// Moves to the element with the index that `token` names.
    private static func enter(_ token: Span<UInt8>, ofArray text: Span<UInt8>, _ at: inout Int) -> Bool {
        guard !token.isEmpty, token.count < 10, token.count == 1 || token[0] != UInt8(ascii: "0"),
            token.indices.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(token[$0]) })
        else { return false }
        var left = token.indices.reduce(0) { $0 * 10 + Int(token[$1] - UInt8(ascii: "0")) }
        at += 1
        while left > 0 {
            guard skipValue(text, &at) else { return false }
            skipSpace(text, &at)
            guard take(UInt8(ascii: ","), text, &at) else { return false }
            left -= 1
        }
        return true
    }

    // MARK: reading

    @inline(__always)
    private static func skipSpace(_ text: Span<UInt8>, _ at: inout Int) {
        // Machines write none.
        guard at < text.count, text[at] <= 0x20 else { return }
        while at < text.count, text[at] == 0x20 || (0x09...0x0d).contains(text[at]) { at += 1 }
    }

    private static func take(_ byte: UInt8, _ text: Span<UInt8>, _ at: inout Int) -> Bool {
        guard at < text.count, text[at] == byte else { return false }
        at += 1
        return true
    }

    /// Whether the string that begins at `at` is the token; nil if it does not end.
    @inline(__always)
    private func matches(_ token: Int, _ start: Start, _ text: Span<UInt8>, _ at: inout Int) -> Bool? {
        if let block = Self.block(text, at) {
            let stops = ctext_either(block, UInt8(ascii: "\""), UInt8(ascii: "\\"))
            let size = stops.trailingZeroBitCount
            if stops != 0, text[at + size] == UInt8(ascii: "\"") {
                at += size + 1
                return size == start.count && ctext_equal(block, start.block) & start.bits == start.bits
            }
        }
        let tokens = tokens.span
        return Self.matches(tokens[token].span, text, &at)
    }

    /// The same of any name.
    private static func matches(_ name: Span<UInt8>, _ text: Span<UInt8>, _ at: inout Int) -> Bool? {
        let start = at
        guard skipString(text, &at) else { return nil }
        let size = at - 1 - start
        if size == name.count {
            for index in 0..<size where text[start + index] != name[index] { return false }
            for index in name.indices where name[index] == UInt8(ascii: "\\") { return false }
            return true
        }
        // Escapes make it longer, and are rare in names.
        guard size > name.count else { return false }
        for index in start..<at - 1 where text[index] == UInt8(ascii: "\\") {
            var from = start
            var decoded = ByteWriter(capacity: size)
            guard string(text, &from, into: &decoded, most: size) else { return false }
            return decoded.withBytes { decoded in
                decoded.count == name.count && decoded.indices.allSatisfy { decoded[$0] == name[$0] }
            }
        }
        return false
    }

    /// Moves behind the string that begins at `at`.
    private static func skipString(_ text: Span<UInt8>, _ at: inout Int) -> Bool {
        while true {
            at = stop(text, at)
            guard at < text.count else { return false }
            at += 1
            if text[at - 1] == UInt8(ascii: "\"") { return true }
            at += 1
        }
    }

    /// Where the next quote or backslash stands, or the end.
    @inline(__always)
    private static func stop(_ text: Span<UInt8>, _ start: Int) -> Int {
        var at = start
        // Names and values of machines end within the first block, or few.
        while let block = block(text, at) {
            let bits = ctext_either(block, UInt8(ascii: "\""), UInt8(ascii: "\\"))
            if bits != 0 { return at + bits.trailingZeroBitCount }
            at += 16
        }
        while at < text.count, text[at] != UInt8(ascii: "\""), text[at] != UInt8(ascii: "\\") { at += 1 }
        return at
    }

    /// Sixteen bytes; nil if fewer are left.
    @inline(__always)
    private static func block(_ text: Span<UInt8>, _ at: Int) -> SIMD16<UInt8>? {
        guard at + 16 <= text.count else { return nil }
        return unsafe text.withUnsafeBytes {
            unsafe $0.loadUnaligned(fromByteOffset: at, as: SIMD16<UInt8>.self)
        }
    }

    private static func skipWord(_ text: Span<UInt8>, _ at: inout Int) -> Bool {
        let start = at
        while at < text.count {
            switch text[at] {
            case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "E"),
                UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "."):
                at += 1
            default: return at > start
            }
        }
        return at > start
    }

    private static func skipValue(_ text: Span<UInt8>, _ at: inout Int) -> Bool {
        skipSpace(text, &at)
        guard at < text.count else { return false }
        switch text[at] {
        case UInt8(ascii: "\""):
            at += 1
            return skipString(text, &at)
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            var depth = 0
            while at < text.count {
                switch text[at] {
                case UInt8(ascii: "\""):
                    at += 1
                    guard skipString(text, &at) else { return false }
                    continue
                case UInt8(ascii: "{"), UInt8(ascii: "["):
                    depth += 1
                    guard depth <= deepest else { return false }
                case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
                default: break
                }
                at += 1
                if depth == 0 { return true }
            }
            return false
        default: return skipWord(text, &at)
        }
    }

    /// Reads the string that begins at `at`, without its escapes.
    private static func string(_ text: Span<UInt8>, _ at: inout Int, into out: inout ByteWriter, most: Int) -> Bool {
        let start = out.count
        while true {
            let plain = at
            // The rest of a long one need not be read.
            let enough = min(text.count, at + most + 5 - (out.count - start))
            while at < enough, text[at] != UInt8(ascii: "\""), text[at] != UInt8(ascii: "\\") { at += 1 }
            out.append(text.extracting(plain..<at))
            if out.count - start > most + 4 { return cut(&out, start + most) }
            guard at < text.count else { return false }
            at += 1
            if text[at - 1] == UInt8(ascii: "\"") { return cut(&out, start + most) }
            guard at < text.count else { return false }
            let escape = text[at]
            at += 1
            switch escape {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): out.append(escape)
            case UInt8(ascii: "b"): out.append(8)
            case UInt8(ascii: "f"): out.append(12)
            case UInt8(ascii: "n"): out.append(10)
            case UInt8(ascii: "r"): out.append(13)
            case UInt8(ascii: "t"): out.append(9)
            case UInt8(ascii: "u"):
                guard let scalar = scalar(text, &at) else { return false }
                for byte in UTF8.encode(scalar)! { out.append(byte) }
            default: return false
            }
        }
        return false
    }

    /// Cuts what goes past `limit`, between characters.
    private static func cut(_ out: inout ByteWriter, _ limit: Int) -> Bool {
        guard out.count > limit else { return true }
        out.truncate(to: out.withBytes { cut($0, 0, limit).upperBound })
        return true
    }

    /// At most so many bytes from `start` on, whole characters.
    private static func cut(_ text: Span<UInt8>, _ start: Int, _ most: Int) -> Range<Int> {
        var end = start + most
        while end > start, end > start + most - 4, text[end] & 0xc0 == 0x80 { end -= 1 }
        return start..<end
    }

    /// The character behind `\u`; half a pair is U+FFFD.
    private static func scalar(_ text: Span<UInt8>, _ at: inout Int) -> Unicode.Scalar? {
        guard let first = hex4(text, &at) else { return nil }
        guard (0xd800...0xdbff).contains(first) else { return Unicode.Scalar(first) ?? "\u{fffd}" }
        guard at + 1 < text.count, text[at] == UInt8(ascii: "\\"), text[at + 1] == UInt8(ascii: "u") else {
            return "\u{fffd}"
        }
        var next = at + 2
        guard let second = hex4(text, &next), (0xdc00...0xdfff).contains(second) else { return "\u{fffd}" }
        at = next
        return Unicode.Scalar(0x10000 + (first - 0xd800) << 10 + (second - 0xdc00))
    }

    private static func hex4(_ text: Span<UInt8>, _ at: inout Int) -> UInt32? {
        guard at + 4 <= text.count else { return nil }
        var value: UInt32 = 0
        for index in at..<at + 4 {
            guard let digit = Character(Unicode.Scalar(text[index])).hexDigitValue else { return nil }
            value = value << 4 | UInt32(digit)
        }
        at += 4
        return value
    }
}
