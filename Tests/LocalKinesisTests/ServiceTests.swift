import Kinesis
import Testing

@testable import LocalKinesis

/// A service that is called without a socket.
struct Caller {
    let service: Service
    var format = WireFormat.json

    init(
        shards: Int = 2,
        format: WireFormat = .json,
        _ settings: Service.Settings = .init(),
        _ change: (inout Store.Rules) -> Void = { _ in }
    ) throws {
        service = Service(try Store.with(shards: shards, change), settings)
        self.format = format
    }

    struct Answer {
        var status: Int
        var bytes: [UInt8]
        var value: WireValue?

        subscript(name: String) -> WireValue? { value?[name] }

        func text(_ value: WireValue?) -> String? { value?.text(in: bytes.span) }
        var code: String? { text(self["__type"]) }
        var message: String? { text(self["message"]) }
    }

    func call(_ operation: String, _ value: WireValue, at now: Moment = noon) -> Answer {
        send("Kinesis_20131202.\(operation)", format.encode(value), at: now)
    }

    func send(
        _ target: String?,
        _ body: [UInt8],
        contentType: String? = nil,
        method: String = "POST",
        headers: [(name: String, value: String)] = [],
        at now: Moment = noon
    ) -> Answer {
        var headers = headers
        headers.append(("Content-Type", contentType ?? format.contentType))
        if let target { headers.append(("X-Amz-Target", target)) }
        let request = Service.Request(method: method, headers: headers, body: body)
        let answer = service.answer(request, at: now, MD5())
        return Answer(status: answer.status, bytes: answer.body, value: try? format.read(answer.body.span))
    }

    func put(_ bytes: [UInt8], key: String = "k", hash: String? = nil) -> Answer {
        call(
            "PutRecord",
            .object([
                "StreamName": .text("s"), "Data": .data(bytes), "PartitionKey": .text(key),
                "ExplicitHashKey": hash.map(WireValue.text),
            ])
        )
    }

    func iterator(_ type: String, shard: String = "shardId-000000000000", at now: Moment = noon) throws -> String {
        let answer = call(
            "GetShardIterator",
            .object(["StreamName": .text("s"), "ShardId": .text(shard), "ShardIteratorType": .text(type)]),
            at: now
        )
        return try #require(answer.text(answer["ShardIterator"]))
    }
}

@Suite struct ErrorTests {
    @Test func `what is no call gets the answers of AWS`() throws {
        let caller = try Caller()
        #expect(caller.send("Kinesis_20131202.Nonsense", Array("{}".utf8)).code == "UnknownOperationException")
        #expect(caller.send("DynamoDB_20120810.ListTables", Array("{}".utf8)).code == "UnknownOperationException")
        #expect(caller.send("Kinesis_20131202.ListStreams", Array("{".utf8)).code == "SerializationException")
        #expect(caller.send("Kinesis_20131202.ListStreams", Array("[]".utf8)).code == "SerializationException")
        #expect(caller.send("Kinesis_20131202.ListStreams", []).code == "SerializationException")
        #expect(caller.send(nil, []).status == 403)
        #expect(caller.send("Kinesis_20131202.ListStreams", [], method: "GET").status == 403)
        #expect(caller.send("Kinesis_20131202.ListStreams", [], contentType: "text/plain").status == 404)
        #expect(caller.service.figures.errors == 8)
    }

    @Test func `a stream that does not exist is named`() throws {
        let answer = try Caller().call("DescribeStream", .object(["StreamName": .text("nope")]))
        #expect(answer.status == 400)
        #expect(answer.code == "ResourceNotFoundException")
        #expect(answer.message == "Stream nope under account 000000000000 not found.")
    }

