import Agent
import Seeded
import Testing

@Suite struct FramerTests {
    typealias Framing = Framer.Framing

    /// What a connection's bytes became.
    struct Outcome: Equatable {
        var records: [String] = []
        var oversize: [String] = []
        var fault: String?
        var figures = [0, 0]
        var unfinished = false
    }

    /// Frames `stream` as it would be if it arrived in pieces of those sizes, and then ended.
    static func frame(
        _ stream: [UInt8],
        _ framing: Framing,
        longest: Int = 100,
        _ policy: Configuration.Oversize = .split,
        reads: [Int] = []
    ) -> Outcome {
        var framer = Framer(framing, longest: longest, policy)
        var outcome = Outcome()
        var (waiting, at): ([UInt8], Int) = ([], 0)
        var skipped = 0
        func text(_ range: Range<Int>) -> String { String(decoding: waiting[range], as: UTF8.self) }
        /// False when nothing more can be said about what waits.
        func take(_ step: Framer.Step, _ start: inout Int) -> Bool {
            switch step {
            case .record(let range, let next):
                outcome.records.append(text(range))
                start = next
            case .oversize(let range, let next):
                outcome.oversize.append(text(range))
                start = next
            case .skipped(let next):
                skipped += next - start
                start = next
            case .more: return false
            case .broken(let fault):
                outcome.fault = "\(fault)"
                return false
            }
            return true
        }
        var sizes = reads[...]
        while at < stream.count, outcome.fault == nil {
            let size = min(sizes.popFirst() ?? stream.count, stream.count - at)
            waiting += stream[at..<at + size]
            at += size
            var start = 0
            while take(framer.next(in: waiting.span, from: start), &start) {}
            waiting.removeFirst(start)
        }
        if outcome.fault == nil {
            var start = 0
            outcome.unfinished = !waiting.isEmpty
            while take(framer.last(in: waiting.span, from: start), &start) {}
        }
        let figures = framer.takeFigures()
        outcome.figures = [figures.oversize, figures.truncated]
        return outcome
    }

    static func records(_ text: String, _ framing: Framing, longest: Int = 100) -> [String] {
        frame(Array(text.utf8), framing, longest: longest).records
    }

    @Test func `lines end with LF, and a CR before it belongs to the end`() {
        #expect(Self.records("a\nb\r\n\nc\rd\r\r\ne", .newline) == ["a", "b", "", "c\rd\r", "e"])
    }

    @Test func `NUL ends a record, and nothing else does`() {
        #expect(Self.records("a\nb\r\n\0\0c", .nul) == ["a\nb\r\n", "", "c"])
    }

    @Test func `octet counts say how long records are, whatever is in them`() {
        #expect(Self.records("5 a\nb\0c3 xyz\n2 12", .octetCounting) == ["a\nb\0c", "xyz", "12"])
    }

    @Test func `a length prefix is four bytes, the most significant first`() {
        let stream: [UInt8] = [0, 0, 0, 3, 97, 10, 98, 0, 0, 0, 0, 0, 0, 0, 1, 99]
        #expect(Self.frame(stream, .lengthPrefix).records == ["a\nb", "", "c"])
    }

    @Test(arguments: [
        ("5 hello2 ab", ["hello", "ab"]), ("<13>a\n5 hello\n", ["<13>a", "5 hello"]),
        ("23.5\n24 C\n", ["23.5", "24 C"]), ("2026-11-21 a\n", ["2026-11-21 a"]), ("0 a\nb\n", ["0 a", "b"]),
        ("42\n", ["42"]), ("42", ["42"]), ("", []), (" 5 a\n", [" 5 a"]),
        ("123456789012345678901234567890\n7 x\n", ["123456789012345678901234567890", "7 x"]),
    ])
    func `auto counts octets where the connection begins with a count`(stream: String, records: [String]) {
        #expect(Self.records(stream, .auto) == records)
    }

    @Test(arguments: [
        ("5 hellox 1 a", "an octet count is decimal"), ("5 hello12a", "an octet count is decimal"),
        ("5 hello05 abcde", "does not begin with 0"), ("5 hello1000000000000 a", "1000000000 bytes or more"),
        ("5 hello1000000000 a", "1000000000 bytes or more"), ("5 hello-1 a", "an octet count is decimal"),
    ])
    func `a broken octet count ends the connection, and what was complete is kept`(stream: String, reason: String) {
        let outcome = Self.frame(Array(stream.utf8), .octetCounting)
        #expect(outcome.records == ["hello"])
        #expect(outcome.fault?.contains(reason) == true, "\(outcome)")
    }

