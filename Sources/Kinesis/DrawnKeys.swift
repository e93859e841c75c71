internal import Bytes

/// Partition keys for records that have none among others that do.
///
/// They have no explicit hash key, as the others have none: aws_kinesis_agg misreads an aggregate with both.
struct DrawnKeys {
    /// One of each shard, as they were drawn.
    private var keys: [RecordKey?]

    /// - Parameter shards: how many there are.
    init(shards: Int) { keys = [RecordKey?](repeating: nil, count: shards) }

    /// A key of any shard, by the shards' widths.
    mutating func next(_ number: UInt64, _ map: ShardMap, _ md5: borrowing MD5) -> RecordKey {
        var digits = InlineArray<16, UInt8>(repeating: 0)
        for index in 0..<16 {
            let digit = UInt8(truncatingIfNeeded: number >> (4 * UInt64(index)) & 15)
            digits[index] = digit < 10 ? 48 + digit : 87 + digit
        }
        let shard = map.index(of: HashKey(partitionKey: digits.span, md5))
        if let key = keys[shard] { return key }
        let key = RecordKey(partitionKey: digits.indices.map { digits[$0] }, md5)
        keys[shard] = key
        return key
    }
}
