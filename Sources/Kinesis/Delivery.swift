/// What becomes of an aggregate after an answer: a decision, which the lane carries out.
public enum Delivery {
    public enum Verdict: Equatable, Sendable {
        /// Stored where every reader finds it: its positions may be passed.
        case settled
        /// Stored in a shard that the map does not know as holding all its records: a KCL reader would drop it whole.
        /// Keep it until the map has been refreshed, then decide again.
        case awaitMap
        /// Stored where a KCL reader drops it: make aggregates by the new map, and send them all.
        case regroup
        /// Refused: send it again after a wait.
        case retry(throttled: Bool)
    }

    /// Decides on one record's result.
    ///
    /// - Parameters:
    ///   - hashes: the lowest and the highest hash key in the aggregate.
    ///   - map: the shard map as it is known now.
    ///   - closed: the ranges of shards that earlier maps held and this one does not: a reader finds what they took
    ///     before they were closed.
    ///   - mapIsFresh: whether the map was read after the answer came.
    public static func verdict(
        on result: PutRecords.Result,
        of hashes: ClosedRange<HashKey>,
        by map: ShardMap,
        closed: [ShardID: ClosedRange<HashKey>] = [:],
        mapIsFresh: Bool
    ) -> Verdict {
        switch result {
        case .refused(let error): return .retry(throttled: error.kind == .throttled)
        case .stored(let id):
            guard let range = map.index(of: id).map({ map.shards[$0].range }) ?? closed[id] else {
                return mapIsFresh ? .regroup : .awaitMap
            }
            if range.contains(hashes.lowerBound), range.contains(hashes.upperBound) { return .settled }
            return mapIsFresh ? .regroup : .awaitMap
        }
    }
}
