import Bytes
import Kinesis
import Seeded
import Testing

@Suite struct PutRecordsTests {
    @Test(.enabled(if: Vectors.exist, Vectors.absent), arguments: WireFormat.allCases)
    func `reads the answers that the KPL is tested with`(format: WireFormat) throws {
        let cases = try #require(Vectors.json("putrecords_answers.json")["cases"]?.list)
        #expect(cases.count >= 7)
        for vector in cases {
            let name = try #require(vector["name"]?.string)
            let answer = try #require(vector["answer"])
            let records = try #require(answer["Records"]?.list)
            let wanted: [PutRecords.Result] = records.map { record in
                if let code = record["ErrorCode"]?.string {
                    .refused(ServiceError(code: code, message: record["ErrorMessage"]?.string ?? ""))
                } else {
                    .stored(in: ShardID(record["ShardId"]?.string ?? "") ?? ShardID(number: 99))
                }
            }
            let body = format.encode(answer)
            #expect(try PutRecords.results(body.span, as: format, for: records.count) == wanted, "\(name)")
            #expect(throws: PutRecords.Distrust.wrongCount(records.count, sent: records.count + 1)) {
                try PutRecords.results(body.span, as: format, for: records.count + 1)
            }
            if name == "Partial" {
                let kinds: [ServiceError.Kind?] = wanted.map {
                    if case .refused(let error) = $0 { error.kind } else { nil }
                }
                #expect(kinds == [nil, nil, .transient, .transient, .transient, .throttled])
            }
        }
    }

    @Test(arguments: [
        "[]", "{}", "{\"Records\":null}", "{\"Records\":{}}", "{\"Records\":[{}]}", "{\"Records\":[null]}", "",
        "<html>",
        "{\"Records\":[{\"ShardId\":\"x\"}]}", "{\"Records\":[{\"ShardId\":7}]}", "{\"Records\":[{\"ErrorCode\":7}]}",
    ])
    func `trusts no answer that does not say what became of the record`(text: String) {
        #expect(throws: PutRecords.Distrust.self) {
            try PutRecords.results(Array(text.utf8).span, as: .json, for: 1)
        }
    }

    @Test(arguments: WireFormat.allCases)
    func `a body reads back as the records it was written of`(format: WireFormat) throws {
        var random = Random()
        let md5 = MD5()
        let pool = BufferPool(mostKept: 0)
        var heads = ByteWriter()
        var pieces: [PutRecords.Piece] = []
        for round in 0..<60 {
            let stream: StreamName =
                random.oneIn(2) ? .name("s-\(round)") : .arn("arn:aws:kinesis:eu-west-1:1:stream/é")
            let records = (0..<[0, 1, 2, 30, 500][round % 5]).map { index in
                var writer = AggregateWriter(maxSize: 60_000, pool: pool)
                let text = Array("k\"\\\n\u{1}é😀\(index)".utf8)
                let key =
                    random.oneIn(2)
                    ? RecordKey(partitionKey: text, md5)
                    : RecordKey(partitionKey: text, explicit: HashKey(UInt128(random.next())))
                for _ in 0...random.below(3) {
                    let data = random.bytes(random.below(random.oneIn(10) ? 30_000 : 100))
                    _ = writer.append(data.span, under: key, from: Run(source: 0, first: 0, end: 1), receipt: .now)
                }
                return writer.seal()!
            }
            let size = PutRecords.write(records, to: stream, as: format, heads: &heads, pieces: &pieces)
            var body: [UInt8] = []
            for piece in pieces {
                switch piece {
                case .head(let range): body += heads.array[range]
                case .data(let index): body += records[index].array
                case .base64(let index):
                    var text = ByteWriter()
                    records[index].withData { Base64.encode($0, to: &text) }
                    body += text.array
                }
            }
            #expect(body.count == size, random.note)
            let value = try format.read(body.span)
            #expect(value.members?.first?.name == stream.member)
            let name = value[stream.member]?.text(in: body.span)
            #expect(name == stream.text)
            let written = try #require(value["Records"]?.list)
            #expect(written.count == records.count, random.note)
            for (value, record) in zip(written, records) {
                let key = value["PartitionKey"]?.text(in: body.span)
                #expect(key == String(decoding: record.key.partitionKey, as: UTF8.self), random.note)
                let hash = value["ExplicitHashKey"]?.text(in: body.span)
                #expect(hash == record.key.explicitHashKey?.description, random.note)
                switch try #require(value["Data"]).owned(by: body, as: format) {
                case .data(let bytes): #expect(bytes == record.array, random.note)
                case .text(let text):
                    let bytes = Base64.decode(Array(text.utf8).span)
                    #expect(bytes == record.array, random.note)
                case let other: Issue.record("data as \(other)")
                }
            }
        }
    }
}

@Suite struct ServiceErrorTests {
    func error(_ status: Int, _ header: String? = nil, _ body: String = "") -> ServiceError {
        ServiceError(status: status, errorType: header, body: Array(body.utf8).span, format: nil)
    }

    @Test(arguments: [
        ("ResourceNotFoundException", "ResourceNotFoundException"),
        ("com.amazonaws.kinesis#ResourceNotFoundException", "ResourceNotFoundException"),
        ("ResourceNotFoundException:http://internal.amazon.com/coral/x#y/", "ResourceNotFoundException"),
        ("a.b#ResourceNotFoundException:http://x/", "ResourceNotFoundException"),
    ])
    func `an exception's name loses what surrounds it, in the header and in the body`(long: String, short: String) {
        #expect(error(400, long).code == short)
        #expect(error(400, nil, "{\"__type\":\"\(long)\"}").code == short)
        #expect(error(400, "", "{\"__type\":\"\(long)\"}").code == short)
        #expect(error(400, long).kind == .permanent)
    }

    @Test func `says what to do for answers of every shape`() {
        #expect(error(500).kind == .transient)
        #expect(error(503, nil, "<html>busy</html>") == error(503))
        #expect(error(503).code == "HTTP 503")
        #expect(error(429).kind == .throttled)
        #expect(error(403).kind == .permanent)
        #expect(error(400, "SomethingNewException").kind == .permanent)
        #expect(error(500, "SomethingNewException").kind == .transient)
        #expect(error(400, "ThrottlingException").kind == .throttled)
        #expect(error(400, "ExpiredTokenException").kind == .credentials)
        let skewed = error(403, "InvalidSignatureException", "{\"message\":\"Signature expired: 2015 is earlier\"}")
        #expect(skewed.kind == .clock)
        #expect(error(403, "InvalidSignatureException").kind == .credentials)
        #expect(error(400, nil, "{\"__type\":\"X\",\"Message\":\"why\"}").message == "why")
        #expect(error(400, nil, "{\"__type\":\"X\",\"Message\":\"why\"}").description == "X: why")
    }
}
