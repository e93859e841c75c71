import Agent
import Bytes
import CText
import Seeded
import Testing

/// What the syslog writer keeps of a message changes what the next ones cost, and nothing else.
@Suite struct SyslogMemoryTests {
    /// Few of each, so that most messages meet what came before them, and forms that are nearly the same.
    struct Messages {
        let hosts = [
            "h", "mymachine", "ein\"host", "-", "10.1.2.3", "a-host-of-a-long-name.with-much-text.example.com", "a=b",
        ]
        let odd = ["h:", "x  y", "host :", "w\u{e9}b", ""]
        let applications = [
            "su", "a\\b", "evntslog", "postfix/smtpd", "-", "a:b", "app[12]", "the-name-of-an-application-that-goes-on",
        ]
        let data = ["-", "[a b=\"c\"]", "[a b=\"c\"][d e=\"f\" e=\"g\"]", "[bad", "", "-x", "- \u{feff}"]
        let texts = [
            "hello", "", "\u{feff}hello", "line\n", "x\r\n\0", "tab\tq\"uote\\ \u{1} \u{e9}\u{1f600} end",
            "tag: more [x]: y",
            String(repeating: "long text of many bytes, ", count: 20), String(repeating: "\"a\"", count: 100),
        ]
        let exact = [
            "2026-10-11T22:14:15.003Z", "2026-10-11T22:14:15Z", "2026-10-11T22:14:15.123456+02:00",
            "2026-10-11T22:14:16.12-07:00", "2026-10-11T22:14:25.1234567+02:00", "2026-10-11T22:14:15.12345678Z",
        ]
        let inexact = [
            "2026-10-11 22:14:15.1Z", "2026-10-11T22:14:60Z", "2026-10-11T22:14:15,5Z", "2026-10-11T22:14:15.123+0200",
            "-",
            "2026-10-11T22:14:15.Z", "2026-10-11T22:14:15", "2026-10-11T22:14:15.1+02:0",
        ]
        let times = [
            "Oct 11 22:14:15 ", "Oct 11 22:14:16 ", "Oct 11 22:14:25 ", "May 22 12:00:00 ", "Feb 29 00:00:00 ",
        ]
        let loose = [
            "Oct 11 22:14:15 2026 ", "Oct 11 22:14:15 1234 ", "Oct 11 22:14:15 UTC: ", "Oct 1 2:14:15.5 ", "",
            "*Oct 11 22:14:15.123: ", "R1: 5: Oct 11 22:14:15: ", "Oct 11 22:14:61 ",
            "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ]
        let peers = [
            "192.0.2.7", "192.0.2.77", "", "::1", "1.2.3.4", "uid:1000 pid:12345",
            "2001:db8:1234:5678:216:3eff:fe12:3456",
            "2001:db8:1234:5679:216:3eff:fe12:3456", "2001:db8:1234:5678:216:3eff:fe12:3456%a-long-interface",
        ]

        func pick(_ usual: [String], _ rare: [String] = [], _ random: inout Random) -> String {
            if !rare.isEmpty, random.oneIn(6) { return rare[random.below(rare.count)] }
            return usual[random.below(random.oneIn(3) ? usual.count : 2)]
        }

        func message(_ random: inout Random) -> [UInt8] {
            let priority = random.oneIn(10) ? random.below(1200) : 8 * random.below(3) + random.below(3)
            var text = random.oneIn(20) ? "" : "<\(priority)>"
            let process = random.oneIn(5) ? "\(random.below(100_000))" : "\(random.below(4))"
            let (host, application) = (pick(hosts, odd, &random), pick(applications, [], &random))
            switch random.below(5) {
            case 0, 1:
                text += "1 \(pick(exact, inexact, &random)) \(host) \(application) \(process) ID\(random.below(3)) "
                text += pick(data, data, &random) + " "
            case 2: text += "\(pick(exact, inexact, &random)) \(host) \(application)[\(process)]: "
            default:
                text += pick(times, loose, &random) + (random.oneIn(4) ? "" : host + " ") + application
                text += (random.oneIn(3) ? "" : "[\(process)]") + (random.oneIn(8) ? " " : ": ")
            }
            var message = Array((text + pick(texts, texts, &random)).utf8)
            guard random.oneIn(4) else { return message }
            for _ in 0...random.below(3) where !message.isEmpty {
                let at = random.below(message.count)
                switch random.below(4) {
                case 0: message[at] = UInt8(random.below(256))
                case 1: message.removeSubrange(at...)
                case 2: message.insert(0x20, at: at)
                default: message[at] = Array("\0 :][\"\n".utf8)[random.below(7)]
                }
            }
            return message
        }
    }

    @Test func `a time without a zone is no other for the one before it`() throws {
        var writer = SyslogObjectWriter()
        var out = [UInt8](repeating: 0, count: 20_000)
        for message in [
            "<13>1 2026-10-11T22:14:15.003Z h a - - - x", "<13>1 2026-10-11T22:14:15",
            "<13>1 2026-10-11T22:14:15\0\0\0\0\0\0\0 h",
        ] {
            let (bytes, nobody) = (Array(message.utf8), [UInt8]())
            let written = unsafe out.withUnsafeMutableBytes {
                unsafe writer.write(
                    bytes.span,
                    peer: nobody.span,
                    received: SyslogTests.received,
                    zone: 3600,
                    into: $0
                )
            }
            #expect(!out[..<written.count].contains(0))
        }
    }

