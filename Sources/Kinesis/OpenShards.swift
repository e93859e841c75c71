/// The shards with an open aggregate, in the order in which these were opened: by the age of their oldest record.
///
/// A list through arrays of indices, so that any of ten thousand leaves it at once, whatever stands before it.
struct OpenShards: Sequence {
    private var next: [Int32]
    private var previous: [Int32]
    /// Ends the list at both ends.
    private let end: Int

    private(set) var count = 0

    /// - Parameter shards: how many there are.
    init(shards: Int) {
        end = shards
        next = .init(repeating: Self.none, count: shards + 1)
        previous = next
        (next[end], previous[end]) = (Int32(end), Int32(end))
    }

    private static let none: Int32 = -1

    var isEmpty: Bool { count == 0 }

    /// The shard whose aggregate was opened first.
    var oldest: Int? { isEmpty ? nil : Int(next[end]) }

    /// Puts a shard behind the others, unless it is among them.
    mutating func append(_ shard: Int) {
        guard next[shard] == Self.none else { return }
        let last = previous[end]
        (next[shard], previous[shard]) = (Int32(end), last)
        (next[Int(last)], previous[end]) = (Int32(shard), Int32(shard))
        count += 1
    }

    /// Takes a shard out, if it is there.
    mutating func remove(_ shard: Int) {
        guard next[shard] != Self.none else { return }
        next[Int(previous[shard])] = next[shard]
        previous[Int(next[shard])] = previous[shard]
        (next[shard], previous[shard]) = (Self.none, Self.none)
        count -= 1
    }

    func makeIterator() -> Iterator { Iterator(list: self, at: Int(next[end])) }

    struct Iterator: IteratorProtocol {
        fileprivate let list: OpenShards
        fileprivate var at: Int

        mutating func next() -> Int? {
            guard at != list.end else { return nil }
            defer { at = Int(list.next[at]) }
            return at
        }
    }
}
