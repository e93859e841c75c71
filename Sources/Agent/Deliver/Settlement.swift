package import Kinesis

// Concurrency: belongs to its lane's thread.

/// Turns what has settled into checkpoints: per source, only ever over a contiguous stretch.
package final class Settlement {
    private struct Source {
        var spans: Spans
        /// Everything before it has gone into aggregates.
        var drained: UInt64
    }

    private let checkpoints: Checkpoints
    private var sources: [UInt32: Source] = [:]
    private var ranges: [Range<UInt64>] = []
    /// Sources at which to look which are finished.
    private var mostSources = 1000

    package init(_ checkpoints: Checkpoints) { self.checkpoints = checkpoints }

    /// Notes that a stretch of a source has come out of the ring.
    package func drained(_ source: UInt32, first: UInt64, end: UInt64) {
        if sources[source] == nil {
            forgetFinished()
            sources[source] = Source(spans: Spans(from: first), drained: first)
        }
        sources[source]?.drained = end
    }

    /// Drops the sources whose file is gone and of which nothing is under way, when they have become many.
    private func forgetFinished() {
        guard sources.count >= mostSources else { return }
        sources = sources.filter { $1.spans.settled != $1.drained || checkpoints.entry(of: $0) != nil }
        mostSources = max(1000, sources.count * 2)
    }

    /// Settles a stretch that became no record.
    package func skip(_ source: UInt32, first: UInt64, end: UInt64) {
        settle([Run(source: source, first: first, end: end)])
    }

    /// Settles an aggregate: Kinesis has it.
    package func settle(_ aggregate: SealedAggregate) {
        guard let origin = aggregate.origin else { return settle(aggregate.runs) }
        origin.unsettled -= 1
        if origin.unsettled == 0 { settle(origin.runs) }
    }

    private func settle(_ runs: [Run]) {
        var rest = runs[...]
        while let source = rest.first?.source {
            // Usually all of one source: then this is the whole list.
            ranges.removeAll(keepingCapacity: true)
            if rest.allSatisfy({ $0.source == source }) {
                for run in rest { ranges.append(run.first..<run.end) }
                rest = []
            } else {
                for run in rest where run.source == source { ranges.append(run.first..<run.end) }
                rest = ArraySlice(rest.filter { $0.source != source })
            }
            sources[source]?.spans.settle(ranges)
            guard let spans = sources[source]?.spans else { continue }
            checkpoints.settle(source, at: spans.settled)
        }
    }

    /// Whether everything that came out of the rings has settled.
    package var isComplete: Bool { sources.values.allSatisfy { $0.spans.settled == $0.drained } }
}