    @Test(arguments: [false, true])
    func `an object is the one that a writer makes who has met no other message`(isLocal: Bool) {
        var random = Random()
        let messages = Messages()
        var writer = SyslogObjectWriter(isLocal: isLocal)
        var received = SyslogTests.received
        var zone = 3600
        for _ in 0..<20_000 {
            // At noon in May the year that is nearest to November's changes.
            received += random.oneIn(50) ? Int64(random.below(2_000_000_000)) : 1000
            if random.oneIn(2000) { received = SyslogTests.received + Int64(random.below(400)) * 86_400_000_000_000 }
            if random.oneIn(500) { zone = 1800 * random.below(8) }
            let (message, peer) = (messages.message(&random), Array(messages.pick(messages.peers, [], &random).utf8))
            let room = random.oneIn(50) ? SyslogObjectWriter.leastRoom : SyslogObjectWriter.room(for: message.count)
            func object(_ writer: inout SyslogObjectWriter) -> (text: [UInt8], written: SyslogObjectWriter.Written) {
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
                check(out[room...].allSatisfy { $0 == 0xee })
                return (Array(out[..<written.count]), written)
            }
            var fresh = SyslogObjectWriter(isLocal: isLocal)
            let (expected, found) = (object(&fresh), object(&writer))
            guard expected.text == found.text, expected.written.isParsed == found.written.isParsed,
                expected.written.isTruncated == found.written.isTruncated, expected.written.host == found.written.host
            else {
                Issue.record(
                    """
                    \(random.note) "\(String(decoding: message, as: UTF8.self).debugDescription)" became
                    \(String(decoding: found.text, as: UTF8.self)) instead of
                    \(String(decoding: expected.text, as: UTF8.self))
                    """
                )
                return
            }
        }
    }

    @Test func `a sender is found with wide instructions where it is found without, and as it was learned`() {
        var random = Random()
        let count = Int(ctext_sender_count)
        let table = UnsafeMutablePointer<ctext_sender>.allocate(capacity: count)
        defer { unsafe table.deallocate() }
        unsafe table.initialize(repeating: ctext_sender(), count: count)
        let longest = Int(ctext_sender_longest_text)
        struct Sender: Hashable {
            var head: [UInt8]
            var kind: UInt32
            var peer: [UInt8]
        }
        var learned: [Sender: [UInt8]] = [:]
        var hits = 0
        for turn in 0..<50_000 {
            let text = String(repeating: "x", count: random.below(60))
            var message = Array(" h\(random.below(5)) app[\(random.below(3))]: 1 \(text) y".utf8)
            if random.oneIn(20) { message[1 + random.below(12)] = UInt8(random.below(256)) }
            message += [UInt8](repeating: random.oneIn(2) ? 0x20 : 0, count: 64)
            let lengths = [0, 3, 5, 8, 12, 18, Int(ctext_sender_longest_peer), Int(ctext_sender_longest_peer) + 1]
            var peer = [UInt8](repeating: 0x30, count: lengths[random.below(lengths.count)])
            if !peer.isEmpty, random.oneIn(3) { peer[random.below(peer.count)] = 0x31 }
            let kind = random.oneIn(2) ? ctext_sender_bsd : ctext_sender_structured
            var wide = [UInt8](repeating: 0, count: longest)
            var plain = wide
            unsafe message.withUnsafeBufferPointer { message in
                let head = unsafe message.baseAddress! + 1
                let found = unsafe ctext_sender_find(table, head, kind, peer, peer.count, &wide)
                let other = unsafe ctext_sender_find_portable(table, head, kind, peer, peer.count, &plain)
                check(unsafe found == other && wide == plain, random.note)
                let size = unsafe ctext_sender_head_count(head, kind, peer.count)
                let sender = unsafe Sender(head: Array(message[1..<1 + size]), kind: kind.rawValue, peer: peer)
                if let found = unsafe found {
                    hits += 1
                    let count = unsafe Int(found.pointee.text_count)
                    check(unsafe size == Int(found.pointee.head_count), random.note)
                    check(Array(wide[..<count]) == learned[sender], random.note)
                } else if size > 0 {
                    let known = random.bytes(random.below(longest + 1))
                    let entry = unsafe ctext_sender_replace(table, head, kind, peer, peer.count, UInt32(turn))!
                    unsafe entry.pointee.text_count = UInt8(known.count)
                    unsafe withUnsafeMutableBytes(of: &entry.pointee.text) { unsafe $0.copyBytes(from: known) }
                    learned[sender] = known
                }
            }
        }
        #expect(hits > 1000, random.note)
    }

    @Test func `plain text is copied up to the same byte with wide instructions and without`() {
        var random = Random()
        let specials = Array("\"\\\n".utf8) + [0, 0x1f, 0x80, 0xff]
        for _ in 0..<20_000 {
            var text = (0..<random.below(600)).map { _ in UInt8(0x23 + random.below(57)) }
            if !text.isEmpty, !random.oneIn(4) {
                for _ in 0...random.below(3) { text[random.below(text.count)] = specials[random.below(specials.count)] }
            }
            var (wide, plain) = (
                [UInt8](repeating: 0xee, count: text.count + 64), [UInt8](repeating: 0, count: text.count)
            )
            let count = unsafe ctext_copy_plain(&wide, text, text.count)
            check(unsafe count == ctext_copy_plain_portable(&plain, text, text.count), random.note)
            check(wide[..<count] == text[..<count] && plain[..<count] == text[..<count], random.note)
            check(wide[text.count...].allSatisfy { $0 == 0xee }, random.note)
            let stop = text.firstIndex { $0 < 0x20 || $0 >= 0x80 || $0 == 0x22 || $0 == 0x5c }
            check(count == stop ?? text.count, random.note)
        }
    }
}
