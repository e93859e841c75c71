internal import Bytes
internal import CText

/// RFC 5424's structured data: `[id name="value" …][id …]`.
enum StructuredData {
    /// More elements and parameters than this are taken for text: each is compared with those before it.
    static let mostParameters = 128

    /// A parameter, or an element without any (then `name` is empty).
    struct Parameter {
        var element: SyslogMessage.Part
        var name: SyslogMessage.Part
        /// With its escapes.
        var value: SyslogMessage.Part
    }

    /// Where the structured data that begins at `start` ends; nil if it is not well-formed.
    static func end(_ bytes: Span<UInt8>, _ start: Int) -> Int? {
        var seen = 0
        let end = parse(bytes, start) { _ in seen += 1 }
        guard let end, seen <= mostParameters else { return nil }
        return SyslogReader.endsField(bytes, end) ? end : nil
    }

    /// Gives each parameter, and each element that has none, to `body`.
    @inline(__always)
    static func parse(_ bytes: Span<UInt8>, _ start: Int, _ body: (Parameter) -> Void) -> Int? {
        var at = start
        while at < bytes.count, bytes[at] == UInt8(ascii: "[") {
            guard let element = name(bytes, at + 1) else { return nil }
            at = element.range.upperBound
            var isEmpty = true
            while true {
                guard at < bytes.count else { return nil }
                if bytes[at] == UInt8(ascii: "]") { break }
                guard bytes[at] == UInt8(ascii: " ") else { return nil }
                while at < bytes.count, bytes[at] == UInt8(ascii: " ") { at += 1 }
                if at < bytes.count, bytes[at] == UInt8(ascii: "]") { break }
                guard let name = name(bytes, at) else { return nil }
                at = name.range.upperBound
                guard bytes.word(at: at) & 0xffff == 0x223d, let end = valueEnd(bytes, at + 2) else { return nil }
                body(Parameter(element: element, name: name, value: .init(at + 2, end)))
                isEmpty = false
                at = end + 1
            }
            if isEmpty { body(Parameter(element: element, name: .init(), value: .init())) }
            at += 1
        }
        return at
    }

    /// SD-NAME: printable ASCII without `=`, `]` and `"`.
    @inline(__always)
    private static func name(_ bytes: Span<UInt8>, _ start: Int) -> SyslogMessage.Part? {
        var at = start
        loop: while at < bytes.count {
            switch bytes[at] {
            case UInt8(ascii: "="), UInt8(ascii: "]"), UInt8(ascii: "\""), ...0x20, 0x7f...: break loop
            default: at += 1
            }
        }
        return at > start && at - start <= SyslogReader.longestField ? .init(start, at) : nil
    }

    /// The quote that ends a value.
    @inline(__always)
    private static func valueEnd(_ bytes: Span<UInt8>, _ start: Int) -> Int? {
        var at = start
        while at < bytes.count {
            let stops = ctext_either(bytes.block(at: at), UInt8(ascii: "\""), UInt8(ascii: "\\"))
            guard stops != 0 else {
                at += 16
                continue
            }
            at += stops.trailingZeroBitCount
            if bytes[at] == UInt8(ascii: "\"") { return at }
            at += 2
        }
        return nil
    }
}
