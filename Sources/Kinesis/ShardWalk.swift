/// The order in which the shards of a stream are read: each after those it was made of, so that a key's records come in
/// the order they were written in, over splits and merges.
///
/// Who reads asks for the shards that may be begun, and says when one has been read to its end and which came out of it.
public struct ShardWalk {
    /// A shard, and the shards it was made of: none, one that was split, or two that were merged.
    public struct Member: Equatable, Sendable {
        public var shard: Shard
        public var parents: [ShardID]

        public init(_ shard: Shard, parents: [ShardID]) { (self.shard, self.parents) = (shard, parents) }
    }

    private var waiting: [Member] = []
    private var known: Set<ShardID> = []
    private var unfinished: Set<ShardID> = []
    private var finished: Set<ShardID> = []

    public init() {}

    /// Adds shards, those that are known already excepted; what they were made of is waited for only if it was added.
    public mutating func add(_ members: [Member]) {
        for member in members where known.insert(member.shard.id).inserted {
            unfinished.insert(member.shard.id)
            waiting.append(member)
        }
    }

    /// Notes that a closed shard has been read to its end.
    ///
    /// The other parent of a merge may not have been told of yet: then it will come out of a shard that is still read.
    public mutating func ended(_ id: ShardID, children: [Member]) {
        unfinished.remove(id)
        finished.insert(id)
        unfinished.formUnion(children.flatMap(\.parents).filter { !finished.contains($0) })
        add(children)
    }

    /// The shards that may be begun now; each is given once.
    public mutating func takeReady() -> [Shard] {
        let ready = waiting.filter { !$0.parents.contains(where: unfinished.contains) }
        if !ready.isEmpty { waiting.removeAll { !$0.parents.contains(where: unfinished.contains) } }
        return ready.map(\.shard)
    }
}
