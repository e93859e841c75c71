internal import Bytes

/// Partition keys out of the records' JSON.
struct FieldKeys {
    private let pointer: JSONPointer
    /// Of records without a key: one of each shard, as they were drawn.
    private var drawn: [RecordKey?]

    /// - Parameter shards: how many there are.
    init(_ pointer: JSONPointer, shards: Int) {
        self.pointer = pointer
        drawn = [RecordKey?](repeating: nil, count: shards)
    }

    /// Bytes of a key at most: so many are never more characters.
    static let most = Limits.partitionKeyCharacters

    /// Where the key lies that a record names; nil if it names none.
    func find(in record: Span<UInt8>) -> JSONPointer.Value? { pointer.find(in: record, most: Self.most) }

    /// A key for a record that names none: any shard's, by the shards' widths.
    ///
    /// It has no explicit hash key, as the others have none: aws_kinesis_agg misreads an aggregate with both.
    mutating func drawnKey(_ number: UInt64, _ map: ShardMap, _ md5: borrowing MD5) -> RecordKey {
        var digits = InlineArray<16, UInt8>(repeating: 0)
        for index in 0..<16 {
            let digit = UInt8(truncatingIfNeeded: number >> (4 * UInt64(index)) & 15)
            digits[index] = digit < 10 ? 48 + digit : 87 + digit
        }
        let shard = map.index(of: HashKey(partitionKey: digits.span, md5))
        if let key = drawn[shard] { return key }
        let key = RecordKey(partitionKey: digits.indices.map { digits[$0] }, md5)
        drawn[shard] = key
        return key
    }
}
