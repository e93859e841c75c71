import Agent
import Bytes
import Kinesis
import Platform
import Seeded
import Testing

/// A message of the table that the tests of other languages read too.
struct SyslogExample: CustomTestStringConvertible {
    var from: String
    var message: [UInt8]
    var isLocal: Bool
    var object: WireValue

    var testDescription: String { from }

    static let all: [SyslogExample] = {
        let folder = #filePath.split(separator: "/").dropLast(2).joined(separator: "/")
        let text = try! Folder.read("/\(folder)/Interop/messages/syslog.json")
        return try! WireFormat.json.read(text.span).list!.map { row in
            // Bytes that are no UTF-8 stand there as the characters with their numbers.
            let message = row["message"]?.text(in: text.span).map { Array($0.utf8) }
            let latin1 = row["latin1"]?.text(in: text.span).map { $0.unicodeScalars.map { UInt8($0.value) } }
            return SyslogExample(
                from: row["from"]!.text(in: text.span)!,
                message: message ?? latin1!,
                isLocal: row["local"]?.bool ?? false,
                object: owned(row["object"]!, text)
            )
        }
    }()

    /// `value` without its slices of `text`.
    static func owned(_ value: WireValue, _ text: [UInt8]) -> WireValue {
        switch value {
        case .slice: .text(value.text(in: text.span)!)
        case .list(let values): .list(values.map { owned($0, text) })
        case .map(let members): .map(members.map { .init($0.name, owned($0.value, text)) })
        case .null, .bool, .integer, .number, .text, .data, .time: value
        }
    }
}

extension WireValue {
    fileprivate var string: String? { if case .text(let text) = self { text } else { nil } }
}

@Suite struct SyslogTests {
    static let received: Int64 = 1_795_262_400_123_456_789  // 2026-11-21T12:00:00 UTC
    static let memory = 1 << 20

    /// The object that the message becomes.
    static func object(
        _ message: [UInt8],
        peer: String = "",
        isLocal: Bool = false,
        room: Int = memory,
        received: Int64 = received,
        zone: Int = 3600
    ) throws -> (object: WireValue, written: SyslogObjectWriter.Written) {
        var writer = SyslogObjectWriter(isLocal: isLocal)
        let peer = Array(peer.utf8)
        // What is written behind the room would be seen.
        var out = [UInt8](repeating: 0xee, count: room + 64)
        let written = unsafe out.withUnsafeMutableBytes {
            unsafe writer.write(
                message.span,
                peer: peer.span,
                received: received,
                zone: zone,
                into: .init(rebasing: $0[..<room])
            )
        }
        #expect(out[room...].allSatisfy { $0 == 0xee }, "bytes behind the room")
        let text = Array(out[..<written.count])
        return (SyslogExample.owned(try WireFormat.json.read(text.span), text), written)
    }

    @Test(arguments: SyslogExample.all)
    func `a message becomes the object that it says`(_ example: SyslogExample) throws {
        let (object, written) = try Self.object(example.message, isLocal: example.isLocal)
        let received = WireValue.Member("received", .text("2026-11-21T12:00:00.123456Z"))
        #expect(object == .map([received] + example.object.members!))
        #expect(!written.isTruncated)
        #expect(written.isParsed == (example.object["unparsed"] == nil))
    }

    @Test(arguments: SyslogExample.all)
    func `the raw format finds the same host, and counts the same messages`(_ example: SyslogExample) throws {
        var reader = SyslogReader(isLocal: example.isLocal)
        let message = reader.read(example.message.span)
        let (isParsed, host) = reader.host(example.message.span)
        #expect(host == message.host && isParsed == message.isParsed)
        check(reader.isParsed(example.message.span) == isParsed)
        let name = String(decoding: example.message[host.range], as: UTF8.self)
        #expect(name == example.object["host"]?.string ?? "")
    }

