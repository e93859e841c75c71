import CAggregate
import CProtobufC
import Kinesis

/// An aggregate as libprotobuf-c packs it: magic, message, MD5.
func packedByLibprotobuf(_ records: [UserRecord]) -> [UInt8] {
    var memory = Borrowed()
    // Tables in order of first use.
    var (keys, hashes): ([[UInt8]], [[UInt8]]) = ([], [])
    var (keyIndices, hashIndices): ([[UInt8]: UInt64], [[UInt8]: UInt64]) = ([:], [:])
    let pointers = UnsafeMutablePointer<UnsafeMutablePointer<Penstock__Record>?>.allocate(capacity: records.count)
    let packed = UnsafeMutablePointer<Penstock__Record>.allocate(capacity: records.count)
    defer {
        unsafe pointers.deallocate()
        unsafe packed.deallocate()
    }
    for (index, record) in records.enumerated() {
        unsafe penstock__record__init(packed + index)
        if keyIndices[record.partitionKey] == nil {
            keyIndices[record.partitionKey] = UInt64(keys.count)
            keys.append(record.partitionKey)
        }
        unsafe packed[index].partition_key_index = keyIndices[record.partitionKey]!
        if let hash = record.explicitHashKey {
            if hashIndices[hash] == nil {
                hashIndices[hash] = UInt64(hashes.count)
                hashes.append(hash)
            }
            unsafe packed[index].has_explicit_hash_key_index = 1
            unsafe packed[index].explicit_hash_key_index = hashIndices[hash]!
        }
        unsafe packed[index].data = memory.binary(record.data)
        unsafe (pointers + index).initialize(to: packed + index)
    }
    var tables = unsafe (keys + hashes).map { unsafe memory.binary($0) }
    var aggregate = unsafe Penstock__AggregatedRecord()
    unsafe penstock__aggregated_record__init(&aggregate)
    let message = unsafe tables.withUnsafeMutableBufferPointer { tables in
        unsafe aggregate.n_partition_key_table = keys.count
        unsafe aggregate.partition_key_table = tables.baseAddress
        unsafe aggregate.n_explicit_hash_key_table = hashes.count
        unsafe aggregate.explicit_hash_key_table = tables.baseAddress! + keys.count
        unsafe aggregate.n_records = records.count
        unsafe aggregate.records = pointers
        let size = unsafe penstock__aggregated_record__get_packed_size(&aggregate)
        return unsafe [UInt8](unsafeUninitializedCapacity: size) { out, count in
            unsafe count = penstock__aggregated_record__pack(&aggregate, out.baseAddress!)
        }
    }
    let sum = MD5().sum(of: message.span)
    return AggregateWriter.magic + message + sum.indices.map { sum[$0] }
}

/// Copies of bytes that live as long as a call of C needs them.
@safe
private struct Borrowed: ~Copyable {
    private var buffers: [UnsafeMutablePointer<UInt8>] = unsafe []

    mutating func binary(_ bytes: [UInt8]) -> ProtobufCBinaryData {
        let copy = UnsafeMutablePointer<UInt8>.allocate(capacity: max(bytes.count, 1))
        for index in bytes.indices { unsafe copy[index] = bytes[index] }
        unsafe buffers.append(copy)
        return unsafe ProtobufCBinaryData(len: bytes.count, data: copy)
    }

    deinit { unsafe buffers.forEach { unsafe $0.deallocate() } }
}
