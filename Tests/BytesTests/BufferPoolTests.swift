import Bytes
import Seeded
import Testing

@Suite struct BufferPoolTests {
    @Test func `growing keeps the bytes, where they were or moved up`() {
        var random = Random()
        let pool = BufferPool(mostKept: 1 << 20)
        for _ in 0..<200 {
            let start = random.below(50)
            let count = random.below(3000)
            let shift = random.below(100)
            var bytes = PooledBytes(atLeast: start + count, from: pool)
            #expect(bytes.capacity >= start + count, random.note)
            let content = random.bytes(count)
            for index in 0..<count {
                unsafe bytes.base.storeBytes(of: content[index], toByteOffset: start + index, as: UInt8.self)
            }
            let larger = bytes.capacity + shift + random.below(100_000)
            bytes.grow(toAtLeast: larger, keeping: start..<start + count, movedBy: shift)
            #expect(bytes.capacity >= larger, random.note)
            let kept = bytes.withBytes(start + shift..<start + shift + count) { Array($0) }
            #expect(kept == content, random.note)
        }
    }

    @Test func `bytes that were empty grow`() {
        var bytes = PooledBytes(emptyFrom: BufferPool(mostKept: 0))
        #expect(bytes.capacity == 0)
        bytes.grow(toAtLeast: 100, keeping: 0..<0)
        #expect(bytes.capacity >= 100)
    }

    @Test func `keeps returned buffers up to its bound, and hands them out again`() {
        let pool = BufferPool(mostKept: 10_000)
        do {
            let first = PooledBytes(atLeast: 2000, from: pool)
            let second = PooledBytes(atLeast: 8000, from: pool)
            let third = PooledBytes(atLeast: 5000, from: pool)
            #expect(pool.used == first.capacity + second.capacity + third.capacity)
            #expect(pool.kept == 0)
        }
        #expect(pool.used == 0)
        #expect(pool.kept > 0 && pool.kept <= 10_000)
        let kept = pool.kept
        let again = PooledBytes(atLeast: 5000, from: pool)
        #expect(pool.kept == kept - again.capacity)
        #expect(pool.used == again.capacity)
        pool.giveBackKept()
        #expect(pool.kept == 0 && pool.used == again.capacity)
    }

    @Test func `counts what is in use through any order of taking, growing and giving back`() {
        var random = Random()
        let pool = BufferPool(mostKept: 40_000)
        var held = FixedArray(count: 16) { _ in PooledBytes(emptyFrom: pool) }
        for _ in 0..<5000 {
            let index = random.below(16)
            switch random.below(3) {
            case 0: held[index] = PooledBytes(emptyFrom: pool)
            case 1: held[index] = PooledBytes(atLeast: random.below(80_000), from: pool)
            default:
                if held[index].capacity > 0 {
                    held[index].grow(toAtLeast: held[index].capacity + random.below(10_000), keeping: 0..<10)
                }
            }
            let sum = held.indices.reduce(0) { $0 + held[$1].capacity }
            #expect(pool.used == sum, random.note)
            #expect((0...40_000).contains(pool.kept), random.note)
        }
    }
}
