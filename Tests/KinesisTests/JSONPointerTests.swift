import Bytes
import Foundation
import Kinesis
import Seeded
import Testing

@Suite struct JSONPointerTests {
    private static func value(_ pointer: String, in text: String, most: Int = 256) -> String? {
        var out = ByteWriter()
        out.append("before")
        guard let pointer = JSONPointer(pointer), pointer.read(Array(text.utf8).span, into: &out, most: most) else {
            #expect(out.count == 6)
            return nil
        }
        return String(decoding: out.array.dropFirst(6), as: UTF8.self)
    }

    @Test(arguments: [
        ("/id", #"{"id":"a"}"#, "a"), ("/id", #" { "x" : [1,{"id":"no"}] , "id" : 17.5e-3 } "#, "17.5e-3"),
        ("/device/id", #"{"id":"no","device":{"n":null,"id":"yes"}}"#, "yes"), ("/on", #"{"on":true}"#, "true"),
        ("/list/2", #"{"list":["a",{"b":"]"},"c"]}"#, "c"), ("/0", #"["first"]"#, "first"),
        ("/a~1b/m~0n", #"{"a/b":{"m~n":"x"}}"#, "x"), ("/", #"{"":"empty name"}"#, "empty name"),
        ("/s", #"{"s":"q\"b\\s\/n\nu\u00e9p\ud83d\ude00h\ud800!"}"#, "q\"b\\s/n\nuép😀h\u{fffd}!"),
        ("/é", #"{"\u00e9":"name with an escape"}"#, "name with an escape"), ("/2", #"{"2":"a name"}"#, "a name"),
        ("/k", #"{"other\\":"x","k":"behind a backslash"}"#, "behind a backslash"),
        ("/a-name-of-15-by", #"{"a-name-of-15-bi":1,"a-name-of-15":2,"a-name-of-15-by":3}"#, "3"),
        ("/a-name-of-16-byt", #"{"a-name-of-16-byte":1,"a-name-of-16-by":2,"a-name-of-16-byt":3}"#, "3"),
        // What comes after the value is not looked at.
        ("/id", #"{"id":"a", broken"#, "a"),
    ])
    func `reads the value it points to`(pointer: String, text: String, value: String) {
        #expect(Self.value(pointer, in: text) == value)
    }

    @Test(arguments: [
        ("/id", ""), ("/id", "plain text"), ("/id", "{}"), ("/id", #"{"id":null}"#), ("/id", #"{"id":""}"#),
        ("/id", #"{"id":{}}"#), ("/id", #"{"id":[1]}"#), ("/id", #"{"id"#), ("/id", #"{"id":"#), ("/id", #"{"id":"a"#),
        ("/id", #"{"id":"\"#), ("/id", #"{"id":"\x"}"#), ("/id", #"{"id":"\u12"}"#), ("/id", #"["id"]"#),
        ("/id/x", #"{"id":"x"}"#), ("/1", #"["a"]"#), ("/01", #"["a","b"]"#), ("/-", #"["a"]"#),
        ("/id", #"{"a":"b" "id":1}"#),
        ("/id", String(repeating: "[", count: 10_000)), ("/b", #"{"a":"# + String(repeating: "[", count: 10_000)),
    ])
    func `finds nothing where there is nothing`(pointer: String, text: String) {
        #expect(Self.value(pointer, in: text) == nil)
    }

    @Test(arguments: ["", "id", "/a~", "/a~2", "~0"]) func `refuses what is no pointer`(text: String) {
        #expect(JSONPointer(text) == nil)
    }

    @Test func `cuts a long value between characters`() {
        #expect(Self.value("/s", in: #"{"s":"abcdé"}"#, most: 5) == "abcd")
        #expect(Self.value("/s", in: #"{"s":"abcdé"}"#, most: 6) == "abcdé")
        #expect(Self.value("/s", in: #"{"s":"\#(String(repeating: "x", count: 5000))"}"#, most: 256)?.count == 256)
    }

    @Test func `finds what Foundation finds, in random texts`() throws {
        var random = Random()
        for _ in 0..<2000 {
            let names = (0..<4).map { _ in Self.text(&random) }
            var object: [String: Any] = [:]
            for _ in 0..<random.below(6) { object[names[random.below(4)]] = Self.any(&random, 3, names) }
            let bytes = try JSONSerialization.data(
                withJSONObject: object,
                options: random.oneIn(2) ? [] : .prettyPrinted
            )
            var path: [String] = []
            var value: Any? = object
            while let inner = value as? [String: Any], path.count < 4 {
                path.append(names[random.below(4)])
                value = inner[path.last!]
            }
            let pointer = path.map {
                "/" + $0.replacingOccurrences(of: "~", with: "~0").replacingOccurrences(of: "/", with: "~1")
            }
            var out = ByteWriter()
            let found = JSONPointer(pointer.joined())!.read([UInt8](bytes).span, into: &out, most: 10_000)
            if let text = value as? String, !text.isEmpty {
                #expect(found && String(decoding: out.array, as: UTF8.self) == text, random.note)
            } else if let number = value as? NSNumber {
                let text = String(decoding: out.array, as: UTF8.self)
                #expect(found && (text == "true" || text == "false" || Double(text) == number.doubleValue), random.note)
            } else {
                #expect(!found, random.note)
            }
        }
    }

    @Test func `reads any bytes without a fault`() {
        var random = Random()
        let pieces = ["{", "}", "[", "]", "\"", "\\", ":", ",", "id", "1", " ", "\\u", "d800", "null"].map {
            Array($0.utf8)
        }
        var out = ByteWriter()
        for _ in 0..<20_000 {
            out.clear()
            let text = (0..<random.below(30)).flatMap { _ in
                random.oneIn(20) ? random.bytes(2) : pieces[random.below(14)]
            }
            for pointer in ["/id", "/id/0", "/0/id"] {
                _ = JSONPointer(pointer)!.read(text.span, into: &out, most: 256)
            }
        }
    }

    private static func text(_ random: inout Random) -> String {
        let alphabet: [Character] = ["a", "b", "/", "~", "\"", "\\", "é", "😀", "\n", "\t", "0", " "]
        return String((0..<random.below(random.oneIn(4) ? 20 : 6)).map { _ in alphabet[random.below(12)] })
    }

    private static func any(_ random: inout Random, _ depth: Int, _ names: [String]) -> Any {
        switch random.below(depth > 0 ? 6 : 4) {
        case 0: return text(&random)
        case 1: return random.below(100_000) - 50_000
        case 2: return random.oneIn(2)
        case 3: return NSNull()
        case 4: return (0..<random.below(4)).map { _ in any(&random, depth - 1, names) }
        default:
            var object: [String: Any] = [:]
            for _ in 0..<random.below(5) { object[names[random.below(4)]] = any(&random, depth - 1, names) }
            return object
        }
    }
}
