import Bytes
import Agent
import Kinesis
import Platform
import Seeded
import Testing

@Suite struct MultilineTests {
    static func collect(_ scratch: Scratch, once: Bool = true, ring: Int = 2 << 20, longest: Int = 100_000) throws
        -> Collecting
    {
        try Collecting(scratch, once: once, ring: ring) {
            $0.multilineStart = #"^\d+ "#
            $0.multilineTimeout = .milliseconds(300)
            $0.maxRecord = longest
        }
    }

    static func texts(_ collecting: Collecting) -> [String] {
        collecting.records.map { String(decoding: $0, as: UTF8.self) }
    }

    @Test func `a record is a line that fits with all that do not behind it, whatever the pieces it comes in`() throws {
        var random = Random()
        for ring in [1 << 19, 2 << 20] {
            let scratch = try Scratch()
            var (expected, bytes): ([String], [UInt8]) = ([], [])
            for number in 0..<20_000 {
                let end = random.oneIn(4) ? "\r\n" : "\n"
                var lines = ["\(number) begins \(String(repeating: "é", count: random.below(40)))"]
                if random.oneIn(3) { lines += (0..<random.below(5)).map { "\tat \($0)" } }
                if random.oneIn(50) { lines += [String(repeating: "x", count: random.below(60_000))] }
                expected.append(lines.joined(separator: end))
                bytes += Array((lines.joined(separator: end) + end).utf8)
            }
            try scratch.write("a.log", bytes)
            let collecting = try Self.collect(scratch, ring: ring)
            #expect(collecting.finish())
            let texts = Self.texts(collecting)
            let wrong = zip(texts, expected).enumerated().first { $1.0 != $1.1 }
            #expect(
                texts.count == expected.count && wrong == nil,
                "\(texts.count), first at \(wrong?.offset ?? -1), \(random.note)"
            )
            #expect(collecting.sources.values.first?.end == UInt64(bytes.count), random.note)
        }
    }

    @Test(arguments: [Configuration.Oversize.split, .truncate, .deadLetter])
    func `a long record is whole though the next one, as long, is not read to its line's end`(
        policy: Configuration.Oversize
    ) throws {
        let scratch = try Scratch()
        let expected = (0..<20).map { "\($0) " + String(repeating: "x", count: 90_000 + $0 * 450) }
        try scratch.write("a.log", expected.joined(separator: "\n"))
        let collecting = try Collecting(scratch, once: true) {
            $0.multilineStart = #"^\d+ "#
            $0.maxRecord = 100_000
            $0.onOversize = policy
        }
        #expect(collecting.finish())
        #expect(Self.texts(collecting) == expected)
    }

    @Test func `of what is too long no more is kept than a record may have, and the next begins where it begins`()
        throws
    {
        let scratch = try Scratch()
        let (long, longer) = (String(repeating: "y", count: 90_000), String(repeating: "z", count: 3_000_000))
        let text = "1 one\n \(long)\n \(long)\n \(longer)\n more\n2 \(longer)\n more\n3 three\n"
        try scratch.write("a.log", text)
        let collecting = try Collecting(scratch, once: true) {
            $0.multilineStart = #"^\d+ "#
            $0.maxRecord = 100_000
            $0.onOversize = .truncate
        }
        #expect(collecting.finish())
        let texts = Self.texts(collecting)
        #expect(texts == ["1 one\n \(long)", "2 " + String(repeating: "z", count: 99_998), "3 three"])
        #expect(collecting.sources.values.first?.end == UInt64(text.utf8.count))
    }

    @Test func `a record ends when its time is out, when its file is rotated, and with the next one's first line`()
        throws
    {
        let scratch = try Scratch()
        try scratch.write("a.log", "none fits\nyet\n1 one\n")
        let collecting = try Self.collect(scratch, once: false)
        #expect(collecting.until { Self.texts(collecting).first == "none fits\nyet" })
        try scratch.write("a.log", " more\n")
        #expect(collecting.until { Self.texts(collecting).last == "1 one\n more" })
        try scratch.write("a.log", "2 two\n3 three\n half a li")
        #expect(collecting.until { Self.texts(collecting).suffix(2) == ["2 two", "3 three"] })
        try scratch.write("a.log", "ne\n")
        #expect(collecting.until { Self.texts(collecting).last == " half a line" })
        try scratch.write("a.log", "4 four\n last")
        try scratch.move("a.log", to: "a.old")
        #expect(
            collecting.until {
                Self.texts(collecting).suffix(1) == [" last"] || Self.texts(collecting).last == "4 four\n last"
            }
        )
        #expect(collecting.stop() < .seconds(1))
    }

    @Test func `what is not finished is read again by the next run`() throws {
        let scratch = try Scratch()
        try scratch.write("a.log", "1 one\n more\n2 two\n")
        let first = try Collecting(scratch) { $0.multilineStart = #"^\d+ "# }
        #expect(first.until { Self.texts(first) == ["1 one\n more"] })
        first.stop()
        let source = try #require(first.order.first)
        first.checkpoints.settle(source, at: try #require(first.sources[source]).end)
        try first.checkpoints.writeIfChanged()
        try scratch.write("a.log", " more of two\n")
        let second = try Self.collect(scratch)
        #expect(second.finish())
        #expect(Self.texts(second) == ["2 two\n more of two"])
    }

    @Test(arguments: [Configuration.Oversize.split, .truncate])
    func `a record that is too long ends between its lines, or within one`(policy: Configuration.Oversize) throws {
        let scratch = try Scratch()
        let lines = (0..<50).map { " line \($0) " + String(repeating: "é", count: 30) }
        let text =
            "1 one\n" + lines.joined(separator: "\n") + "\n2 " + String(repeating: "y", count: 2500)
            + "\n tail\n3 three\n"
        try scratch.write("a.log", text)
        let collecting = try Collecting(scratch, once: true) {
            $0.multilineStart = #"^\d+ "#
            $0.maxRecord = 1000
            $0.onOversize = policy
        }
        #expect(collecting.finish())
        let texts = Self.texts(collecting)
        #expect(texts.allSatisfy { $0.utf8.count <= 1000 && !$0.contains("\u{fffd}") })
        #expect(texts.first?.hasPrefix("1 one\n line 0 ") == true && texts.last == "3 three")
        #expect(collecting.sources.values.first?.end == UInt64(text.utf8.count))
        if policy == .split {
            let all = texts.joined().filter { $0 != "\n" }
            #expect(all == text.filter { $0 != "\n" })
        } else {
            #expect(texts.count == 3 && texts[1] == "2 " + String(repeating: "y", count: 998))
            #expect(collecting.counters.collectors.bytesTruncated.now > 3000)
        }
    }
}

@Suite struct ExpressionTests {
    @Test func `a fault has its place`() throws {
        for (text, message, offset) in [
            ("a(b", "missing closing parenthesis", 3), ("ab[z-a]", "range out of order", 5),
        ] {
            let fault = try #require(throws: Expression.Fault.self) { try Expression(text) }
            #expect(fault.message.hasPrefix(message) && fault.offset == offset, "\(fault)")
        }
    }

    @Test func `bytes that are no text do not match, and are no fault`() throws {
        let expression = try Expression(#"^\d{4}-.é"#)
        #expect(expression.find(in: Array("2026-xé".utf8).span) == .matches)
        #expect(expression.find(in: [0x32, 0x30, 0xff, 0xfe].span) == .differs)
        #expect(expression.find(in: [UInt8]().span) == .differs)
        #expect(try Expression("^$").find(in: [UInt8]().span) == .matches)
    }

    @Test func `an expression that would take for ever gives up in time`() throws {
        let expression = try Expression("^(a+)+$")
        let line = [UInt8](repeating: 97, count: 40) + [98]
        let start = Instant.now
        #expect(expression.find(in: line.span) == .gaveUp)
        #expect(.now - start < .seconds(1))
    }
}
