import CBaseline
import CText
import Seeded
import Testing

@Suite struct PlainTextTests {
    /// Plain text with few bytes among it that a JSON string does not hold as they are.
    private static func text(_ random: inout Random) -> [UInt8] {
        var text = (0..<random.below(400)).map { _ in UInt8(ascii: " ") + UInt8(random.below(95)) }
        for at in text.indices where "\"\\".utf8.contains(text[at]) && !random.oneIn(50) {
            text[at] = UInt8(ascii: "x")
        }
        if !text.isEmpty, random.oneIn(2) { text[random.below(text.count)] = UInt8(random.below(256)) }
        return text
    }

    private static func copy(
        _ text: [UInt8],
        by copy: (UnsafeMutableRawPointer?, UnsafeRawPointer?, Int) -> Int
    ) -> [UInt8] {
        var out = [UInt8](repeating: 0, count: text.count)
        let count = unsafe out.withUnsafeMutableBytes { out in
            unsafe text.withUnsafeBytes { unsafe copy(out.baseAddress, $0.baseAddress, $0.count) }
        }
        return Array(out.prefix(count))
    }

    @Test func `plain text is copied up to the same byte, whatever instructions the processor has`() {
        defer { cbaseline_show() }
        var random = Random()
        for _ in 0..<5000 {
            let text = Self.text(&random)
            let plain = Array(
                text.prefix { $0 >= 0x20 && $0 < 0x80 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }
            )
            cbaseline_show()
            #expect(unsafe Self.copy(text, by: ctext_copy_plain) == plain, random.note)
            // Other tests run meanwhile: whatever they take gives the same.
            cbaseline_hide()
            #expect(unsafe Self.copy(text, by: ctext_copy_plain) == plain, random.note)
            #expect(unsafe Self.copy(text, by: ctext_copy_plain_portable) == plain, random.note)
        }
    }
}
