import Kinesis
import Seeded
import Testing

@testable import LocalKinesis

extension FaultInjector {
    init(seed: UInt64 = 1, _ texts: String...) throws { self.init(seed: seed, try texts.map { try FaultRule($0) }) }

    /// Which of `count` calls in turn end, by the numbers of the rules that end them.
    fileprivate mutating func ends(
        _ count: Int,
        _ operation: Operation = .putRecords,
        by key: String? = nil
    ) -> [Int?] {
        (0..<count).map { _ in disturb(operation, by: key)?.end?.rule }
    }
}

@Suite struct FaultRuleTests {
    @Test func `a rule is read as it is written`() throws {
        func kind(_ text: String) throws -> FaultRule.Kind { try FaultRule(text).kind }
        #expect(try kind("record") == .record(code: "InternalFailure", stream: nil, shard: nil))
        #expect(try kind("record:code=X,stream=s,shard=3") == .record(code: "X", stream: "s", shard: 3))
        #expect(try kind("error:status=503") == .error(status: 503, code: "ServiceUnavailable"))
        #expect(try kind("error:status=502") == .error(status: 502, code: "InternalFailure"))
        #expect(try kind("error:code=InternalFailure") == .error(status: 500, code: "InternalFailure"))
        let denied = FaultRule.Kind.error(status: 400, code: "AccessDeniedException")
        #expect(try kind("error:code=AccessDeniedException") == denied)
        #expect(try kind("html") == .html(status: 503))
        #expect(try kind("hang:for=1.5s") == .hang(.milliseconds(1500)))
        #expect(try kind("delay:by=20ms") == .delay(.milliseconds(20)))
        #expect(try kind("slow:speed=64KiB") == .slow(bytesPerSecond: 65_536))
        #expect(try kind("count") == .count(by: -1))
        #expect(try kind("clock:by=-10m") == .clock(by: .seconds(-600)))
        #expect(try kind("clock:by=+1h") == .clock(by: .seconds(3600)))
        let rule = try FaultRule("reset:when=after,op=PutRecords,rate=2.5%,skip=10,times=3")
        #expect((rule.isAfter, rule.operation, rule.rate) == (true, .putRecords, 0.025))
        #expect((rule.skip, rule.times) == (10, 3))
        #expect(try FaultRule("expire").times == 1)
        #expect(try FaultRule("truncate").isAfter)
    }

    @Test(arguments: [
        ("resett", "there is no fault \"resett\": choose one of record, error, html, reset"),
        ("", "there is no fault \"\""),
        ("reset:rate", "\"rate\" is no NAME=VALUE"),
        ("reset:rate=2", "rate is a share from 0 to 1, like 0.02 or 2%"),
        ("reset:rate=101%", "rate is a share from 0 to 1"),
        ("reset:rate=-1%", "rate is a share from 0 to 1"),
        ("reset:by=3", "reset does not know by: it takes when, op, rate, skip, times"),
        ("reset:rate=1,rate=1", "rate is there twice"),
        ("reset:when=during", "when is before or after"),
        ("truncate:when=before", "truncate does not know when"),
        ("reset:op=PutRecord s", "op is the name of a call, like PutRecords"),
        ("error", "error needs a code, like code=AccessDeniedException, or a status from 500"),
        ("error:status=400", "error needs a code"),
        ("html:status=200", "status is an HTTP status from 400 to 599"),
        ("delay", "it needs by: a duration like 200ms"),
        ("delay:by=-1s", "by is a duration like 200ms"),
        ("delay:by=1e300h", "by is a duration like 200ms"),
        ("slow:speed=0", "speed is bytes a second, like 64KiB"),
        ("count:by=0", "by is a number of results, like -1 or 2"),
        ("clock:by=10m,rate=1", "clock does not know rate: it takes by"),
        ("expire:times=-1", "times is a number of calls"),
    ])
    func `what is no rule is told with what to do`(text: String, reason: String) {
        let fault = #expect(throws: FaultRule.Fault.self) { try FaultRule(text) }
        #expect(fault?.description.hasPrefix("\"\(text)\": ") == true)
        #expect(fault?.description.contains(reason) == true, "\(fault?.description ?? "")")
    }
}

