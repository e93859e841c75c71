import Agent
import Bytes
import Kinesis
import Logging
import Platform
import Seeded
import Testing

@Suite struct ShardMapLoaderTests {
    let now = Instant.now

    static func page(_ shards: [(Int, String, String)], closed: [Int] = [], next: String? = nil) -> [UInt8] {
        let list = shards.map { id, start, end in
            "{\"ShardId\":\"shardId-00000000000\(id)\",\"HashKeyRange\":{\"StartingHashKey\":\"\(start)\","
                + "\"EndingHashKey\":\"\(end)\"},\"SequenceNumberRange\":{\"StartingSequenceNumber\":\"1\""
                + (closed.contains(id) ? ",\"EndingSequenceNumber\":\"2\"}}" : "}}")
        }
        let token = next.map { ",\"NextToken\":\"\($0)\"" } ?? ""
        return Array("{\"Shards\":[\(list.joined(separator: ","))]\(token)}".utf8)
    }

    static let highest = HashKey.highest.description

    static func take(_ loader: inout ShardMapLoader, _ page: [UInt8], now: Instant) throws
        -> ShardMapLoader
        .Taken
    {
        loader.take(try WireFormat.json.read(page.span), page.span, now: now)
    }

    @Test func `asks page after page, and then rests until a new map is wanted, or for ten minutes`() throws {
        var loader = ShardMapLoader(stream: .name("s"), chance: 0.5)
        check(loader.nextDue(now: now) != nil)
        check(loader.nextCall(now: now)?["StreamName"] != nil)
        check(loader.nextCall(now: now) == nil && loader.nextDue(now: now) == nil)
        guard case .more = try Self.take(&loader, Self.page([(1, "10", Self.highest)], next: "t"), now: now) else {
            Issue.record("not more")
            return
        }
        let next = loader.nextCall(now: now)
        let second = try #require(next)
        #expect(second["StreamName"] == nil && second["NextToken"] != nil)
        guard case .map(let map, _, _) = try Self.take(&loader, Self.page([(0, "0", "9")]), now: now) else {
            Issue.record("not a map")
            return
        }
        #expect(map.count == 2)
        #expect(loader.nextCall(now: now) == nil && loader.nextDue(now: now) == now + .seconds(600))
        loader.refresh()
        loader.refresh()
        // Not in a loop.
        let due = try #require(loader.nextDue(now: now))
        #expect(due > now && loader.nextCall(now: now) == nil)
        #expect(loader.nextCall(now: due) != nil)
    }

    @Test func `what is wanted while it asks is asked for again`() throws {
        var loader = ShardMapLoader(stream: .name("s"), chance: 0.5)
        _ = loader.nextCall(now: now)
        loader.refresh()
        guard case .map(_, _, isStale: true) = try Self.take(&loader, Self.page([(0, "0", Self.highest)]), now: now)
        else {
            Issue.record("not a map, or said to be new")
            return
        }
        #expect(loader.nextDue(now: now) != nil)
        #expect(loader.nextCall(now: now + .seconds(2)) != nil)
    }

    @Test func `closed shards are told when they are asked for, and until a whole list came`() throws {
        var loader = ShardMapLoader(stream: .name("s"), chance: 0.5)
        _ = loader.nextCall(now: now)
        loader.refresh(closed: true)
        _ = try Self.take(&loader, Self.page([(0, "0", Self.highest)]), now: now)
        let first = loader.nextCall(now: now + .seconds(2))
        #expect(try #require(first)["ShardFilter"] == nil)
        loader.failed(until: now + .seconds(3))
        let second = loader.nextCall(now: now + .seconds(3))
        #expect(try #require(second)["ShardFilter"] == nil)
        let page = Self.page([(0, "0", Self.highest), (1, "0", "9")], closed: [1])
        guard case .map(let map, let closed, isStale: false) = try Self.take(&loader, page, now: now) else {
            Issue.record("not a map, or stale")
            return
        }
        #expect(map.count == 1)
        #expect(closed.map(\.id) == [ShardID(number: 1)])
        let third = loader.nextCall(now: now + .seconds(1000))
        #expect(try #require(third)["ShardFilter"] != nil)
    }

    @Test(arguments: [
        page([]), page([(0, "0", "9")]), page([(0, "1", highest)]), page([(0, "0", "9"), (1, "9", highest)]),
        page([(0, "9", "0")]), page([(0, "x", highest)]), Array("{}".utf8), Array("null".utf8),
        Array("{\"Shards\":[7]}".utf8), Array("{\"Shards\":[{\"ShardId\":\"s-1\"}]}".utf8),
    ])
    func `a list with a gap, or that cannot be read, is asked for again after a second`(page: [UInt8]) throws {
        var loader = ShardMapLoader(stream: .name("s"), chance: 0.5)
        _ = loader.nextCall(now: now)
        guard case .unusable = try Self.take(&loader, page, now: now) else {
            Issue.record("usable")
            return
        }
        #expect(loader.nextDue(now: now) == now + .seconds(1))
        #expect(loader.nextCall(now: now) == nil)
        _ = loader.nextCall(now: now + .seconds(1))
        guard case .map(let map, _, _) = try Self.take(&loader, Self.page([(0, "0", Self.highest)]), now: now) else {
            Issue.record("no map: a rest of the earlier list")
            return
        }
        #expect(map.count == 1)
    }

    @Test func `after a failed page the list is begun anew`() throws {
        var loader = ShardMapLoader(stream: .arn("arn"), chance: 0.5)
        _ = loader.nextCall(now: now)
        _ = try Self.take(&loader, Self.page([(0, "0", "9")], next: "t"), now: now)
        _ = loader.nextCall(now: now)
        loader.failed(until: now + .seconds(3))
        #expect(loader.nextCall(now: now + .seconds(2)) == nil)
        #expect(loader.nextCall(now: now + .seconds(3))?["StreamARN"] != nil)
        guard case .map(let map, _, _) = try Self.take(&loader, Self.page([(0, "0", Self.highest)]), now: now) else {
            Issue.record("no map")
            return
        }
        #expect(map.count == 1)
    }
}
