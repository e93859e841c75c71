import Bytes
import Foundation
import Kinesis
import Seeded
import Testing

/// With software that we did not write: one start of Python for each direction.
@Suite struct InteropTests {
    @Test func `botocore signs the same`() throws {
        var random = Random()
        var (lines, ours): ([String], [String]) = ([], [])
        for index in 0..<600 {
            let body =
                switch index % 3 {
                case 0: WireFormat.json.encode(random.tree(.json, depth: 0))
                case 1: WireFormat.cbor.encode(random.tree(.cbor, depth: 0))
                default: random.bytes(random.below(500))
                }
            let token = random.oneIn(2) ? Array(random.bytes(random.below(200) + 1)).hex + "/+=" : nil
            let credentials = Credentials(
                accessKeyID: "AKIA" + random.bytes(8).hex.uppercased(),
                secretAccessKey: random.bytes(15).hex + "/+",
                sessionToken: token
            )
            let seconds = Int64.random(in: 0...4_102_444_800, using: &random)
            let time = SigningTime(unixSeconds: seconds)
            let region = ["us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1"][random.below(4)]
            let host = "kinesis.\(region).amazonaws.com" + (random.oneIn(5) ? ":8443" : "")
            var headers = [
                ("Host", host), ("X-Amz-Target", "Kinesis_20131202.PutRecords"), ("X-Amz-Date", time.text),
                ("Content-Type", WireFormat.allCases[index % 2].contentType),
            ]
            if random.oneIn(3) { headers.append(("X-Penstock-\(index)", "  a  b\t c \(random.next()) ")) }
            if random.oneIn(3) { headers.append(("Content-Length", "\(body.count)")) }
            // botocore adds these two itself.
            let given = headers.filter { $0.0 != "X-Amz-Date" }
            if let token { headers.append(("X-Amz-Security-Token", token)) }
            headers.shuffle(using: &random)
            let path = random.oneIn(4) ? "/a-b_c~d.e/\(random.below(9))" : "/"
            let query = random.oneIn(4) ? "b=\(random.below(5))&a=x%20y&c=&b=1" : ""
            let method = random.oneIn(5) ? "GET" : "POST"
            var signer = SigV4(credentials: credentials, region: region)
            let request = SigV4.Request(
                method: method,
                path: path,
                query: query,
                headers: headers.map { (name: $0.0, value: $0.1) },
                bodyHash: SHA256.hexadecimal(of: body)
            )
            ours.append(signer.authorization(for: request, at: time))
            let line = WireValue.object([
                "method": .text(method), "url": .text("https://\(host)\(path)\(query.isEmpty ? "" : "?" + query)"),
                "headers": .list(given.map { .list([.text($0.0), .text($0.1)]) }), "body": .text(body.hex),
                "access": .text(credentials.accessKeyID), "secret": .text(credentials.secretAccessKey),
                "token": token.map { .text($0) }, "region": .text(region), "seconds": .integer(seconds),
            ])
            lines.append(String(decoding: WireFormat.json.encode(line), as: UTF8.self))
        }
        let theirs = try Peer.run("sigv4.py", lines: lines)
        #expect(theirs.count == ours.count)
        for (index, pair) in zip(ours, theirs).enumerated() {
            #expect(pair.0 == pair.1, "\(lines[index]) \(random.note)")
        }
    }

    /// A record as the scripts write it: key, hash key or nothing, data; keys and data in hexadecimal.
    func line(_ records: [UserRecord]) -> String {
        records.map {
            "\($0.partitionKey.hex),\(String(decoding: $0.explicitHashKey ?? [], as: UTF8.self)),\($0.data.hex)"
        }
        .joined(separator: ";")
    }

