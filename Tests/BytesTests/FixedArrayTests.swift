import Bytes
import Seeded
import Testing

@Suite struct FixedArrayTests {
    final class Tally { var alive = 0 }

    struct Owned: ~Copyable {
        var value: Int
        let tally: Tally

        init(_ value: Int, _ tally: Tally) {
            (self.value, self.tally) = (value, tally)
            tally.alive += 1
        }

        deinit { tally.alive -= 1 }
    }

    @Test func `makes each value once, lends it for change, and ends each once`() {
        let tally = Tally()
        do {
            var array = FixedArray(count: 10) { Owned($0 * $0, tally) }
            #expect(array.count == 10)
            #expect(tally.alive == 10)
            array[3].value += 1
            array[4] = Owned(-1, tally)
            let values = array.indices.map { array[$0].value }
            #expect(values == [0, 1, 4, 10, -1, 25, 36, 49, 64, 81])
            #expect(tally.alive == 10)
        }
        #expect(tally.alive == 0)
    }

    @Test func `may be empty`() {
        let array = FixedArray(count: 0) { $0 }
        #expect(array.count == 0)
        #expect(array.indices.isEmpty)
    }

    @Test(arguments: [-1, 3])
    func `an index outside is a programming error`(index: Int) async {
        await #expect(processExitsWith: .failure) { [index] in
            let array = FixedArray(count: 3) { $0 }
            _ = array[index]
        }
    }
}