    @Test func `all broken constraints are told at once`() throws {
        let answer = try Caller().call("DescribeStream", .object(["StreamName": .text(""), "Limit": .integer(0)]))
        #expect(answer.code == "ValidationException")
        #expect(
            answer.message == "3 validation errors detected: Value '0' at 'limit' failed to satisfy constraint: "
                + "Member must have value greater than or equal to 1; Value '' at 'streamName' failed to satisfy "
                + "constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; Value '' at "
                + "'streamName' failed to satisfy constraint: Member must have length greater than or equal to 1"
        )
    }

    @Test(arguments: WireFormat.allCases)
    func `the limits of a call hold`(format: WireFormat) throws {
        let caller = try Caller(format: format)
        func put(_ count: Int, _ size: Int, key: String = "k", hash: String? = nil) -> String? {
            let record = WireValue.object([
                "Data": .data(.init(repeating: 1, count: size)), "PartitionKey": .text(key),
                "ExplicitHashKey": hash.map(WireValue.text),
            ])
            let records = WireValue.list(.init(repeating: record, count: count))
            return caller.call("PutRecords", .object(["StreamName": .text("s"), "Records": records])).code
        }
        #expect(put(500, 10) == nil)
        #expect(put(501, 10) == "ValidationException")
        #expect(put(0, 10) == "ValidationException")
        #expect(put(1, 1 << 20 - 1) == nil)
        #expect(put(1, 1 << 20) == "ValidationException")
        #expect(put(10, 1 << 20 - 1) == nil)
        #expect(put(11, 1 << 20 - 1) == "InvalidArgumentException")
        #expect(put(1, 1, key: "") == "ValidationException")
        #expect(put(1, 1, key: .init(repeating: "ü", count: 256)) == nil)
        #expect(put(1, 1, key: .init(repeating: "ü", count: 257)) == "ValidationException")
        #expect(put(1, 0) == nil)
        #expect(put(1, 1, hash: "\(UInt128.max)") == nil)
        #expect(put(1, 1, hash: "340282366920938463463374607431768211456") == "InvalidArgumentException")
        #expect(put(1, 1, hash: "01") == "ValidationException")
        #expect(put(1, 1, hash: "-1") == "ValidationException")
        #expect(put(1, 1, hash: "") == "ValidationException")
    }

    @Test func `a stream may take larger records`() throws {
        let caller = try Caller(format: .cbor)
        let plan: WireValue = .object([
            "StreamName": .text("large"), "ShardCount": .integer(1), "MaxRecordSizeInKiB": .integer(10_240),
        ])
        #expect(caller.call("CreateStream", plan).status == 200)
        let record = WireValue.object([
            "StreamName": .text("large"), "Data": .data(.init(repeating: 1, count: 10 << 20 - 1)),
            "PartitionKey": .text("k"),
        ])
        #expect(caller.call("PutRecord", record).status == 200)
    }

    @Test func `data that is not base64 cannot be read`() throws {
        let body = #"{"StreamName":"s","PartitionKey":"k","Data":"a"}"#
        #expect(try Caller().send("Kinesis_20131202.PutRecord", Array(body.utf8)).code == "SerializationException")
    }

    @Test func `an iterator lives for five minutes`() throws {
        let caller = try Caller()
        let iterator = WireValue.text(try caller.iterator("LATEST"))
        let request = WireValue.object(["ShardIterator": iterator])
        #expect(caller.call("GetRecords", request, at: noon + .seconds(300)).status == 200)
        let late = caller.call("GetRecords", request, at: noon + .seconds(301))
        #expect(late.code == "ExpiredIteratorException")
        #expect(
            late.message == "Iterator expired. The iterator was created at time Thu May 28 20:26:40 UTC 2026 while "
                + "right now it is Thu May 28 20:31:41 UTC 2026 which is further in the future than the tolerated "
                + "delay of 300000 milliseconds."
        )
        let wrong = caller.call("GetRecords", .object(["ShardIterator": .text("AAAA")]))
        #expect(wrong.code == "InvalidArgumentException")
    }

    @Test func `a service that refuses CBOR still takes JSON`() throws {
        var caller = try Caller(format: .cbor, .init(refuseCBOR: true))
        #expect(caller.call("ListStreams", .object([:])).status == 500)
        caller.format = .json
        #expect(caller.call("ListStreams", .object([:])).status == 200)
    }
}