@Suite struct FaultInjectorTests {
    @Test func `the same seed hits the same calls, another one others`() throws {
        func ends(_ seed: UInt64) throws -> [Int?] {
            var injector = try FaultInjector(seed: seed, "reset:rate=10%", "html:rate=10%")
            return injector.ends(1000)
        }
        #expect(try ends(7) == ends(7))
        #expect(try ends(7) != ends(8))
    }

    @Test func `a rule hits the share of calls that it was given`() throws {
        var injector = try FaultInjector("reset:rate=2%", "html:rate=50%")
        let ends = injector.ends(100_000)
        let resets = ends.count { $0 == 1 }
        // Five standard deviations.
        #expect((2000 - 222...2000 + 222).contains(resets))
        #expect((49_000 - 791...49_000 + 791).contains(ends.count { $0 == 2 }))
        #expect(injector.rules.map(\.seen) == [100_000, 100_000 - resets])
        #expect(injector.rules.map(\.hits) == [resets, ends.count { $0 == 2 }])
    }

    @Test func `a rule lets the first calls pass, and ends after so many hits`() throws {
        var injector = try FaultInjector("reset:skip=2,times=3", "html:op=ListShards")
        #expect(injector.ends(7) == [nil, nil, 1, 1, 1, nil, nil])
        #expect(injector.ends(2, .listShards) == [2, 2])
        let other = injector.disturb(.getRecords, by: nil)
        #expect(other == nil)
    }

    @Test func `what one rule draws does not depend on the others`() throws {
        var alone = try FaultInjector("reset:op=PutRecords,rate=30%")
        var among = try FaultInjector("reset:op=PutRecords,rate=30%", "html:op=ListShards,rate=50%")
        for _ in 0..<200 {
            _ = among.ends(1, .listShards)
            #expect(alone.ends(1) == among.ends(1))
        }
    }

    @Test func `pauses add up beside what ends the call`() throws {
        var injector = try FaultInjector(
            "delay:by=20ms",
            "delay:by=30ms",
            "delay:by=1s,when=after",
            "slow:speed=1KiB",
            "reset",
            "html"
        )
        let decided = injector.disturb(.putRecords, by: nil)
        let disturbance = try #require(decided)
        #expect(disturbance.pauseBefore == .milliseconds(50))
        #expect(disturbance.pauseAfter == .seconds(1))
        #expect(disturbance.readSpeed == 1024)
        #expect(disturbance.end?.kind == .reset)
        #expect(injector.rules.map(\.seen) == [1, 1, 1, 1, 1, 0])
    }

    @Test func `a key that expired stays so until there is another`() throws {
        var injector = try FaultInjector("expire:skip=1,times=2", "reset:rate=0")
        #expect(injector.ends(4, by: "A") == [nil, 1, 1, 1])
        #expect(injector.ends(2, .listShards, by: "A") == [1, 1])
        #expect(injector.ends(2, by: "B") == [1, 1])
        #expect(injector.ends(3, by: "C") == [nil, nil, nil])
        #expect(injector.ends(1, by: "A") == [1])
        #expect(injector.rules[0].hits == 2)
    }

    @Test func `records are refused by shard, stream and share`() throws {
        var injector = try FaultInjector(
            "record:code=ProvisionedThroughputExceededException,shard=1",
            "record:stream=t,rate=50%"
        )
        func codes(_ shard: UInt64, _ stream: String, _ count: Int = 1) -> [String?] {
            (0..<count).map { _ in injector.refusal(ofRecordFor: ShardID(number: shard), of: stream) }
        }
        #expect(codes(1, "s") == ["ProvisionedThroughputExceededException"])
        #expect(codes(0, "s") == [nil])
        let drawn = codes(0, "t", 10_000)
        #expect((5000 - 250...5000 + 250).contains(drawn.count { $0 == "InternalFailure" }))
        let call = injector.disturb(.putRecords, by: nil)
        #expect(call == nil)
        #expect(injector.remove(1).map(\.hits) == [1])
        #expect(injector.disturbsRecords)
        #expect(injector.remove().map(\.id) == [2])
        #expect(!injector.disturbsRecords)
    }
}

@Suite struct DisturbedServiceTests {
    /// Calls that go the way of a connection: what happens to them is decided first.
    private struct Faulty {
        let caller: Caller

        init(_ texts: String..., credentials: Credentials? = nil, format: WireFormat = .json) throws {
            caller = try Caller(format: format, .init(credentials: credentials))
            let faults = FaultInjector(seed: 5, try texts.map { try FaultRule($0) })
            caller.service.withStore { $0.faults = faults }
            caller.service.faultsChanged()
        }

