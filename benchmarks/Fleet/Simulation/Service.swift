import Kinesis

/// A stream as its producers see it: each shard takes so many bytes and records a second, a second's worth at once.
struct Service {
    private struct Bucket {
        var bytes: Double
        var records: Double
        var filled: Int64
        /// Bytes taken.
        var taken = 0
    }

    private var buckets: [Bucket]
    private(set) var map: ShardMap
    var dead: ShardID?

    private static let byteRate = Double(Limits.shardBytesPerSecond)
    private static let recordRate = Double(Limits.shardRecordsPerSecond)

    init(shards: Int) {
        map = Self.map(shards, firstNumber: 0)
        buckets = .init(repeating: Bucket(bytes: Self.byteRate, records: Self.recordRate, filled: 0), count: shards)
    }

    static func map(_ shards: Int, firstNumber: Int) -> ShardMap {
        let width = UInt128.max / UInt128(shards)
        let list = (0..<shards).map { index in
            let end = index == shards - 1 ? UInt128.max : UInt128(index + 1) * width - 1
            return Shard(
                id: ShardID(number: UInt64(firstNumber + index)),
                range: HashKey(UInt128(index) * width)...HashKey(end)
            )
        }
        guard let map = try? ShardMap(list) else { preconditionFailure("ranges join") }
        return map
    }

    /// Splits every shard in two; the children's buckets are full.
    mutating func double(at time: Int64) {
        map = Self.map(2 * buckets.count, firstNumber: buckets.count)
        buckets = .init(
            repeating: Bucket(bytes: Self.byteRate, records: Self.recordRate, filled: time),
            count: 2 * buckets.count
        )
    }

    /// Whether the shard takes a record of so many bytes at `time`, in nanoseconds.
    mutating func put(_ bytes: Int, in shard: Int, at time: Int64) -> Bool {
        if let dead, map.shards[shard].id == dead { return false }
        let seconds = max(0, Double(time - buckets[shard].filled) / 1e9)
        buckets[shard].filled = max(time, buckets[shard].filled)
        buckets[shard].bytes = min(Self.byteRate, buckets[shard].bytes + seconds * Self.byteRate)
        buckets[shard].records = min(Self.recordRate, buckets[shard].records + seconds * Self.recordRate)
        guard buckets[shard].bytes >= Double(bytes), buckets[shard].records >= 1 else { return false }
        buckets[shard].bytes -= Double(bytes)
        buckets[shard].records -= 1
        return true
    }

    func index(of hash: HashKey) -> Int { map.index(of: hash) }
    var count: Int { buckets.count }
}
