package import Kinesis

// Concurrency: belongs to its lane's thread.

/// Turns what becomes of records into checkpoints and into the ledger: per source, a position only ever passes a
/// contiguous stretch.
package final class Settlement {
    private struct Source {
        var spans: Spans
        /// Everything before it has gone into aggregates.
        var drained: UInt64
        /// The input's number in the ledger.
        var input: Int
        /// Runs whose positions are settled by a safe copy, while their records are still sent from memory.
        var held = 0
    }

    private let checkpoints: Checkpoints
    private let ledger: Ledger
    private var sources: [UInt32: Source] = [:]
    private var ranges: [Range<UInt64>] = []
    /// Sources at which to look which are finished.
    private var mostSources = 1000
    /// Whose records the copies in the spool are that came back from there.
    private var backlog: [SpoolLocation: [SpoolRecord.Origin]] = [:]
    /// Runs that only delivery settles, because their copies in the spool may not outlive a crash.
    private var unsafeCopies: [SpoolLocation: [Run]] = [:]

    package init(_ checkpoints: Checkpoints, _ ledger: Ledger) {
        (self.checkpoints, self.ledger) = (checkpoints, ledger)
    }

    /// Notes that a stretch of a source has come out of the ring.
    package func drained(_ source: UInt32, first: UInt64, end: UInt64, input: Int) {
        if sources[source] == nil {
            forgetFinished()
            sources[source] = Source(spans: Spans(from: first), drained: first, input: input)
        }
        sources[source]?.drained = end
    }

    /// Drops the sources of which nothing is under way, when they have become many; what comes of one begins it anew.
    private func forgetFinished() {
        guard sources.count >= mostSources else { return }
        sources = sources.filter { $1.spans.settled != $1.drained || $1.held > 0 }
        mostSources = max(1000, sources.count * 2)
    }

    /// Settles a stretch that became no record.
    package func skip(_ source: UInt32, first: UInt64, end: UInt64) {
        let run = Run(source: source, first: first, end: end, records: 0)
        move([run], to: .dropped)
        settle([run])
    }

    /// Settles aggregates: Kinesis has them, or another place has them for good.
    ///
    /// All of an answer together: where many shards share a file, each has a little of every stretch, and what is settled
    /// is gone through once.
    /// - Returns: where their copies in the spool lie, which nobody needs any more.
    package func settle(_ aggregates: [SealedAggregate], in place: Ledger.Place = .delivered) -> [SpoolLocation] {
        var runs: [Run] = []
        runs.reserveCapacity(aggregates.reduce(0) { $0 + $1.origin.runs.count })
        let copies = aggregates.compactMap { note($0, in: place, &runs) }
        settle(runs)
        return copies
    }

    /// - Parameter runs: gets those whose positions settle now.
    private func note(_ aggregate: SealedAggregate, in place: Ledger.Place, _ runs: inout [Run]) -> SpoolLocation? {
        let origin = aggregate.origin
        origin.unsettled -= 1
        guard origin.unsettled == 0 else { return nil }
        if let copy = origin.copy, let origins = backlog.removeValue(forKey: copy) {
            for origin in origins {
                ledger.move(origin.amount, of: ledger.number(of: origin.input), from: .spooled, to: place)
            }
            if let copied = unsafeCopies.removeValue(forKey: copy) { runs += copied }
            return copy
        }
        move(origin.runs, to: place)
        if origin.arePositionsSettled {
            hold(origin.runs, -1)
        } else {
            origin.arePositionsSettled = true
            runs += origin.runs
        }
        return origin.copy
    }

    // MARK: the spool

    /// Where an aggregate's records came from, as the spool writes it down.
    package func origins(of aggregate: SealedAggregate) -> [SpoolRecord.Origin] {
        aggregate.origin.runs.compactMap { run in
            guard let source = sources[run.source] else { return nil }
            return SpoolRecord.Origin(
                input: ledger.name(of: source.input),
                source: run.source,
                first: run.first,
                end: run.end,
                records: Int(run.records)
            )
        }
    }

    /// Notes that an aggregate's copy is written.
    ///
    /// - Parameter isSafe: whether it would outlive a crash: then the checkpoints may pass its records.
    package func copied(_ aggregate: SealedAggregate, at location: SpoolLocation, isSafe: Bool) {
        aggregate.origin.copy = location
        guard isSafe, !aggregate.origin.arePositionsSettled else { return }
        aggregate.origin.arePositionsSettled = true
        hold(aggregate.origin.runs, 1)
        settle(aggregate.origin.runs)
    }

    private func hold(_ runs: [Run], _ change: Int) { for run in runs { sources[run.source]?.held += change } }

    /// Notes that an aggregate is given up: its copy in the spool will be sent.
    package func handOver(_ aggregate: SealedAggregate) {
        move(aggregate.origin.runs, to: .spooled)
        if aggregate.origin.arePositionsSettled {
            hold(aggregate.origin.runs, -1)
        } else if let copy = aggregate.origin.copy {
            unsafeCopies[copy] = aggregate.origin.runs
        }
    }

    /// Notes whose records an aggregate holds that came back from the spool.
    package func cameBack(_ location: SpoolLocation, _ origins: [SpoolRecord.Origin]) { backlog[location] = origins }

    // MARK: dead letters

    /// Where an aggregate came from: its input, its source's file, and the stretch between its first and last byte.
    package func place(of aggregate: SealedAggregate) -> (input: String, path: String, first: UInt64, end: UInt64) {
        let origins = aggregate.origin.copy.flatMap { backlog[$0] } ?? origins(of: aggregate)
        guard let first = origins.first else { return ("", "", 0, 0) }
        let end = origins.last { $0.source == first.source }?.end ?? first.end
        return (first.input, path(of: first.source), first.first, end)
    }

    /// The name of a source's file, or of its socket.
    package func path(of source: UInt32) -> String {
        checkpoints.entry(of: source)?.path ?? checkpoints.name(of: source) ?? ""
    }

    /// Settles a record that went to the dead letters, or was dropped because they are full.
    package func bury(_ run: Run, isKept: Bool) {
        move([run], to: isKept ? .deadLettered : .dropped)
        settle([run])
    }

    // MARK: positions

    private func move(_ runs: [Run], to place: Ledger.Place) {
        var index = 0
        while index < runs.count {
            // A shard's records may be every other one of a file: a run for each of them.
            let source = runs[index].source
            var amount = Ledger.Amount()
            while index < runs.count, runs[index].source == source {
                amount += .init(records: Int(runs[index].records), bytes: runs[index].bytes)
                index += 1
            }
            guard let input = sources[source]?.input else { continue }
            ledger.move(amount, of: input, from: .inFlight, to: place)
        }
    }

    private func settle(_ runs: consuming [Run]) {
        runs.sortByPosition()
        var index = 0
        while index < runs.count {
            let source = runs[index].source
            ranges.removeAll(keepingCapacity: true)
            while index < runs.count, runs[index].source == source {
                ranges.append(runs[index].first..<runs[index].end)
                index += 1
            }
            sources[source]?.spans.settle(ranges)
            guard let spans = sources[source]?.spans else { continue }
            checkpoints.settle(source, at: spans.settled)
        }
    }

    /// Whether everything that came out of the rings has settled.
    package var isComplete: Bool { sources.values.allSatisfy { $0.spans.settled == $0.drained } }
}