        func reply(_ operation: String, _ value: WireValue, key: String = "A", signed: String? = nil) -> Service.Reply {
            let target = "Kinesis_20131202.\(operation)"
            let authorization = "AWS4-HMAC-SHA256 Credential=\(key)/20260528/us-east-1/kinesis/aws4_request"
            var headers = [
                (name: "Content-Type", value: caller.format.contentType), ("X-Amz-Target", target),
                ("Authorization", authorization),
            ]
            if let signed { headers.append(("X-Amz-Date", signed)) }
            let request = Service.Request(headers: headers, body: caller.format.encode(value))
            guard let disturbance = caller.service.disturbance({ request.header($0) }) else {
                return .init(form: .whole(caller.service.answer(request, at: noon, MD5())))
            }
            return caller.service.reply(request, at: noon, MD5(), under: disturbance)
        }

        /// Puts `count` records.
        func put(_ count: Int = 10) -> Service.Reply {
            let record = WireValue.object(["Data": .data([1, 2, 3]), "PartitionKey": .text("k")])
            let records = WireValue.list(.init(repeating: record, count: count))
            return reply("PutRecords", .object(["StreamName": .text("s"), "Records": records]))
        }

        func value(_ reply: Service.Reply) throws -> (status: Int, value: WireValue, bytes: [UInt8]) {
            guard case .whole(let answer) = reply.form else { throw Refusal("no answer") }
            return (answer.status, try caller.format.read(answer.body.span), answer.body)
        }

        var stored: Int { caller.service.figures.recordsStored }
        var account: (calls: Int, records: Int) {
            caller.service.withStore { ($0.faults.rules[0].untoldCalls, $0.faults.rules[0].untoldRecords) }
        }
    }

    @Test(arguments: ["reset", "hang:for=9s", "html:status=502", "error:status=500"])
    func `a call that ends before it is carried out stores nothing, one that ends after is accounted for`(
        text: String
    ) throws {
        let before = try Faulty(text)
        let form = before.put().form
        switch text {
        case "reset": #expect(form == .reset)
        case "hang:for=9s": #expect(form == .silence(.seconds(9)))
        default:
            guard case .whole(let answer) = form else { throw Refusal("no answer") }
            #expect(answer.status == (text == "html:status=502" ? 502 : 500))
            #expect(answer.contentType == (text == "html:status=502" ? "text/html" : "application/x-amz-json-1.1"))
        }
        #expect(before.stored == 0)
        #expect(before.account == (0, 0))
        let after = try Faulty(text + (text.contains(":") ? "," : ":") + "when=after,times=2")
        #expect(after.put().form == form)
        _ = after.put()
        _ = after.put()
        #expect(after.stored == 30)
        #expect(after.account == (2, 20))
    }

    @Test func `an answer that is cut short, or has a wrong count, tells of nothing`() throws {
        let cut = try Faulty("truncate")
        guard case .cut(let answer) = cut.put().form else { throw Refusal("not cut") }
        #expect(answer.status == 200)
        #expect(cut.account == (1, 10))
        for by in [-1, 3, -10] {
            let counted = try Faulty("count:by=\(by)")
            let (status, value, _) = try counted.value(counted.put())
            #expect(status == 200)
            #expect(value["Records"]?.list?.count == 10 + by)
            #expect(counted.stored == 10)
            #expect(counted.account == (1, 10))
        }
    }

    @Test(arguments: WireFormat.allCases)
    func `records fail one by one, and their siblings are stored`(format: WireFormat) throws {
        let faulty = try Faulty("record:rate=20%", "truncate:skip=1", format: format)
        let (_, value, bytes) = try faulty.value(faulty.put(500))
        let failed = value["FailedRecordCount"]?.integer ?? 0
        #expect((100 - 45...100 + 45).contains(failed))
        #expect(faulty.stored == 500 - Int(failed))
        let codes = (value["Records"]?.list ?? []).compactMap { $0["ErrorCode"]?.text(in: bytes.span) }
        #expect(codes == .init(repeating: "InternalFailure", count: Int(failed)))
        _ = faulty.put(500)
        let untold = faulty.caller.service.withStore { $0.faults.rules[1].untoldRecords }
        // Of the second call only what it stored is untold.
        #expect(untold == faulty.stored - 500 + Int(failed))
    }