    /// One reader for all, so that what it remembers of a message meets the next one.
    @Test func `every input becomes one JSON object, whatever it is and whatever came before`() throws {
        var random = Random()
        var writer = SyslogObjectWriter()
        var reader = SyslogReader()
        let out = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.memory, alignment: 16)
        defer { unsafe out.deallocate() }
        let examples = SyslogExample.all.map(\.message)
        let pieces: [[UInt8]] = [
            "<13>", "1 ", "- ", " ", "[", "]", "\"", "\\", ":", "=", "\u{fffd}", "\n", "Oct 11 22:14:15 ",
        ]
        .map { Array($0.utf8) }
        var (parsed, cut) = (0, 0)
        for _ in 0..<20_000 {
            var message = examples[random.below(examples.count)]
            for _ in 0..<random.below(4) {
                let at = random.below(message.count + 1)
                switch random.below(5) {
                case 0: message.insert(contentsOf: random.bytes(1 + random.below(4)), at: at)
                case 1: message.insert(contentsOf: pieces[random.below(pieces.count)], at: at)
                case 2: message.removeSubrange(at...)
                case 3: message.removeSubrange(..<at)
                default: message += examples[random.below(examples.count)]
                }
            }
            if random.oneIn(50) { message = random.bytes(random.below(8000)) }
            if random.oneIn(50) {
                message.insert(contentsOf: [UInt8](repeating: 0x41, count: 300), at: message.count / 2)
            }
            let received = Self.received + Int64(random.below(1_000_000_000)) * 10_000_000
            let room = random.oneIn(4) ? SyslogObjectWriter.leastRoom : SyslogObjectWriter.room(for: message.count)
            let place = unsafe UnsafeMutableRawBufferPointer(rebasing: out[..<room])
            let peer = Array("192.0.2.7".utf8)
            let written = unsafe writer.write(
                message.span,
                peer: peer.span,
                received: received,
                zone: 3600 * random.below(24) - 12 * 3600,
                into: place
            )
            let text = unsafe Array(place[..<written.count])
            let object = SyslogExample.owned(try WireFormat.json.read(text.span), text)
            let fields = reader.read(message.span)
            #expect(fields.isParsed == written.isParsed && fields.host == written.host, random.note)
            for part in [
                fields.host, fields.application, fields.processID, fields.messageID, fields.structuredData, fields.text,
            ] {
                #expect(part.range.upperBound <= message.count, random.note)
            }
            #expect(Set(object.members!.map(\.name)).count == object.members!.count, random.note)
            let sent = object["message"]!.string!
            let meant = String(decoding: message[fields.text.range], as: UTF8.self)
            if written.isTruncated {
                cut += 1
                #expect(object["truncated"] == .bool(true) && meant.utf8.starts(with: sent.utf8), random.note)
            } else {
                #expect(sent == meant, random.note)
                #expect(object["peer"] == .text("192.0.2.7"))
            }
            parsed += written.isParsed ? 1 : 0
        }
        #expect(parsed > 1000 && parsed < 20_000 && cut > 0, random.note)
    }

    @Test func `a message too large for its room is cut between characters, and says so`() throws {
        let text = String(repeating: "ä\u{1}", count: 20_000)
        let (object, written) = try Self.object(Array("<13>\(text)".utf8), room: SyslogObjectWriter.leastRoom)
        #expect(written.isTruncated && object["truncated"] == .bool(true))
        let sent = object["message"]!.string!
        #expect(text.hasPrefix(sent) && sent.utf8.count > 2000)
        let data = "<13>1 - - - - - [x a=\"\(String(repeating: "v", count: 20_000))\"] text"
        let (other, _) = try Self.object(Array(data.utf8), peer: "p", room: SyslogObjectWriter.leastRoom)
        #expect(other["structured_data"] == nil && other["truncated"] == .bool(true))
        #expect(other["message"] == .text("text") && other["peer"] == .text("p"))
    }

    @Test func `fields of full length, each byte escaped, fit into the least room`() throws {
        let field = String(repeating: "\u{fffd}", count: 85)
        let longest = field.utf8.map { $0 == 0xbd ? 0xff : $0 }
        var message = Array("<13>1 - ".utf8)
        for _ in 0..<4 { message += longest + [0x20] }
        message += Array("- \(String(repeating: "x", count: 5000))".utf8)
        let peer = String(repeating: "\u{1}", count: SyslogObjectWriter.longestPeer)
        let (object, written) = try Self.object(message, peer: peer, room: SyslogObjectWriter.leastRoom)
        #expect(written.isTruncated && object["msgid"] != nil && object["peer"] == .text(peer))
    }

    @Test func `names of backslashes at the end of the room stay within it`() throws {
        for count in 7300..<8000 {
            let value = String(repeating: "v", count: count)
            let name = String(repeating: "\\", count: SyslogReader.longestField)
            for data in ["[e a=\"\(value)\" \(name)=\"x\"]", "[e a=\"\(value)\"][\(name) x=\"x\"]"] {
                _ = try Self.object(Array("<13>1 - - - - - \(data)".utf8), room: SyslogObjectWriter.leastRoom)
            }
        }
    }

    @Test func `structured data and its dash end with the message's line`() throws {
        for end in ["", "\n", "\r\n", "\0"] {
            let (none, _) = try Self.object(Array("<14>1 2003-10-11T22:14:15Z h a - - -\(end)".utf8))
            #expect(none["message"] == .text("") && none["structured_data"] == nil)
            let (some, _) = try Self.object(Array("<14>1 2003-10-11T22:14:15Z h a - - [x a=\"b\"]\(end)".utf8))
            #expect(some["message"] == .text("") && some["structured_data"]?["x"]?["a"] == .text("b"))
        }
    }

    @Test func `a year that is missing is the one that brings the time nearest to its receipt`() throws {
        func stamp(_ time: String, received: String, zone: Int = 0) throws -> String? {
            let moment = CivilTime.unixSeconds(rfc3339: received)! * 1_000_000_000
            let message = Array("<13>\(time) host app: x".utf8)
            return try Self.object(message, received: moment, zone: zone).object["timestamp"]?.string
        }
        #expect(try stamp("Dec 31 23:59:58", received: "2027-01-01T00:00:03Z") == "2026-12-31T23:59:58Z")
        #expect(try stamp("Jan  1 00:00:01", received: "2026-12-31T23:59:59Z") == "2027-01-01T00:00:01Z")
        #expect(try stamp("Nov 20 10:00:00", received: "2026-11-21T00:00:00Z") == "2026-11-20T10:00:00Z")
        #expect(try stamp("Feb 29 10:00:00", received: "2028-03-01T00:00:00Z") == "2028-02-29T10:00:00Z")
        #expect(try stamp("Feb 29 10:00:00", received: "2026-03-01T00:00:00Z") == "2028-02-29T10:00:00Z")
        // Where it is still the old year here, it is the old year in the stamp.
        #expect(
            try stamp("Dec 31 20:00:00", received: "2027-01-01T01:00:00Z", zone: -18_000) == "2026-12-31T20:00:00-05:00"
        )
        #expect(
            try stamp("Nov 21 12:00:00", received: "2026-11-21T12:00:00Z", zone: 20_700) == "2026-11-21T12:00:00+05:45"
        )
    }

    @Test func `times are nanoseconds since 1970, and say what they lack`() {
        var reader = SyslogReader()
        let exact = reader.read(Array("<13>1 2003-10-11T22:14:15.003000009-07:00 h a - - - x".utf8).span).time
        #expect(exact.hasYear && exact.hasZone)
        #expect(exact.unixNanoseconds(received: 0, zone: 0) == 1_065_935_655_003_000_009)
        let loose = reader.read(Array("<13>Oct 11 22:14:15 h a: x".utf8).span).time
        #expect(!loose.hasYear && !loose.hasZone && loose.isThere)
        #expect(loose.unixNanoseconds(received: 1_065_900_000_000_000_000, zone: 7200) == 1_065_903_255_000_000_000)
        let far = reader.read(Array("<13>1 9999-12-31T23:59:59Z h a - - - x".utf8).span).time
        #expect(far.unixNanoseconds(received: 0, zone: 0) == .max)
        check(!reader.read(Array("<13>1 - h a - - - x".utf8).span).time.isThere)
    }

    @Test func `more structured data than can be compared is text`() throws {
        func data(_ count: Int) -> String { "[x" + (0..<count).map { " p\($0)=\"v\"" }.joined() + "]" }
        let (few, _) = try Self.object(Array("<13>1 - - - - - \(data(128)) x".utf8))
        #expect(few["structured_data"]?["x"]?.members?.count == 128 && few["message"] == .text("x"))
        let (many, _) = try Self.object(Array("<13>1 - - - - - \(data(129)) x".utf8))
        #expect(many["structured_data"] == nil && many["message"] == .text("\(data(129)) x"))
    }
}
