import Agent
import Kinesis
import Seeded
import Testing

@Suite struct SpoolIndexTests {
    /// The plainest index: every record with its state.
    private struct Model {
        enum State { case owed, copy, taken, delivered }
        struct Record {
            var location: SpoolLocation
            var length: UInt64
            var state: State
        }
        var records: [Record] = []
        var closed: Set<UInt64> = []

        var firstOwed: SpoolLocation? { records.first { $0.state == .owed }?.location }
        func isDelivered(_ segment: UInt64) -> Bool {
            records.allSatisfy { $0.location.segment != segment || $0.state == .delivered }
        }
    }

    @Test func `the oldest owed record comes next, and a segment goes when all of it is delivered, whatever the order`()
    {
        var random = Random()
        for _ in 0..<300 {
            var (index, model) = (SpoolIndex(), Model())
            var number: UInt64 = UInt64(1 + random.below(5))
            index.add(segment: number)
            var present = [number]
            for _ in 0..<120 {
                switch random.below(10) {
                case 0..<4:
                    let length = UInt64(8 * (1 + random.below(20)))
                    let isHeld = random.oneIn(3)
                    let location = index.append(length, isHeld: isHeld)
                    model.records.append(.init(location: location, length: length, state: isHeld ? .copy : .owed))
                case 4..<6:
                    let next = index.nextOwed()
                    #expect(next == model.firstOwed, random.note)
                    guard let next, let at = model.records.firstIndex(where: { $0.location == next }) else { continue }
                    index.take(next, length: model.records[at].length)
                    model.records[at].state = .taken
                case 6..<8:
                    let held = model.records.indices.filter { [.copy, .taken].contains(model.records[$0].state) }
                    guard let at = held.randomElement(using: &random) else { continue }
                    index.deliver(model.records[at].location)
                    model.records[at].state = .delivered
                case 8:
                    let held = model.records.indices.filter { [.copy, .taken].contains(model.records[$0].state) }
                    guard let at = held.randomElement(using: &random) else { continue }
                    index.letGo(model.records[at].location)
                    model.records[at].state = .owed
                default:
                    index.closeNewest()
                    model.closed.insert(number)
                    number += UInt64(1 + random.below(3))
                    index.add(segment: number)
                    present.append(number)
                }
                let gone = present.filter { model.closed.contains($0) && model.isDelivered($0) }
                #expect(index.takeDelivered() == gone, random.note)
                present.removeAll { gone.contains($0) }
                model.records.removeAll { gone.contains($0.location.segment) }
                #expect(index.numbers == present, random.note)
                #expect(index.isEmpty == model.records.allSatisfy { $0.state == .delivered }, random.note)
                #expect(index.hasOlder() == model.records.contains { [.owed, .taken].contains($0.state) }, random.note)
                // The position never passes a record that is not delivered.
                let first = model.records.first { $0.state != .delivered }?.location
                if let position = index.position, let first {
                    #expect((position.segment, position.offset) <= (first.segment, first.offset), random.note)
                    if position.segment == first.segment { #expect(position.offset == first.offset, random.note) }
                }
            }
        }
    }

    @Test func `records that could not be written are taken back, and others take their place`() {
        var index = SpoolIndex()
        index.add(segment: 1)
        let first = index.append(80, isHeld: false)
        let second = index.append(80, isHeld: true)
        index.cut(to: second.offset)
        index.closeNewest()
        index.add(segment: 2)
        let again = index.append(80, isHeld: true)
        #expect(index.nextOwed() == first)
        index.take(first, length: 80)
        index.deliver(first)
        #expect(index.takeDelivered() == [1])
        index.deliver(again)
        #expect(index.isEmpty)
    }
}