    @Test func `a caller that goes away while its answer waits was not told`() throws {
        let faulty = try Faulty("delay:by=1s,when=after")
        let reply = faulty.put()
        #expect(reply.pause == .seconds(1))
        #expect(faulty.account == (0, 0))
        faulty.caller.service.noteUntold(reply)
        #expect(faulty.account == (1, 10))
    }

    @Test func `an expired key is refused until it changes`() throws {
        let faulty = try Faulty("expire")
        let names = WireValue.object([:])
        for (key, code) in [("A", "ExpiredTokenException"), ("A", "ExpiredTokenException"), ("B", nil)] {
            let (status, value, bytes) = try faulty.value(faulty.reply("ListStreams", names, key: key))
            #expect(value["__type"]?.text(in: bytes.span) == code)
            #expect(status == (code == nil ? 200 : 400))
        }
    }

    @Test func `a clock that is off refuses what is signed by the right one`() throws {
        let faulty = try Faulty("clock:by=10m")
        func code(_ signed: String?) throws -> String? {
            let (_, value, bytes) = try faulty.value(faulty.reply("ListStreams", .object([:]), signed: signed))
            return value["__type"]?.text(in: bytes.span)
        }
        // Noon is 20:26:40.
        #expect(try code("20260528T202640Z") == "InvalidSignatureException")
        #expect(try code("20260528T203640Z") == nil)
        #expect(try code(nil) == nil)
        #expect(faulty.caller.service.skew == .seconds(600))
        #expect(faulty.caller.service.withStore { $0.faults.rules[0].hits } == 1)
    }

    @Test func `rules come, are counted and go while the server runs`() throws {
        let caller = try Caller()
        func admin(_ method: String, _ path: String, _ body: String = "") throws -> (Int, WireValue, [UInt8]) {
            let request = Service.Request(method: method, uri: "/_penstock/\(path)", body: Array(body.utf8))
            let answer = caller.service.answer(request, at: noon, MD5())
            return (answer.status, try WireFormat.json.read(answer.body.span), answer.body)
        }
        func rules(_ answer: (Int, WireValue, [UInt8])) -> [String] {
            (answer.1["faults"]?.list ?? []).compactMap { $0["fault"]?.text(in: answer.2.span) }
        }
        #expect(try rules(admin("GET", "faults")) == [])
        let posted = try admin(
            "POST",
            "faults",
            #"[{"fault":"reset","when":"after","rate":0.5,"times":3},{"fault":"html"}]"#
        )
        #expect(posted.0 == 200)
        #expect(rules(posted) == ["reset:when=after,rate=0.5,times=3", "html"])
        #expect(
            try rules(admin("POST", "faults", #"{"fault":"record:shard=1","rate":"2%"}"#)) == ["record:shard=1,rate=2%"]
        )
        func isDisturbed() -> Bool {
            caller.service.disturbance { $0 == "x-amz-target" ? "Kinesis_20131202.PutRecords" : nil } != nil
        }
        #expect(isDisturbed())
        #expect(try rules(admin("GET", "faults")).count == 3)
        #expect(try rules(admin("DELETE", "faults/2")) == ["html"])
        #expect(try admin("DELETE", "faults/2").0 == 404)
        #expect(try rules(admin("DELETE", "faults")).count == 2)
        #expect(!isDisturbed())
        for wrong in ["", "{}", #"{"fault":"nonsense"}"#, #"{"fault":"reset","rate":true}"#, "[1]"] {
            let answer = try admin("POST", "faults", wrong)
            #expect(answer.0 == 400)
            #expect(answer.1["error"] != nil)
        }
        #expect(try admin("GET", "nothing").0 == 404)
        #expect(try admin("PUT", "faults").0 == 405)
        #expect(try admin("POST", "limits", #"{"stream":"s","shard":1,"percent":0}"#).0 == 200)
        #expect(caller.put([1], hash: "\(UInt128.max)").code == "ProvisionedThroughputExceededException")
        #expect(caller.put([1], hash: "0").code == nil)
        #expect(try admin("POST", "limits", #"{"stream":"s","shard":7,"percent":0}"#).0 == 400)
        #expect(try admin("POST", "limits", #"{"stream":"s"}"#).0 == 400)
    }
}
