/// The key a record travels under, and where that puts it.
public struct RecordKey: Sendable, Equatable {
    /// 1 to 256 characters of UTF-8.
    public let partitionKey: [UInt8]
    /// The hash key that places the record: MD5 of the partition key, unless it is given explicitly.
    public let hash: HashKey
    /// The explicit hash key in the API's decimal form; empty when MD5(partition key) places the record.
    public let explicitHashKey: [UInt8]

    /// A record that its partition key places.
    public init(partitionKey: [UInt8], _ md5: borrowing MD5) {
        self.partitionKey = partitionKey
        hash = HashKey(partitionKey: partitionKey.span, md5)
        explicitHashKey = []
    }

    /// A record that its partition key places, whose MD5 is known.
    init(copying partitionKey: Span<UInt8>, hash: HashKey) {
        self.partitionKey = unsafe partitionKey.withUnsafeBytes { unsafe Array($0) }
        (self.hash, explicitHashKey) = (hash, [])
    }

    /// A record that is placed by `hash`, whatever its partition key.
    public init(partitionKey: [UInt8], explicit hash: HashKey) {
        self.partitionKey = partitionKey
        self.hash = hash
        explicitHashKey = Array(hash.description.utf8)
    }
}
