import Bytes
import Agent
import Kinesis
import Platform
import Testing

@Suite struct RecordLimitTests {
    let now = Instant.now

    static func answer(_ kibibytes: Int?) throws -> WireValue {
        let member = kibibytes.map { ",\"MaxRecordSizeInKiB\":\($0)" } ?? ""
        let text = Array("{\"StreamDescriptionSummary\":{\"StreamName\":\"s\"\(member)}}".utf8)
        return try WireFormat.json.read(text.span)
    }

    @Test func `the stream is asked once, and again after some ten minutes`() throws {
        var limit = RecordLimit(stream: .arn("arn"), chance: 0.5)
        #expect(limit.bytes == nil && limit.nextDue(now: now) == now)
        let call = limit.nextCall(now: now)
        #expect(call?["StreamARN"] != nil)
        #expect(limit.nextCall(now: now) == nil && limit.nextDue(now: now) == nil)
        check(limit.take(try Self.answer(10_240), now: now) == true)
        #expect(limit.bytes == 10 << 20 && limit.told == 10 << 20)
        #expect(limit.nextDue(now: now) == now + .seconds(600))
        check(limit.nextCall(now: now + .seconds(599)) == nil && limit.nextCall(now: now + .seconds(600)) != nil)
        check(try limit.take(Self.answer(10_240), now: now + .seconds(600)) == false)
        // A record was refused: somebody has lowered it.
        limit.refresh(now: now + .seconds(700))
        check(limit.nextCall(now: now + .seconds(701)) != nil)
        check(limit.take(try Self.answer(2048), now: now + .seconds(701)) == true)
        #expect(limit.bytes == 2 << 20)
    }

    @Test(arguments: [nil, 0, 1, 1024]) func `a stream that tells nothing takes what every stream does`(
        told: Int?
    ) throws {
        var limit = RecordLimit(stream: .name("s"), chance: 0.5)
        _ = limit.nextCall(now: now)
        check(limit.take(try Self.answer(told), now: now) == true)
        #expect(limit.bytes == 1 << 20)
    }

    @Test func `an answer that describes no stream changes nothing`() throws {
        var limit = RecordLimit(stream: .name("s"), chance: 0.5)
        _ = limit.nextCall(now: now)
        check(limit.take(try Self.answer(10_240), now: now) == true)
        let isOther = limit.take(.null, now: now + .seconds(600))
        #expect(isOther == nil && limit.bytes == 10 << 20)
    }

    @Test func `who may not ask sends what every stream takes, and asks again later`() throws {
        var limit = RecordLimit(stream: .name("s"), chance: 0.5)
        _ = limit.nextCall(now: now)
        let first = limit.failed(isRefused: true, othersFail: false, chance: 0.5, now: now)
        #expect(first == .assumed && limit.bytes == 1 << 20 && limit.told == nil)
        #expect(limit.nextDue(now: now) == now + .seconds(600))
        let later = now + .seconds(600)
        _ = limit.nextCall(now: later)
        // Said once.
        let second = limit.failed(isRefused: true, othersFail: false, chance: 0.5, now: later)
        #expect(second == .again)
        _ = limit.nextCall(now: later + .seconds(600))
        check(limit.take(try Self.answer(10_240), now: later + .seconds(600)) == true)
        #expect(limit.bytes == 10 << 20)
    }

    @Test func `without an answer it is waited half a minute, and as long as nothing else is answered either`() {
        var limit = RecordLimit(stream: .name("s"), chance: 0.5)
        var assumed: Duration?
        var at = now
        while assumed == nil, at < now + .seconds(400) {
            guard limit.nextCall(now: at) != nil else {
                at = limit.nextDue(now: at) ?? at + .seconds(1)
                continue
            }
            let isOutage = at < now + .seconds(100)
            let failure = limit.failed(isRefused: false, othersFail: isOutage, chance: 0.5, now: at)
            if failure == .assumed { assumed = at - now }
        }
        #expect(assumed.map { $0 >= .seconds(130) && $0 < .seconds(260) } == true, "\(String(describing: assumed))")
        // What an earlier run was told holds.
        var kept = RecordLimit(stream: .name("s"), kept: 5 << 20, chance: 0.5)
        #expect(kept.bytes == 5 << 20)
        _ = kept.nextCall(now: now)
        let failure = kept.failed(isRefused: true, othersFail: false, chance: 0.5, now: now)
        #expect(failure == .again && kept.bytes == 5 << 20)
    }

    @Test func `the limit is kept beside the shard map, of the same stream`() throws {
        let scratch = try Scratch()
        let map = try ShardMap([Shard(id: ShardID(number: 0), range: .lowest ... .highest)])
        try Folder.replace(scratch["map"], with: ShardMapFile.encode(map, of: "s", recordBytes: 5 << 20))
        #expect(ShardMapFile.load(scratch["map"], of: "s") == map)
        #expect(ShardMapFile.recordBytes(scratch["map"], of: "s") == 5 << 20)
        #expect(ShardMapFile.recordBytes(scratch["map"], of: "t") == nil)
        try Folder.replace(scratch["map"], with: ShardMapFile.encode(map, of: "s"))
        #expect(ShardMapFile.load(scratch["map"], of: "s") == map)
        #expect(ShardMapFile.recordBytes(scratch["map"], of: "s") == nil)
    }
}