    @Test func `a request of another protocol is no length`() {
        #expect(Self.frame(Array("GET / HTTP/1.1\r\n".utf8), .lengthPrefix).fault != nil)
    }

    @Test(arguments: [Framing.octetCounting, .auto])
    func `what arrived of a counted record is kept when no more comes`(framing: Framing) {
        let outcome = Self.frame(Array("5 hello10 half".utf8), framing)
        #expect(outcome.records == ["hello", "half"] && outcome.unfinished)
        #expect(Self.frame(Array("5 hello10 ".utf8), framing).records == ["hello"])
        #expect(Self.frame(Array("5 hello1".utf8), framing).records == ["hello"])
        #expect(Self.frame([0, 0, 0, 9, 97], .lengthPrefix).records == ["a"])
    }

    @Test func `what is too long is split between characters, truncated, or set aside`() {
        let line = "0123456é89\nshort\r\n"
        for (framing, stream) in [(Framing.newline, line), (.octetCounting, "11 0123456é895 short")] {
            let bytes = Array(stream.utf8)
            #expect(Self.frame(bytes, framing, longest: 8, .split).records == ["0123456", "é89", "short"])
            let truncated = Self.frame(bytes, framing, longest: 8, .truncate)
            #expect(truncated.records == ["0123456", "short"])
            #expect(truncated.figures == [1, framing == .newline ? 5 : 4])
            let aside = Self.frame(bytes, framing, longest: 8, .deadLetter)
            #expect(aside.records == ["short"] && aside.oversize == ["0123456", "é89"])
        }
    }

    @Test(arguments: ["\n", "\r\n"]) func `a record of exactly the longest size is not too long`(end: String) {
        let longest = "0123456789"
        #expect(Self.records(longest + end + longest + "x" + end, .newline, longest: 10) == [longest, longest, "x"])
        #expect(Self.records("10 \(longest)11 \(longest)x", .octetCounting, longest: 10) == [longest, longest, "x"])
    }

    @Test func `any cut of the stream into reads gives the same records`() {
        var random = Random()
        let alphabet: [UInt8] = [10, 13, 0, 32, 48, 49, 50, 57, 97, 0xc3, 0xa9, 0xf0, 0x9f, 0x98, 0x80]
        for _ in 0..<4000 {
            let framing = Framing.allCases[random.below(Framing.allCases.count)]
            let policy = Configuration.Oversize.allCases[random.below(3)]
            let longest = 1 + random.below(20)
            var stream: [UInt8] = []
            for _ in 0..<random.below(12) {
                let record = (0..<random.below(30)).map { _ in alphabet[random.below(alphabet.count)] }
                switch framing {
                case .octetCounting: stream += Array("\(record.count) ".utf8) + record
                case .lengthPrefix: stream += [0, 0, 0, UInt8(record.count)] + record
                case .auto where random.oneIn(2): stream += Array("\(record.count) ".utf8) + record
                case .auto, .newline, .nul: stream += record + [framing == .nul ? 0 : 10]
                }
            }
            stream.removeLast(random.below(min(3, stream.count + 1)))
            let reads = stream.map { _ in 1 + random.below(random.oneIn(2) ? 3 : 40) }
            let whole = Self.frame(stream, framing, longest: longest, policy)
            let cut = Self.frame(stream, framing, longest: longest, policy, reads: reads)
            #expect(whole == cut, "\(random.note) \(framing) \(policy) \(longest) \(stream)")
            #expect((whole.records + whole.oversize).allSatisfy { $0.utf8.count <= 3 * longest }, random.note)
        }
    }

    @Test func `records that were written are read, in every framing`() {
        var random = Random()
        for framing in [Framing.newline, .nul, .octetCounting, .lengthPrefix] {
            let records = (0..<200).map { _ in
                random.bytes(random.below(60)).map { [0, 10, 13].contains($0 & 0x7f) ? 46 : $0 & 0x7f }
            }
            var stream: [UInt8] = []
            for record in records {
                switch framing {
                // A record of no bytes has no octet count.
                case .octetCounting: if !record.isEmpty { stream += Array("\(record.count) ".utf8) + record }
                case .lengthPrefix: stream += [0, 0, 0, UInt8(record.count)] + record
                case .auto, .newline, .nul: stream += record + [framing == .nul ? 0 : 10]
                }
            }
            let expected = records.filter { framing != .octetCounting || !$0.isEmpty }
                .map { String(decoding: $0, as: UTF8.self) }
            let outcome = Self.frame(stream, framing, reads: (0..<9999).map { _ in 1 + random.below(50) })
            #expect(outcome == Outcome(records: expected), "\(random.note) \(framing)")
        }
    }
}
