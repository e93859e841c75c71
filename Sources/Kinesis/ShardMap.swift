/// A shard's name, `shardId-000000000012`, by its number.
public struct ShardID: Hashable, Comparable, Sendable {
    public let number: UInt64

    public init(number: UInt64) { self.number = number }

    /// Reads the service's form: `shardId-` and digits.
    public init?(_ text: String) {
        let digits = text.dropFirst(8)
        // UInt64 would also take a sign.
        guard text.hasPrefix("shardId-"), digits.utf8.first != UInt8(ascii: "+"), let number = UInt64(digits) else {
            return nil
        }
        self.number = number
    }

    public static func < (left: Self, right: Self) -> Bool { left.number < right.number }
}

extension ShardID: CustomStringConvertible {
    public var description: String {
        let digits = String(number)
        return "shardId-" + String(repeating: "0", count: max(0, 12 - digits.count)) + digits
    }
}

/// A shard as ListShards describes it.
public struct Shard: Equatable, Sendable {
    public var id: ShardID
    /// The hash keys it takes, both ends included.
    public var range: ClosedRange<HashKey>
    /// A closed shard takes no more records: it was split or merged.
    public var isOpen: Bool

    public init(id: ShardID, range: ClosedRange<HashKey>, isOpen: Bool = true) {
        (self.id, self.range, self.isOpen) = (id, range, isOpen)
    }
}

/// Which open shard takes a hash key.
///
/// A lookup takes the same time whatever the number of shards; where their sizes differ much, the logarithm of it.
public struct ShardMap: Equatable, Sendable {
    /// The open shards in the order of their ranges, which together hold every hash key exactly once.
    public let shards: [Shard]
    private let ends: [HashKey]
    /// By a hash key's highest bits: the first shard that may take it.
    ///
    /// With more of them than shards, it nearly always does.
    private let firsts: [UInt32]
    /// How far a hash key is shifted to leave those bits.
    private let shift: Int
    private let indices: [ShardID: Int]

    /// - Parameter shards: as listed, in any order; closed ones are left out.
    /// - Throws: when the open ones leave a hash key to none or to two, as a list taken during a reshard may.
    public init(_ shards: [Shard]) throws(Fault) {
        let open = shards.filter(\.isOpen).sorted { $0.range.lowerBound < $1.range.lowerBound }
        guard let last = open.last else { throw .empty }
        var next: UInt128? = 0
        for shard in open {
            guard let expected = next else { throw .overlap(shard.id) }
            let start = shard.range.lowerBound.value
            if start > expected { throw .gap(before: shard.id) }
            if start < expected { throw .overlap(shard.id) }
            next = shard.range.upperBound == .highest ? nil : shard.range.upperBound.value + 1
        }
        if next != nil { throw .gap(after: last.id) }
        self.init(inOrder: open)
    }

    private init(inOrder shards: [Shard]) {
        self.shards = shards
        ends = shards.map(\.range.upperBound)
        let bits = min(20, Int.bitWidth - shards.count.leadingZeroBitCount + 1)
        shift = 128 - bits
        var (firsts, shard): ([UInt32], Int) = ([], 0)
        for highest in 0..<UInt128(1) << UInt128(bits) {
            while shards[shard].range.upperBound.value < highest << UInt128(128 - bits) { shard += 1 }
            firsts.append(UInt32(shard))
        }
        self.firsts = firsts
        indices = Dictionary(shards.enumerated().map { ($1.id, $0) }, uniquingKeysWith: { first, _ in first })
    }

    public enum Fault: Error, Equatable {
        case empty
        case gap(before: ShardID)
        case gap(after: ShardID)
        case overlap(ShardID)
    }

    /// A stream of one shard that no stream has.
    public static let unknown = ShardMap(inOrder: [Shard(id: ShardID(number: .max), range: .lowest ... .highest)])

    public var count: Int { shards.count }

    /// The index of the shard whose range holds `hash`.
    public func index(of hash: HashKey) -> Int {
        let highest = Int(truncatingIfNeeded: hash.value >> UInt128(shift))
        var low = Int(firsts[highest])
        var high = highest + 1 < firsts.count ? Int(firsts[highest + 1]) : ends.count - 1
        while low < high {
            let middle = (low + high) / 2
            if ends[middle] < hash { low = middle + 1 } else { high = middle }
        }
        return low
    }

    public subscript(hash: HashKey) -> Shard { shards[index(of: hash)] }

    /// The index of the open shard named `id`.
    public func index(of id: ShardID) -> Int? { indices[id] }

    /// The index of the shard that holds every hash key in `hashes`; nil when they lie in several.
    public func index(ofAll hashes: ClosedRange<HashKey>) -> Int? {
        let index = index(of: hashes.lowerBound)
        return shards[index].range.contains(hashes.upperBound) ? index : nil
    }
}
