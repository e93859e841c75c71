import Agent
import Bytes
import Kinesis
import Logging
import Platform
import Seeded
import Testing

@Suite struct LogLineTests {
    let log = LogLine(label: "test", level: .info)
    let now = Instant.now

    func line(_ text: String, _ metadata: Logger.Metadata = [:], after: Duration = .zero) -> String? {
        log.line(.notice, text, metadata, milliseconds: 1_795_225_200_123, now: now + after)
    }

    @Test func `an event is one line, with its details in order`() {
        #expect(
            line("file rotated", ["path": "/a b", "n": "7"])
                == "2026-11-21T01:40:00.123Z notice file rotated n=7 path=\"/a b\"\n"
        )
        let evil = line("evil", ["a": "x\ny", "b": "\"", "c": "", "d": "\u{1b}[0m", "e": "ä=b"])
        #expect(evil?.split(separator: "\n").count == 1)
        #expect(evil?.hasSuffix("a=\"x\\ny\" b=\"\\\"\" c=\"\" d=\"\\u001b[0m\" e=ä=b\n") == true, "\(evil ?? "")")
    }

    @Test func `a flood of one message is cut, told, and takes no room from others`() {
        let passed = (0..<1000).compactMap { line("flood", ["n": "\($0)"]) }
        #expect(passed.count == 5)
        #expect(line("other") != nil)
        #expect(line("flood", after: .milliseconds(9999)) == nil)
        #expect(line("flood", after: .seconds(10))?.hasSuffix("flood suppressed=996\n") == true)
        #expect(line("flood", after: .seconds(10))?.hasSuffix("flood\n") == true)
    }
}
