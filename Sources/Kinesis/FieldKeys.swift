internal import Bytes

/// Partition keys out of the records' JSON.
///
/// A key that was seen lately costs neither a hash nor an allocation.
struct FieldKeys {
    private let pointer: JSONPointer
    /// Keys seen lately, and their bytes' hashes: each in one of the four places that its hash gives it.
    private var recent = [RecordKey?](repeating: nil, count: places)
    private var hashes = [UInt64](repeating: 0, count: places)
    private static let places = 4096
    private var replaced = 0
    private var text: [UInt8] = []
    /// Of records without a key: one of each shard, as they were drawn.
    private var drawn: [RecordKey?]

    /// - Parameter shards: how many there are.
    init(_ pointer: JSONPointer, shards: Int) {
        self.pointer = pointer
        drawn = [RecordKey?](repeating: nil, count: shards)
    }

    /// The key that a record names; nil if it names none.
    mutating func key(of record: Span<UInt8>, _ md5: borrowing MD5) -> RecordKey? {
        // So many bytes are never more characters.
        guard pointer.read(record, into: &text, most: Limits.partitionKeyCharacters) else { return nil }
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in text { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        hash ^= hash >> 32
        let first = Int(truncatingIfNeeded: hash) & (Self.places - 1) & ~3
        for place in first..<first + 4 where hashes[place] == hash {
            if let known = recent[place], known.partitionKey == text { return known }
        }
        // Readers would decode it to something else, hash that, and find the record in the wrong shard.
        guard String(validating: text, as: UTF8.self) != nil else { return nil }
        // A copy without the room for the longest, which is kept as long as the key.
        let key = unsafe RecordKey(partitionKey: text.withUnsafeBytes { unsafe Array($0) }, md5)
        // An empty one, or one after another.
        let place = (first..<first + 4).first { recent[$0] == nil } ?? first + replaced & 3
        replaced += 1
        (recent[place], hashes[place]) = (key, hash)
        return key
    }

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