    @Test func `aws_kinesis_agg takes our aggregates apart`() throws {
        var random = Random()
        let md5 = MD5()
        let pool = BufferPool(mostKept: 0)
        var (lines, wanted): ([String], [String]) = ([], [])
        for _ in 0..<300 {
            // Within one aggregate all have a hash key or none: it misreads a mixture.
            let explicit = random.oneIn(2)
            var writer = AggregateWriter(maxSize: 51_200, pool: pool)
            var records: [UserRecord] = []
            let keys = (0...random.below(random.oneIn(5) ? 200 : 12)).map { _ in
                let text = Array((random.text() + "\(random.below(100))").utf8)
                return explicit
                    ? RecordKey(partitionKey: text, explicit: HashKey(UInt128(random.next()) << 64))
                    : RecordKey(partitionKey: text, md5)
            }
            for _ in 0..<2 + random.below(300) {
                let data = random.bytes(random.below(150))
                let key = keys[random.below(keys.count)]
                let run = Run(source: 0, first: 0, end: 1)
                guard writer.append(data.span, under: key, from: run, receipt: .now) else { break }
                let hash = explicit ? key.explicitHashKey : nil
                records.append(UserRecord(partitionKey: key.partitionKey, explicitHashKey: hash, data: data))
            }
            let sealed = writer.seal()!
            lines.append(sealed.array.hex)
            wanted.append(line(records))
        }
        let theirs = try Peer.run("aggregates.py", "deaggregate", lines: lines)
        #expect(theirs.count == wanted.count)
        for (theirs, ours) in zip(theirs, wanted) { #expect(theirs == ours, random.note) }
    }

    @Test func `we take the aggregates of aws_kinesis_agg apart`() throws {
        let random = Random()
        let lines = try Peer.run("aggregates.py", "aggregate", "\(random.seed)", "300")
        #expect(lines.count == 600)
        let deaggregator = Deaggregator()
        for index in stride(from: 0, to: lines.count, by: 2) {
            let bytes = Array(hex: lines[index])
            let records = deaggregator.userRecords(of: bytes.span)
            #expect(line(try #require(records, random.note)) == lines[index + 1], random.note)
            #expect(packedByLibprotobuf(records ?? []) == bytes, random.note)
        }
    }

    /// A value as one line of text, the same in Swift and in Python.
    func described(_ value: WireValue) -> String {
        switch value {
        case .null: "n"
        case .bool(let value): value ? "T" : "F"
        case .integer(let value): "i\(value)"
        case .number(let value): "f\(value.bitPattern)"
        case .text(let text): "t" + Array(text.utf8).hex
        case .data(let bytes): "b" + bytes.hex
        case .time(let milliseconds): "d\(milliseconds)"
        case .list(let values): "[" + values.map { described($0) }.joined(separator: ",") + "]"
        case .map(let members):
            "{" + members.map { Array($0.name.utf8).hex + ":" + described($0.value) }.joined(separator: ",") + "}"
        case .slice(let range): "slice \(range)"
        }
    }

    @Test func `cbor2 reads what we write`() throws {
        var random = Random()
        // A dict has a name once; and cbor2 makes a date of a time, which our milliseconds are too large for.
        func isPlain(_ value: WireValue) -> Bool {
            switch value {
            case .time: false
            case .list(let values): values.allSatisfy { isPlain($0) }
            case .map(let members):
                Set(members.map(\.name)).count == members.count && members.allSatisfy { isPlain($0.value) }
            case .null, .bool, .integer, .number, .text, .data, .slice: true
            }
        }
        let values = (0..<3000).map { _ in random.tree(.cbor, depth: 0) }.filter(isPlain)
        #expect(values.count > 1000)
        let theirs = try Peer.run("cbor.py", "read", lines: values.map { WireFormat.cbor.encode($0).hex })
        #expect(theirs == values.map { described($0) }, random.note)
    }

    @Test func `we read what cbor2 writes`() throws {
        let random = Random()
        let lines = try Peer.run("cbor.py", "write", "\(random.seed)", "2000")
        #expect(lines.count == 4000)
        for index in stride(from: 0, to: lines.count, by: 2) {
            let bytes = Array(hex: lines[index])
            let value = try WireFormat.cbor.read(bytes.span).owned(by: bytes, as: .cbor)
            #expect(described(value) == lines[index + 1], random.note)
        }
    }
}
