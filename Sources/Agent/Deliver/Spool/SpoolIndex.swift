package import Kinesis

/// Which records of the spool are still owed to Kinesis, and which to send next: no IO.
///
/// A record is owed until it is held: sent from memory, where the lane has it. It is held until it is delivered, or let go,
/// which makes it owed again.
package struct SpoolIndex {
    private struct Segment {
        let number: UInt64
        /// Behind its last record.
        var end: UInt64
        /// No record will be added.
        var isClosed: Bool
        var delivered: Spans
        /// Records that the lane has: where each begins, and where it ends.
        var held: [UInt64: UInt64] = [:]
        /// Those of them that the lane has from here.
        var taken: Set<UInt64> = []
        /// Where to look for the next that is owed; none before it is.
        var cursor: UInt64

        var isDelivered: Bool { delivered.settled >= end }
    }

    private var segments: [Segment] = []

    package init() {}

    /// Bytes of a segment's header: where its first record begins.
    package static let begin: UInt64 = 64

    /// Adds a segment, whose number is above all others'.
    ///
    /// - Parameters:
    ///   - end: behind its last record.
    ///   - delivered: everything before it is delivered.
    ///   - ahead: stretches behind that which are delivered as well, in order, each of whole records.
    package mutating func add(
        segment: UInt64,
        end: UInt64 = begin,
        isClosed: Bool = false,
        delivered: UInt64 = begin,
        ahead: [Range<UInt64>] = []
    ) {
        precondition(segments.last.map { $0.number < segment } ?? true)
        let settled = min(max(delivered, Self.begin), end)
        var spans = Spans(from: settled)
        spans.settle(ahead)
        segments.append(
            Segment(number: segment, end: end, isClosed: isClosed, delivered: spans, cursor: settled)
        )
    }

    /// Adds a record behind the last of the newest segment.
    package mutating func append(_ length: UInt64, isHeld: Bool) -> SpoolLocation {
        let last = segments.count - 1
        let offset = segments[last].end
        segments[last].end += length
        if isHeld { segments[last].held[offset] = segments[last].end }
        return SpoolLocation(segment: segments[last].number, offset: offset)
    }

    /// Takes back what was added to the newest segment from `end` on: it could not be written.
    package mutating func cut(to end: UInt64) {
        let last = segments.count - 1
        segments[last].end = end
        segments[last].held = segments[last].held.filter { $0.key < end }
        segments[last].taken = segments[last].taken.filter { $0 < end }
        segments[last].cursor = min(segments[last].cursor, end)
    }

    /// Notes that the newest segment is finished.
    package mutating func closeNewest() { if !segments.isEmpty { segments[segments.count - 1].isClosed = true } }

    /// The oldest record that is owed.
    package mutating func nextOwed() -> SpoolLocation? {
        for index in segments.indices {
            while segments[index].cursor < segments[index].end {
                let cursor = segments[index].cursor
                if let end = segments[index].held[cursor] {
                    segments[index].cursor = end
                    continue
                }
                let free = segments[index].delivered.firstUnsettled(from: cursor)
                if free == cursor { return SpoolLocation(segment: segments[index].number, offset: cursor) }
                segments[index].cursor = free
            }
        }
        return nil
    }

    /// Notes that the lane has a record that was owed.
    package mutating func take(_ location: SpoolLocation, length: UInt64) {
        guard let index = index(of: location.segment) else { return }
        segments[index].held[location.offset] = location.offset + length
        segments[index].taken.insert(location.offset)
        segments[index].cursor = max(segments[index].cursor, location.offset + length)
    }

    /// Passes bytes that hold no record: they are damaged.
    ///
    /// - Parameter end: behind them, or behind records that are held or delivered: those are not passed.
    package mutating func skip(_ location: SpoolLocation, to end: UInt64) {
        guard let index = index(of: location.segment) else { return }
        // An earlier run may have passed them, or some of them.
        let begin = segments[index].delivered.firstUnsettled(from: location.offset)
        let place = SpoolLocation(segment: location.segment, offset: begin)
        let end = min(end, nextTaken(behind: place) ?? end, segments[index].end)
        if end > begin { segments[index].delivered.settle(begin..<end) }
    }

    /// Where, in its segment, the next record behind `location` begins that is held or delivered.
    package func nextTaken(behind location: SpoolLocation) -> UInt64? {
        guard let index = index(of: location.segment) else { return nil }
        let held = segments[index].held.keys.filter { $0 > location.offset }.min()
        let delivered = segments[index].delivered.firstSettled(behind: location.offset)
        return [held, delivered].compactMap { $0 }.min()
    }

    /// Notes that the lane has given a record up: it is owed again.
    package mutating func letGo(_ location: SpoolLocation) {
        guard let index = index(of: location.segment) else { return }
        guard segments[index].held.removeValue(forKey: location.offset) != nil else { return }
        segments[index].taken.remove(location.offset)
        segments[index].cursor = min(segments[index].cursor, location.offset)
    }

    /// Notes that Kinesis has acknowledged a record that the lane held.
    package mutating func deliver(_ location: SpoolLocation) {
        guard let index = index(of: location.segment) else { return }
        guard let end = segments[index].held.removeValue(forKey: location.offset) else { return }
        segments[index].taken.remove(location.offset)
        segments[index].delivered.settle(location.offset..<end)
    }

    /// Removes the closed segments of which everything is delivered, and says which.
    package mutating func takeDelivered() -> [UInt64] {
        let done = segments.filter { $0.isClosed && $0.isDelivered }.map(\.number)
        if !done.isEmpty { segments.removeAll { $0.isClosed && $0.isDelivered } }
        return done
    }

    /// Everything before it is delivered; nil when there is no segment that may still get, or give, a record.
    ///
    /// It passes segments that are over though they are still there: whoever compares it learns that they may go.
    package var position: SpoolLocation? {
        segments.first { !$0.isClosed || !$0.isDelivered }.map {
            SpoolLocation(segment: $0.number, offset: $0.delivered.settled)
        }
    }

    /// What is delivered behind the position, in order: that many stretches at most.
    func ahead(most: Int) -> [SpoolProgress.Stretch] {
        var found: [SpoolProgress.Stretch] = []
        let first = position?.segment
        for segment in segments {
            var ranges = segment.delivered.ahead[...]
            if segment.number != first, segment.delivered.settled > Self.begin {
                ranges.insert(Self.begin..<segment.delivered.settled, at: ranges.startIndex)
            }
            found += ranges.prefix(most - found.count).map { .init(segment: segment.number, range: $0) }
        }
        return found
    }

    /// Bytes that are not delivered, or stand behind such.
    package var owedBytes: UInt64 { segments.reduce(0) { $0 + ($1.end - min($1.end, $1.delivered.settled)) } }

    /// Whether a record is owed, or was until the lane took it: what the lane has besides is younger.
    package mutating func hasOlder() -> Bool { segments.contains { !$0.taken.isEmpty } || nextOwed() != nil }

    /// Whether everything is delivered.
    package var isEmpty: Bool { segments.allSatisfy(\.isDelivered) }

    /// The segment of the oldest record that is not delivered.
    package var oldest: UInt64? { segments.first { !$0.isDelivered }?.number }

    package func end(of segment: UInt64) -> UInt64? { index(of: segment).map { segments[$0].end } }

    package var numbers: [UInt64] { segments.map(\.number) }

    private func index(of segment: UInt64) -> Int? {
        // Nearly always the first or the last.
        if let last = segments.last, last.number == segment { return segments.count - 1 }
        return segments.firstIndex { $0.number == segment }
    }
}
