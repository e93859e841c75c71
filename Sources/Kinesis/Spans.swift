/// How far a source is settled: everything before `settled` has been acknowledged, or otherwise found its end.
///
/// A source is read in order, but its stretches travel in different aggregates and settle in any order; each must settle
/// exactly once, whole or in pieces. `settled` passes a stretch only when all before it has settled.
public struct Spans: Equatable, Sendable {
    /// The position before which everything has settled: what a checkpoint may say.
    public private(set) var settled: UInt64
    /// Settled stretches behind a gap, in order, neighbours joined.
    public private(set) var ahead: [Range<UInt64>] = []
    private var merged: [Range<UInt64>] = []

    /// - Parameter start: the position at which reading began.
    public init(from start: UInt64) { settled = start }

    /// Whether a stretch behind the settled position has settled before an earlier one.
    public var hasGap: Bool { !ahead.isEmpty }

    /// The first position at or after `position` that has not settled.
    public func firstUnsettled(from position: UInt64) -> UInt64 {
        let position = max(position, settled)
        return ahead.first { $0.contains(position) }?.upperBound ?? position
    }

    /// Where the next stretch begins behind `position` that has settled before an earlier one.
    public func firstSettled(behind position: UInt64) -> UInt64? {
        ahead.first { $0.lowerBound > position }?.lowerBound
    }

    /// Settles one stretch.
    public mutating func settle(_ stretch: Range<UInt64>) {
        guard ahead.isEmpty, stretch.lowerBound == settled else { return settle([stretch]) }
        settled = stretch.upperBound
    }

    /// Settles stretches that are in order, as an aggregate holds them.
    ///
    /// Linear in their number and the gaps'. An array, because a generic collection from another module costs an
    /// allocation for each of them.
    public mutating func settle(_ stretches: [Range<UInt64>]) {
        if ahead.isEmpty, stretches.count == 1, stretches[0].lowerBound == settled {
            settled = stretches[0].upperBound
            return
        }
        merged.removeAll(keepingCapacity: true)
        var old = ahead.makeIterator()
        var waiting = old.next()
        for stretch in stretches where !stretch.isEmpty {
            while let next = waiting, next.lowerBound < stretch.lowerBound {
                join(next)
                waiting = old.next()
            }
            join(stretch)
        }
        while let next = waiting {
            join(next)
            waiting = old.next()
        }
        swap(&ahead, &merged)
    }

    private mutating func join(_ next: Range<UInt64>) {
        if merged.isEmpty, next.lowerBound == settled {
            settled = next.upperBound
            return
        }
        precondition(next.lowerBound >= (merged.last?.upperBound ?? settled), "a stretch settles once")
        if let last = merged.last, last.upperBound == next.lowerBound {
            merged[merged.count - 1] = last.lowerBound..<next.upperBound
        } else {
            merged.append(next)
        }
    }
}
