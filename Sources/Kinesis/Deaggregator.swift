internal import CAggregate
internal import CProtobufC

/// One user record out of an aggregate.
public struct UserRecord: Sendable, Equatable {
    public var partitionKey: [UInt8]
    /// The explicit hash key it was produced with, in the API's decimal form.
    public var explicitHashKey: [UInt8]?
    public var data: [UInt8]

    public init(partitionKey: [UInt8], explicitHashKey: [UInt8]? = nil, data: [UInt8]) {
        (self.partitionKey, self.explicitHashKey, self.data) = (partitionKey, explicitHashKey, data)
    }

    /// The hash key that must lie in the range of the shard it was read from: the KCL drops a whole aggregate otherwise.
    public func hashKey(_ md5: borrowing MD5) -> HashKey {
        if let explicitHashKey, let hash = HashKey(decimal: String(decoding: explicitHashKey, as: UTF8.self)) {
            return hash
        }
        return HashKey(partitionKey: partitionKey.span, md5)
    }
}

/// Takes KPL aggregates apart, by libprotobuf-c.
public struct Deaggregator: ~Copyable {
    private let md5 = MD5()

    public init() {}

    /// The user records of an aggregate, in order; nil when `data` is not an aggregate, but a plain record.
    ///
    /// As the KCL decides it: the magic in front, the right MD5 behind, and protobuf between whose indices are in range.
    /// Anything else is a plain record, whatever it looks like.
    public func userRecords(of data: Span<UInt8>) -> [UserRecord]? {
        let magic = AggregateWriter.magic
        let end = data.count - AggregateWriter.checksumSize
        // An aggregate of nothing is none: the KCL takes magic and checksum alone for a plain record.
        guard end > magic.count else { return nil }
        for index in magic.indices where data[index] != magic[index] { return nil }
        let message = data.extracting(magic.count..<end)
        let sum = md5.sum(of: message)
        for index in 0..<AggregateWriter.checksumSize where data[end + index] != sum[index] { return nil }
        return unsafe message.withUnsafeBufferPointer { unsafe Self.unpack($0) }
    }

    private static func unpack(_ message: UnsafeBufferPointer<UInt8>) -> [UserRecord]? {
        guard
            let aggregate = unsafe penstock__aggregated_record__unpack(nil, message.count, message.baseAddress)
        else { return nil }
        defer { unsafe penstock__aggregated_record__free_unpacked(aggregate, nil) }
        let partitionKeys = unsafe UnsafeBufferPointer(
            start: aggregate.pointee.partition_key_table,
            count: aggregate.pointee.n_partition_key_table
        )
        let explicitHashKeys = unsafe UnsafeBufferPointer(
            start: aggregate.pointee.explicit_hash_key_table,
            count: aggregate.pointee.n_explicit_hash_key_table
        )
        let records = unsafe UnsafeBufferPointer(start: aggregate.pointee.records, count: aggregate.pointee.n_records)
        var users: [UserRecord] = []
        users.reserveCapacity(records.count)
        for index in records.indices {
            guard let record = unsafe records[index]?.pointee else { return nil }
            guard let partition = unsafe Int(exactly: record.partition_key_index),
                partition < partitionKeys.count
            else { return nil }
            var explicit: [UInt8]?
            if unsafe record.has_explicit_hash_key_index != 0 {
                guard let index = unsafe Int(exactly: record.explicit_hash_key_index),
                    index < explicitHashKeys.count
                else { return nil }
                explicit = unsafe Array(explicitHashKeys[index])
            }
            unsafe users.append(
                UserRecord(
                    partitionKey: Array(partitionKeys[partition]),
                    explicitHashKey: explicit,
                    data: Array(record.data)
                )
            )
        }
        return users
    }
}

extension Array<UInt8> {
    fileprivate init(_ bytes: ProtobufCBinaryData) {
        self = unsafe Array(UnsafeBufferPointer(start: bytes.data, count: bytes.len))
    }
}
