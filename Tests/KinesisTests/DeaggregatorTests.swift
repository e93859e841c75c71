import Bytes
import Kinesis
import Seeded
import Testing

@Suite(.enabled(if: Vectors.exist, Vectors.absent))
struct GoldenAggregateTests {
    func data(_ vector: WireValue) throws -> [UInt8] {
        let text = Array(try #require(vector["data_b64"]?.string).utf8)
        let bytes = Base64.decode(text.span)
        return try #require(bytes)
    }

    func record(_ value: WireValue) throws -> UserRecord {
        UserRecord(
            partitionKey: Array(try #require(value["pk"]?.string).utf8),
            explicitHashKey: value["ehk"]?.string.map { Array($0.utf8) },
            data: Array(try #require(value["data"]?.string).utf8)
        )
    }

    @Test func `takes apart what AWS's producers made`() throws {
        let cases = try #require(Vectors.json("aggregated.json")["aggregated"]?.list)
        #expect(cases.count == 6)
        for vector in cases {
            let bytes = try data(vector)
            let records = Deaggregator().userRecords(of: bytes.span)
            if vector["aggregated"]?.bool == true {
                let records = try #require(records)
                #expect(records.count > 1)
                if let wanted = vector["expect"]?.list { #expect(records == (try wanted.map { try record($0) })) }
                #expect(packedByLibprotobuf(records) == bytes)
            } else {
                #expect(records == nil)
                #expect(try record(try #require(vector["expect"]?.list?.first)).data == bytes)
            }
        }
    }

    @Test func `leaves alone what only looks like an aggregate`() throws {
        let cases = try #require(Vectors.json("aggregated.json")["negative"]?.list)
        #expect(cases.count == 7)
        for vector in cases {
            let bytes = try data(vector)
            let records = Deaggregator().userRecords(of: bytes.span)
            #expect(records == nil, "\(vector["name"]?.string ?? "")")
        }
    }

    @Test func `makes the very bytes that the KPL makes`() throws {
        let cases = try #require(Vectors.json("aggregated.json")["produce_exactly"]?.list).filter { $0["adds"] != nil }
        #expect(cases.count >= 2)
        let md5 = MD5()
        for vector in cases {
            var writer = AggregateWriter(maxSize: 51_200, pool: BufferPool(mostKept: 0))
            for add in try #require(vector["adds"]?.list) {
                let user = try record(add)
                let hash = user.explicitHashKey.flatMap { HashKey(decimal: String(decoding: $0, as: UTF8.self)) }
                let key =
                    hash.map { RecordKey(partitionKey: user.partitionKey, explicit: $0) }
                    ?? RecordKey(partitionKey: user.partitionKey, md5)
                let taken = writer.append(
                    user.data.span,
                    under: key,
                    from: Run(source: 0, first: 0, end: 1),
                    receipt: .now
                )
                #expect(taken)
            }
            let sealed = writer.seal()
            #expect(sealed?.array == (try data(vector)), "\(vector["name"]?.string ?? "")")
            #expect(sealed?.key.partitionKey == [97])
        }
    }
}

@Suite struct DeaggregatorTests {
    func framed(_ message: [UInt8]) -> [UInt8] {
        let sum = MD5().sum(of: message.span)
        return AggregateWriter.magic + message + sum.indices.map { sum[$0] }
    }

    func records(of bytes: [UInt8]) -> [UserRecord]? { Deaggregator().userRecords(of: bytes.span) }

    @Test func `magic and checksum around nothing is a plain record, as for the KCL`() {
        #expect(records(of: framed([])) == nil)
    }

    @Test(arguments: [
        // A partition key index past the table, a hash key index past the table, no index, and 2^64 - 1.
        "0a0161 1a05 0801 1a0178", "0a0161 1a07 0800 1000 1a0178", "0a0161 1a03 1a0178",
        "0a0161 1a0e 08ffffffffffffffffff01 1a0178",
    ])
    func `an index that names no key makes no aggregate`(hex: String) {
        #expect(records(of: framed(Array(hex: hex))) == nil)
    }

    @Test func `tags and unknown fields are passed over`() {
        let message = Array(hex: "0a0161 1a0d 0800 1a0178 2206 0a016b 120176 2001")
        #expect(records(of: framed(message)) == [UserRecord(partitionKey: [97], data: [120])])
    }

    @Test func `any byte changed makes it a plain record`() {
        let whole = framed(Array(hex: "0a0161 1a05 0800 1a0178"))
        #expect(records(of: whole)?.count == 1)
        for index in whole.indices {
            for bit in 0..<8 as Range<UInt8> {
                var changed = whole
                changed[index] ^= 1 << bit
                #expect(records(of: changed) == nil, "byte \(index)")
            }
            #expect(records(of: Array(whole[..<index])) == nil)
        }
        #expect(records(of: whole + [0]) == nil)
    }
}
