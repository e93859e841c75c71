import Bytes
import Seeded
import Testing

@Suite struct RingTests {
    struct Item: Equatable {
        var payload: [UInt8]
        var kind, source: UInt32
        var first, end: UInt64

        init(_ payload: [UInt8], _ entry: RingEntry) {
            self.payload = payload
            (kind, source, first, end) = (entry.kind, entry.source, entry.first, entry.end)
        }
    }

    /// A ring and a plain queue take the same steps.
    @Test(arguments: [256, 1024, 16_384])
    func `gives back what a queue would, whatever the sizes`(capacity: Int) {
        var random = Random()
        let ring = Ring(capacity: capacity)
        var writer = RingWriter(ring)
        var reader = RingReader(ring)
        var (unpublished, queue): ([Item], [Item]) = ([], [])
        var (refusals, wraps, given) = (0, 0, 0)
        for step in 0..<20_000 {
            switch random.below(8) {
            case 0..<4:
                let most = random.below(random.oneIn(4) ? ring.largestPayload + 1 : 90)
                let used = random.oneIn(2) ? most : random.below(most + 1)
                let item = Item(
                    random.bytes(used),
                    RingEntry(kind: UInt32(step), source: UInt32(used), first: random.next(), end: random.next())
                )
                let nothing = random.oneIn(8)
                var called = false
                let accepted = unsafe writer.write(upTo: most) { room in
                    called = true
                    // All that was lent may be written to, used or not.
                    for index in 0..<room.count { unsafe room[index] = index < used ? item.payload[index] : 0xee }
                    if nothing { return nil }
                    let entry = RingEntry(kind: item.kind, source: item.source, first: item.first, end: item.end)
                    return (used, entry)
                }
                #expect(accepted == called, random.note)
                if accepted, !nothing { unpublished.append(item) }
                if !accepted { refusals += 1 }
            case 4..<6:
                writer.publish()
                queue += unpublished
                unpublished = []
                let drained = writer.isDrained
                #expect(drained == queue.isEmpty, random.note)
            default:
                let empty = reader.isEmpty
                #expect(empty == queue.isEmpty, random.note)
                let most = random.oneIn(3) ? .max : random.below(capacity)
                let refuseAfter = random.oneIn(2) ? .max : random.below(4)
                var seen: [Item] = []
                var refused = false
                let freed = reader.drain(most) { payload, entry in
                    if seen.count == refuseAfter {
                        refused = true
                        return false
                    }
                    seen.append(Item(Array(payload), entry))
                    return true
                }
                #expect(seen[...] == queue.prefix(seen.count), random.note)
                let least = seen.reduce(0) { $0 + ($1.payload.count + 32 + 7) & ~7 }
                #expect(freed >= least, random.note)
                if freed > least { wraps += 1 }
                if most == .max, !refused { #expect(seen.count == queue.count, random.note) }
                if let last = seen.last { #expect(freed < most.addingClamped(capacity), "\(last)") }
                queue.removeFirst(seen.count)
                given += seen.count
            }
        }
        // Otherwise the steps did not try what they are for.
        #expect(refusals > 100 && wraps > 100 && given > 1000, random.note)
    }

    @Test func `refuses an entry when full, and takes it once there is room`() {
        let ring = Ring(capacity: 256)
        var writer = RingWriter(ring)
        var reader = RingReader(ring)
        let payload = [UInt8](repeating: 7, count: 32)
        let entry = RingEntry(kind: 0, source: 0, first: 0, end: 32)
        for _ in 0..<4 {
            let accepted = writer.write(payload.span, as: entry)
            #expect(accepted)
        }
        var accepted = writer.write(payload.span, as: entry)
        #expect(!accepted)
        writer.publish()
        #expect(ring.waiting == 256)
        let halfFree = writer.isHalfFree
        #expect(!halfFree)
        _ = reader.drain(1) { _, _ in true }
        #expect(ring.waiting == 192)
        accepted = writer.write(payload.span, as: entry)
        #expect(accepted)
    }

    @Test func `shows the reader nothing before it is published`() {
        let ring = Ring(capacity: 256)
        var writer = RingWriter(ring)
        var reader = RingReader(ring)
        _ = writer.write([1, 2, 3].span, as: RingEntry(kind: 0, source: 0, first: 0, end: 3))
        let before = reader.drain(.max) { _, _ in true }
        #expect(before == 0)
        writer.publish()
        let after = reader.drain(.max) { payload, _ in Array(payload) == [1, 2, 3] }
        #expect(after == 40)
    }

    @Test func `the largest payload fits an empty ring wherever its cursors stand`() {
        let ring = Ring(capacity: 256)
        var writer = RingWriter(ring)
        var reader = RingReader(ring)
        let largest = [UInt8](repeating: 9, count: ring.largestPayload)
        for size in (0..<100) {
            let small = [UInt8](repeating: 1, count: size % 97)
            for payload in [small, largest] {
                let accepted = writer.write(payload.span, as: RingEntry(kind: 0, source: 0, first: 0, end: 0))
                #expect(accepted)
                writer.publish()
                var seen: [UInt8]?
                _ = reader.drain(.max) { span, _ in
                    seen = Array(span)
                    return true
                }
                #expect(seen == payload)
            }
        }
    }

    @Test func `an entry over half the ring is a programming error`() async {
        await #expect(processExitsWith: .failure) {
            let ring = Ring(capacity: 256)
            var writer = RingWriter(ring)
            _ = unsafe writer.write(upTo: ring.largestPayload + 1) { _ in nil }
        }
    }

    @Test func `a fill that says it used less than nothing is a programming error`() async {
        await #expect(processExitsWith: .failure) {
            var writer = RingWriter(Ring(capacity: 256))
            _ = unsafe writer.write(upTo: 8) { _ in (-1, RingEntry(kind: 0, source: 0, first: 0, end: 0)) }
        }
    }

    @Test func `a second writer is a programming error`() async {
        await #expect(processExitsWith: .failure) {
            let ring = Ring(capacity: 256)
            let first = RingWriter(ring)
            _ = RingWriter(ring)
            _ = first.isDrained
        }
    }

    @Test func `a second reader is a programming error`() async {
        await #expect(processExitsWith: .failure) {
            let ring = Ring(capacity: 256)
            let first = RingReader(ring)
            _ = RingReader(ring)
            _ = first.isEmpty
        }
    }

    @Test func `one writer and one reader are not`() async {
        await #expect(processExitsWith: .success) {
            let ring = Ring(capacity: 256)
            let writer = RingWriter(ring)
            let reader = RingReader(ring)
            precondition(reader.isEmpty && writer.isDrained)
        }
    }
}

extension Int {
    fileprivate func addingClamped(_ other: Int) -> Int {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? .max : sum
    }
}
