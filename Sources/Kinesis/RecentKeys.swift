internal import Bytes

/// Partition keys that were seen lately: one of them costs neither an MD5 nor an allocation.
struct RecentKeys {
    /// Each in one of the four places that its bytes' hash gives it; made with the first key.
    private var keys: [RecordKey?] = []
    private var hashes: [UInt64] = []
    private static let places = 4096
    private var replaced = 0

    /// The key of these bytes; nil if they are none that a reader would understand.
    mutating func key(of text: Span<UInt8>, _ md5: borrowing MD5) -> RecordKey? {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for index in text.indices { hash = (hash ^ UInt64(text[index])) &* 0x100_0000_01b3 }
        hash ^= hash >> 32
        if keys.isEmpty {
            keys = Array(repeating: nil, count: Self.places)
            hashes = Array(repeating: 0, count: Self.places)
        }
        let first = Int(truncatingIfNeeded: hash) & (Self.places - 1) & ~3
        for place in first..<first + 4 where hashes[place] == hash {
            if let known = keys[place], Self.equal(known.partitionKey.span, text) { return known }
        }
        guard !text.isEmpty else { return nil }
        let bytes = unsafe text.withUnsafeBytes { unsafe Array($0) }
        // Readers would decode it to something else, hash that, and find the record in the wrong shard.
        guard String(validating: bytes, as: UTF8.self) != nil else { return nil }
        let key = RecordKey(partitionKey: bytes, md5)
        // An empty one, or one after another.
        let place = (first..<first + 4).first { keys[$0] == nil } ?? first + replaced & 3
        replaced += 1
        (keys[place], hashes[place]) = (key, hash)
        return key
    }

    private static func equal(_ one: Span<UInt8>, _ other: Span<UInt8>) -> Bool {
        guard one.count == other.count else { return false }
        for index in one.indices where one[index] != other[index] { return false }
        return true
    }
}
