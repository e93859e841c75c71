import Kinesis
import Seeded
import Testing

@Suite struct ShardMapTests {
    typealias Fault = ShardMap.Fault

    static func shard(_ number: UInt64, _ from: UInt128, _ to: UInt128, isOpen: Bool = true) -> Shard {
        Shard(id: ShardID(number: number), range: HashKey(from)...HashKey(to), isOpen: isOpen)
    }

    /// The KPL's own cases; its map may answer with a closed parent, ours names the open child.
    @Test(.enabled(if: Vectors.exist, Vectors.absent))
    func `finds the shards that the KPL's map finds`() throws {
        let cases = try #require(Vectors.json("shardmap.json")["cases"]?.list)
        var lookups = 0
        for vector in cases {
            let name = try #require(vector["name"]?.string)
            let answers = try #require(vector["listshards_answers_in_order"]?.list)
            let wanted = try #require(vector["lookups_in_test_order"]?.list)
            // The others are about requests and timing; some list half a stream.
            if wanted.isEmpty { continue }
            // Pages belong together; after an error the listing begins anew, so a shard may be listed twice.
            var maps: [ShardMap] = []
            var shards: [Shard] = []
            for answer in answers where answer["Shards"] != nil {
                for shard in try Self.shards(of: answer) where !shards.contains(where: { $0.id == shard.id }) {
                    shards.append(shard)
                }
                if answer["NextToken"] == nil {
                    maps.append(try ShardMap(shards))
                    shards = []
                }
            }
            // An invalidation halves the lookups between two answers.
            let share = name.hasPrefix("Invalidate") ? wanted.count / 2 : wanted.count
            for (index, lookup) in wanted.enumerated() {
                let map = name.hasPrefix("Invalidate") ? maps[index / share] : try #require(maps.last)
                let hash = try #require(lookup["hash"]?.string.flatMap { HashKey(decimal: $0) })
                #expect(map[hash].id.number == lookup["shard"]?.integer.map { UInt64($0) }, "\(name) \(hash)")
                lookups += 1
            }
            for lookup in vector["lookups_either"]?.list ?? [] {
                let hash = try #require(lookup["hash"]?.string.flatMap { HashKey(decimal: $0) })
                let found = try #require(maps.last)[hash]
                let allowed = lookup["shard_any_of"]?.list?.compactMap { $0.integer } ?? []
                #expect(allowed.contains(Int64(found.id.number)), "\(name) \(hash)")
                #expect(found.isOpen)
                lookups += 1
            }
        }
        #expect(lookups > 40)
    }

    static func shards(of answer: WireValue) throws -> [Shard] {
        try #require(answer["Shards"]?.list).map { shard in
            let range = try #require(shard["HashKeyRange"])
            let start = try #require(range["StartingHashKey"]?.string.flatMap { HashKey(decimal: $0) })
            let end = try #require(range["EndingHashKey"]?.string.flatMap { HashKey(decimal: $0) })
            let isOpen = shard["SequenceNumberRange"]?["EndingSequenceNumber"] == nil
            let id = try #require(shard["ShardId"]?.string.flatMap { ShardID($0) })
            return Shard(id: id, range: start...end, isOpen: isOpen)
        }
    }

    @Test func `refuses shards that leave a hash key to none or to two`() {
        let half = UInt128(1) << 127
        #expect(throws: Fault.empty) { try ShardMap([]) }
        #expect(throws: Fault.empty) { try ShardMap([Self.shard(0, 0, .max, isOpen: false)]) }
        #expect(throws: Fault.gap(before: ShardID(number: 0))) { try ShardMap([Self.shard(0, 1, .max)]) }
        #expect(throws: Fault.gap(after: ShardID(number: 0))) { try ShardMap([Self.shard(0, 0, .max - 1)]) }
        #expect(throws: Fault.gap(before: ShardID(number: 1))) {
            try ShardMap([Self.shard(1, half + 1, .max), Self.shard(0, 0, half - 1)])
        }
        #expect(throws: Fault.overlap(ShardID(number: 1))) {
            try ShardMap([Self.shard(0, 0, half), Self.shard(1, half, .max)])
        }
        #expect(throws: Fault.overlap(ShardID(number: 2))) {
            try ShardMap([Self.shard(1, 0, .max), Self.shard(2, half, .max)])
        }
        #expect(throws: Fault.overlap(ShardID(number: 2))) {
            try ShardMap([Self.shard(1, 0, .max), Self.shard(2, 0, .max)].sorted { $0.id < $1.id })
        }
    }

    @Test(arguments: [1, 2, 3, 100, 10_000])
    func `each of many shards takes its range, both ends included`(count: Int) throws {
        var random = Random()
        var starts: Set<UInt128> = [0]
        while starts.count < count { starts.insert(UInt128(random.next()) << 64 | UInt128(random.next())) }
        let sorted = starts.sorted()
        var shards = sorted.indices.map { index in
            Self.shard(UInt64(index), sorted[index], index + 1 < count ? sorted[index + 1] - 1 : .max)
        }
        // A closed parent of everything must not matter.
        shards.append(Self.shard(UInt64(count), 0, .max, isOpen: false))
        shards.shuffle(using: &random)
        let map = try ShardMap(shards)
        #expect(map.count == count)
        for (index, shard) in map.shards.enumerated() {
            let (low, high) = (shard.range.lowerBound, shard.range.upperBound)
            let middle = HashKey(low.value + (high.value - low.value) / 2)
            for hash in [low, middle, high] where map.index(of: hash) != index {
                Issue.record("\(hash) is in shard \(index), not \(map.index(of: hash)); \(random.note)")
            }
        }
        #expect(map.index(of: ShardID(number: 0)) == 0)
        #expect(map.index(of: ShardID(number: UInt64(count))) == nil)
    }

    @Test func `a shard's name is read and written in the service's form`() {
        #expect(ShardID("shardId-000000000012") == ShardID(number: 12))
        #expect(ShardID(number: 12).description == "shardId-000000000012")
        #expect(ShardID(number: 1_234_567_890_123).description == "shardId-1234567890123")
        for text in ["", "shardId-", "shard-1", "shardId--1", "shardId-+1", "shardId-1 ", "shardId-0x1", "12"] {
            #expect(ShardID(text) == nil, "\(text)")
        }
    }
}
