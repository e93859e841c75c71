import Kinesis
import Testing

@Suite struct ShardWalkTests {
    static func member(_ number: UInt64, of parents: UInt64...) -> ShardWalk.Member {
        .init(
            Shard(id: ShardID(number: number), range: .lowest ... .highest),
            parents: parents.map { ShardID(number: $0) }
        )
    }

    static func ready(_ walk: inout ShardWalk) -> [UInt64] { walk.takeReady().map(\.id.number).sorted() }

    @Test func `children wait for their parent, a merge's child for both`() {
        var walk = ShardWalk()
        // 0 was split into 1 and 2, which were merged into 3; 4 stands alone.
        walk.add([
            Self.member(3, of: 1, 2), Self.member(0), Self.member(1, of: 0), Self.member(2, of: 0), Self.member(4),
        ])
        #expect(Self.ready(&walk) == [0, 4])
        #expect(Self.ready(&walk) == [])
        walk.ended(ShardID(number: 0), children: [Self.member(1, of: 0), Self.member(2, of: 0)])
        #expect(Self.ready(&walk) == [1, 2])
        walk.ended(ShardID(number: 1), children: [Self.member(3, of: 1, 2)])
        #expect(Self.ready(&walk) == [])
        walk.ended(ShardID(number: 2), children: [Self.member(3, of: 1, 2)])
        #expect(Self.ready(&walk) == [3])
    }

    @Test func `a merge's child waits for a parent that has not been told of yet`() {
        var walk = ShardWalk()
        walk.add([Self.member(0), Self.member(1)])
        #expect(Self.ready(&walk) == [0, 1])
        // 1 was split into 2 and 3, and 0 was merged with 2.
        walk.ended(ShardID(number: 0), children: [Self.member(4, of: 0, 2)])
        #expect(Self.ready(&walk) == [])
        walk.ended(ShardID(number: 1), children: [Self.member(2, of: 1), Self.member(3, of: 1)])
        #expect(Self.ready(&walk) == [2, 3])
        walk.ended(ShardID(number: 2), children: [Self.member(4, of: 0, 2)])
        #expect(Self.ready(&walk) == [4])
    }

    @Test func `a parent that the stream no longer has is not waited for`() {
        var walk = ShardWalk()
        walk.add([Self.member(7, of: 5, 6)])
        #expect(Self.ready(&walk) == [7])
    }

    @Test func `a shard that is told of twice is read once`() {
        var walk = ShardWalk()
        walk.add([Self.member(0), Self.member(1)])
        #expect(Self.ready(&walk) == [0, 1])
        walk.ended(ShardID(number: 0), children: [Self.member(2, of: 0, 1)])
        walk.ended(ShardID(number: 1), children: [Self.member(2, of: 0, 1)])
        #expect(Self.ready(&walk) == [2])
        walk.ended(ShardID(number: 1), children: [Self.member(2, of: 0, 1)])
        #expect(Self.ready(&walk) == [])
    }
}