@Suite struct StreamCallTests {
    @Test func `a stream is created, listed, described and deleted`() throws {
        let caller = try Caller()
        let plan: WireValue = .object(["StreamName": .text("t"), "ShardCount": .integer(3)])
        #expect(caller.call("CreateStream", plan).bytes == [])
        #expect(caller.call("CreateStream", plan).code == "ResourceInUseException")
        let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/t"
        let summary = caller.call("DescribeStreamSummary", .object(["StreamARN": .text(arn)]))
        #expect(summary["StreamDescriptionSummary"]?["OpenShardCount"]?.integer == 3)
        #expect(summary.text(summary["StreamDescriptionSummary"]?["StreamARN"]) == arn)
        #expect(caller.call("DeleteStream", .object(["StreamARN": .text(arn)])).status == 200)
        #expect(caller.call("DeleteStream", .object(["StreamARN": .text(arn)])).code == "ResourceNotFoundException")
    }

    @Test func `a new stream is CREATING for as long as it was told`() throws {
        let caller = try Caller { $0.creationDelay = .milliseconds(500) }
        func status(_ now: Moment) -> String? {
            let answer = caller.call("DescribeStream", .object(["StreamName": .text("s")]), at: now)
            return answer.text(answer["StreamDescription"]?["StreamStatus"])
        }
        #expect(status(noon) == "CREATING")
        #expect(caller.put([1]).code == "ResourceNotFoundException")
        #expect(caller.call("ListShards", .object(["StreamName": .text("s")])).code == "ResourceInUseException")
        #expect(status(noon + .milliseconds(500)) == "ACTIVE")
    }

    @Test func `listings come in pages that hold everything once`() throws {
        let caller = try Caller(shards: 25)
        for number in 0..<24 {
            let plan: WireValue = .object(["StreamName": .text("t\(number)"), "ShardCount": .integer(1)])
            #expect(caller.call("CreateStream", plan).status == 200)
        }
        func pages(_ operation: String, _ list: String, _ first: WireValue, _ limit: String) -> [[WireValue]] {
            var pages: [[WireValue]] = []
            var request = first
            while true {
                let answer = caller.call(operation, request)
                pages.append(answer[list]?.list ?? [])
                guard let token = answer.text(answer["NextToken"]) else { return pages }
                request = .object(["NextToken": .text(token), limit: .integer(10)])
            }
        }
        let shards = pages(
            "ListShards",
            "Shards",
            .object(["StreamName": .text("s"), "MaxResults": .integer(10)]),
            "MaxResults"
        )
        #expect(shards.map(\.count) == [10, 10, 5])
        #expect(Set(shards.joined().map { "\($0["ShardId"]!)" }).count == 25)
        let streams = pages("ListStreams", "StreamNames", .object(["Limit": .integer(10)]), "Limit")
        #expect(streams.map(\.count) == [10, 10, 5])
        #expect(Set(streams.joined().map { "\($0)" }).count == 25)
    }

