import Platform
import Testing

@Suite struct ExpressionTests {
    /// Debian 12's PCRE2 misses some of these in machine code.
    @Test(arguments: [
        #"^\S"#, #"^\W"#, #"^\D"#, #"^\S+l"#, #"^x?\S"#, #"^(?:\S)"#, #"^[\S]"#, #"^[^\s]"#, "^.", #"^\H"#, #"^\P{Nd}"#,
        #"^\X"#,
    ])
    func `what no letter of ASCII is, is found beyond ASCII`(_ pattern: String) throws {
        let expression = try Expression(pattern)
        for text in ["Élan", "€l", "😀l"] {
            #expect(expression.find(in: Array(text.utf8).span) == .matches, "\(text)")
        }
    }

    @Test func `bytes that are no UTF-8 match nothing, and are no fault`() throws {
        for pattern in [#"^\S"#, "^.", "^[^a]"] {
            #expect(try Expression(pattern).find(in: [0xff, 0x61].span) == .differs)
        }
        #expect(try Expression("b$").find(in: [0xff, 0x61, 0x62].span) == .matches)
    }
}