    @Test func `a page's token stands alone and expires`() throws {
        let caller = try Caller(shards: 5)
        let first = caller.call("ListShards", .object(["StreamName": .text("s"), "MaxResults": .integer(2)]))
        let token = WireValue.text(try #require(first.text(first["NextToken"])))
        let both = caller.call("ListShards", .object(["StreamName": .text("s"), "NextToken": token]))
        #expect(both.code == "InvalidArgumentException")
        #expect(caller.call("ListShards", .object([:])).code == "InvalidArgumentException")
        let late = caller.call("ListShards", .object(["NextToken": token]), at: noon + .seconds(301))
        #expect(late.code == "ExpiredNextTokenException")
        #expect(caller.call("ListStreams", .object(["NextToken": token])).code == "InvalidArgumentException")
    }

    @Test(arguments: ["AT_LATEST", "AT_TRIM_HORIZON", "FROM_TRIM_HORIZON"])
    func `filters pass every shard as long as all are open`(type: String) throws {
        let filter = WireValue.object(["Type": .text(type)])
        let answer = try Caller().call("ListShards", .object(["StreamName": .text("s"), "ShardFilter": filter]))
        #expect(answer["Shards"]?.list?.count == 2)
    }

    @Test func `a filter lists what comes after a shard`() throws {
        let filter = WireValue.object(["Type": .text("AFTER_SHARD_ID"), "ShardId": .text("shardId-000000000002")])
        let answer = try Caller(shards: 5).call(
            "ListShards",
            .object(["StreamName": .text("s"), "ShardFilter": filter])
        )
        #expect(answer["Shards"]?.list?.count == 2)
    }

    @Test func `DescribeStream goes on behind a shard`() throws {
        let caller = try Caller(shards: 5)
        let first = caller.call("DescribeStream", .object(["StreamName": .text("s"), "Limit": .integer(3)]))
        #expect(first["StreamDescription"]?["Shards"]?.list?.count == 3)
        #expect(first["StreamDescription"]?["HasMoreShards"]?.bool == true)
        let rest = caller.call(
            "DescribeStream",
            .object(["StreamName": .text("s"), "ExclusiveStartShardId": .text("shardId-000000000002")])
        )
        #expect(rest["StreamDescription"]?["Shards"]?.list?.count == 2)
        #expect(rest["StreamDescription"]?["HasMoreShards"]?.bool == false)
    }
}

@Suite struct RecordCallTests {
    @Test(arguments: WireFormat.allCases)
    func `records come back as they were put, each in its shard`(format: WireFormat) throws {
        let caller = try Caller(format: format)
        let payloads: [[UInt8]] = [[], [0, 255, 1], .init(0...255), .init(repeating: 9, count: 100_000)]
        let keys = ["a", "ключ", String(repeating: "x", count: 200), "\"\\\n"]
        let hashes = ["0", "\(UInt128.max)", nil, nil]
        let records = zip(payloads, zip(keys, hashes)).map { data, place in
            WireValue.object([
                "Data": .data(data), "PartitionKey": .text(place.0),
                "ExplicitHashKey": place.1.map(WireValue.text),
            ])
        }
        let answer = caller.call("PutRecords", .object(["StreamName": .text("s"), "Records": .list(records)]))
        #expect(answer["FailedRecordCount"]?.integer == 0)
        let results = try #require(answer["Records"]?.list)
        #expect(answer.text(results[0]["ShardId"]) == "shardId-000000000000")
        #expect(answer.text(results[1]["ShardId"]) == "shardId-000000000001")
        var found: [String: [UInt8]] = [:]
        for shard in ["shardId-000000000000", "shardId-000000000001"] {
            let iterator = try caller.iterator("TRIM_HORIZON", shard: shard)
            let read = caller.call("GetRecords", .object(["ShardIterator": .text(iterator)]))
            for record in try #require(read["Records"]?.list) {
                #expect(record["ApproximateArrivalTimestamp"]?.milliseconds == noon.milliseconds)
                found[try #require(read.text(record["PartitionKey"]))] = try bytes(record["Data"], of: read, format)
            }
        }
        for (key, payload) in zip(keys, payloads) { #expect(found[key] == payload) }
        let figures = caller.service.figures
        #expect(figures.recordsStored == 4)
        #expect(figures.bytesStored == zip(keys, payloads).reduce(0) { $0 + $1.0.utf8.count + $1.1.count })
    }

    private func bytes(_ value: WireValue?, of answer: Caller.Answer, _ format: WireFormat) throws -> [UInt8] {
        switch format {
        case .cbor:
            guard case .slice(let range) = value else { throw Refusal.serialization("no data") }
            return Array(answer.bytes[range])
        case .json:
            let text = try #require(answer.text(value))
            let bytes = Base64.decode(Array(text.utf8).span)
            return try #require(bytes)
        }
    }

    @Test func `a throttled record is told apart from its siblings`() throws {
        let caller = try Caller(shards: 1) { $0.enforceShardLimits = true }
        let record = WireValue.object([
            "Data": .data(.init(repeating: 1, count: 600_000)), "PartitionKey": .text("k"),
        ])
        let answer = caller.call(
            "PutRecords",
            .object(["StreamName": .text("s"), "Records": .list([record, record])])
        )
        #expect(answer.status == 200)
        #expect(answer["FailedRecordCount"]?.integer == 1)
        let results = try #require(answer["Records"]?.list)
        #expect(answer.text(results[0]["ErrorCode"]) == nil)
        #expect(answer.text(results[1]["ErrorCode"]) == "ProvisionedThroughputExceededException")
        #expect(results[1]["SequenceNumber"] == nil)
        let single = caller.put(.init(repeating: 1, count: 600_000))
        #expect(single.status == 400)
        #expect(single.code == "ProvisionedThroughputExceededException")
    }

    @Test(arguments: [
        ("DescribeStream", 10), ("DescribeStreamSummary", 20), ("ListStreams", 5), ("ListShards", 1000),
        ("GetShardIterator", 5), ("SplitShard", 5), ("UpdateShardCount", 10), ("CreateStream", 5),
    ])
    func `where limits are enforced calls are limited as the service limits them`(call: String, rate: Int) throws {
        let request = WireValue.object([
            "StreamName": .text("s"), "ShardId": .text("shardId-000000000000"), "ShardIteratorType": .text("LATEST"),
            "ShardToSplit": .text("shardId-000000000000"), "NewStartingHashKey": .text("0"), "ShardCount": .integer(1),
            "TargetShardCount": .integer(99), "ScalingType": .text("UNIFORM_SCALING"),
        ])
        // ListStreams knows no StreamName, and does not mind it.
        let (free, limited) = (try Caller(), try Caller { $0.enforceShardLimits = true })
        // Whatever a call is answered with otherwise: a limit has a message of its own.
        func isOver(_ caller: Caller, at now: Moment = noon) -> Bool {
            caller.call(call, request, at: now).message?.hasPrefix("Rate exceeded") == true
        }
        for _ in 0..<rate * 2 { #expect(!isOver(free)) }
        for _ in 0..<rate { #expect(!isOver(limited)) }
        #expect(isOver(limited))
        let late = limited.call(call, request)
        let code = call == "GetShardIterator" ? "ProvisionedThroughputExceededException" : "LimitExceededException"
        #expect(late.code == code)
        #expect(!isOver(limited, at: noon + .milliseconds(1000 / rate)))
    }

    @Test func `a stream's listings are limited by themselves`() throws {
        let caller = try Caller { $0.enforceShardLimits = true }
        let plan: WireValue = .object(["StreamName": .text("t"), "ShardCount": .integer(1)])
        #expect(caller.call("CreateStream", plan).status == 200)
        for _ in 0..<1001 { _ = caller.call("ListShards", .object(["StreamName": .text("s")])) }
        #expect(caller.call("ListShards", .object(["StreamName": .text("s")])).code == "LimitExceededException")
        #expect(caller.call("ListShards", .object(["StreamName": .text("t")])).status == 200)
    }

    @Test func `an iterator's type and its arguments must agree`() throws {
        let caller = try Caller()
        let number = WireValue.text(caller.put([1]).text(caller.put([1])["SequenceNumber"]) ?? "")
        func code(_ type: String, _ name: String?, _ value: WireValue) -> String? {
            var members: [WireValue.Member] = [
                .init("StreamName", .text("s")), .init("ShardId", .text("shardId-000000000000")),
                .init("ShardIteratorType", .text(type)),
            ]
            if let name { members.append(.init(name, value)) }
            return caller.call("GetShardIterator", .map(members)).code
        }
        #expect(code("LATEST", "StartingSequenceNumber", number) == "InvalidArgumentException")
        #expect(code("AT_SEQUENCE_NUMBER", nil, .null) == "InvalidArgumentException")
        #expect(code("AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber", .text("1")) == "InvalidArgumentException")
        #expect(code("AT_TIMESTAMP", nil, .null) == "InvalidArgumentException")
        #expect(code("SOMEWHERE", nil, .null) == "ValidationException")
        #expect(code("AT_TIMESTAMP", "Timestamp", .time(milliseconds: 0)) == nil)
    }
}
