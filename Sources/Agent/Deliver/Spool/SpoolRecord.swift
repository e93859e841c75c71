import Bytes
package import Kinesis

/// One aggregate as it lies in a segment: all that sending it, or making other aggregates of it, needs.
///
/// Little-endian, and a multiple of eight bytes long:
///
///     0   "PSr1", length of the whole, CRC-32C of all that follows it, kind (1)
///     16  milliseconds since 1970 when it was written, user records, bytes of user data
///     32  lowest hash key, highest hash key, explicit hash key (16 bytes each)
///     80  1 if there is an explicit hash key, bytes of the partition key, origins, bytes of data
///     96  up to where the segment was safe when this was written (8 bytes)
///     104 partition key; origins; zeros up to the data; data
///
/// An origin is a length and an input's name, then the source's number, first and last position, and the count of user records.
package struct SpoolRecord: Equatable {
    /// A stretch of a file, or of another source, that records came from.
    package struct Origin: Equatable, Sendable {
        package var input: String
        /// What the state file calls the source: its file may get another name, and its content another inode.
        package var source: UInt32
        package var first: UInt64
        package var end: UInt64
        package var records: Int

        package init(input: String, source: UInt32, first: UInt64, end: UInt64, records: Int) {
            (self.input, self.source, self.first, self.end, self.records) = (input, source, first, end, records)
        }

        var amount: Ledger.Amount { .init(records: records, bytes: Int(clamping: end - first)) }
    }

    package var milliseconds: Int64
    package var recordCount: Int
    package var userBytes: Int
    package var key: SealedAggregate.Key
    package var hashes: ClosedRange<HashKey>
    package var origins: [Origin]

    package init(_ aggregate: SealedAggregate, origins: [Origin], milliseconds: Int64) {
        (recordCount, userBytes) = (aggregate.recordCount, aggregate.userBytes)
        (key, hashes) = (aggregate.key, aggregate.hashes)
        (self.origins, self.milliseconds) = (origins, milliseconds)
    }

    static let magic = Array("PSr1".utf8)
    static let fixedSize = 104
    /// No record is larger: the largest that a stream takes, and what stands around it.
    static let largest = Limits.largestRecordBytes + (32 << 20)

    /// Bytes that a record may take beside its data: what stands around it, and its files in the segment's index.
    package static func overhead(origins: Int) -> Int { 4096 + 512 * origins }

    /// Bytes of memory that a record with so much data takes when it has come back, about: small ones are mostly this.
    package static func memory(for dataCount: Int) -> Int { dataCount + 4096 }

    // MARK: writing

    /// All that stands before the data, with the checksum of the whole.
    ///
    /// - Parameter safeEnd: up to where the segment is synced: what is damaged before it was promised, what is missing
    ///   behind it was not.
    func head(of data: UnsafeRawBufferPointer, safeEnd: UInt64) -> [UInt8] {
        var out = ByteWriter(capacity: 256)
        out.append(Self.magic.span)
        out.append(integer: UInt32(0))
        out.append(integer: UInt32(0))
        out.append(integer: UInt32(1))
        out.append(integer: UInt64(bitPattern: milliseconds))
        out.append(integer: UInt32(recordCount))
        out.append(integer: UInt32(userBytes))
        out.append(integer: hashes.lowerBound.value)
        out.append(integer: hashes.upperBound.value)
        out.append(integer: key.explicitHashKey?.value ?? 0)
        out.append(integer: UInt32(key.explicitHashKey == nil ? 0 : 1))
        out.append(integer: UInt32(key.partitionKey.count))
        out.append(integer: UInt32(origins.count))
        out.append(integer: UInt32(data.count))
        out.append(integer: safeEnd)
        out.append(key.partitionKey.span)
        for origin in origins {
            let name = Array(origin.input.utf8.prefix(Int(UInt16.max)))
            out.append(integer: UInt16(name.count))
            out.append(name.span)
            out.append(integer: origin.source)
            out.append(integer: origin.first)
            out.append(integer: origin.end)
            out.append(integer: UInt32(clamping: origin.records))
        }
        while (out.count + data.count) % 8 != 0 { out.append(0) }
        var head = out.array
        let length = UInt32(head.count + data.count)
        head.store(length, at: 4)
        var sum = CRC32C()
        sum.update(head.span.extracting(12...))
        unsafe sum.update(data)
        head.store(sum.value, at: 8)
        return head
    }

    // MARK: reading

    /// The length that a record says it has, from its first bytes; nil when they are not the begin of one.
    static func length(_ bytes: Span<UInt8>) -> Int? {
        guard bytes.count >= 12, (0..<4).allSatisfy({ bytes[$0] == magic[$0] }) else { return nil }
        let length = Int(bytes.integer(at: 4, as: UInt32.self))
        return length % 8 == 0 && (fixedSize...largest).contains(length) ? length : nil
    }

    /// The kind of a whole record; nil when its checksum says that it is damaged.
    static func kind(ofWhole bytes: Span<UInt8>) -> UInt32? {
        guard length(bytes) == bytes.count else { return nil }
        guard CRC32C(bytes.extracting(12...)).value == bytes.integer(at: 8, as: UInt32.self) else { return nil }
        return bytes.integer(at: 12, as: UInt32.self)
    }

    /// Up to where its segment was safe when a record was written.
    static func safeEnd(_ bytes: Span<UInt8>) -> UInt64 { bytes.integer(at: 96, as: UInt64.self) }

    /// Reads a whole record and says where in it the data lies; nil when it is damaged.
    package static func read(_ bytes: Span<UInt8>) -> (record: SpoolRecord, data: Range<Int>)? {
        guard kind(ofWhole: bytes) == 1 else { return nil }
        return readChecked(bytes)
    }

    /// The same of a record whose checksum is known to be right, or whose data was not read.
    static func readChecked(_ bytes: Span<UInt8>) -> (record: SpoolRecord, data: Range<Int>)? {
        guard bytes.count >= fixedSize, let length = length(bytes) else { return nil }
        let dataCount = Int(bytes.integer(at: 92, as: UInt32.self))
        let keyCount = Int(bytes.integer(at: 84, as: UInt32.self))
        guard dataCount + keyCount + fixedSize <= length else { return nil }
        let low = HashKey(bytes.integer(at: 32, as: UInt128.self))
        let high = HashKey(bytes.integer(at: 48, as: UInt128.self))
        guard low <= high else { return nil }
        var at = fixedSize
        let most = min(bytes.count, length - dataCount)
        func take(_ count: Int) -> Range<Int>? {
            guard count <= most - at else { return nil }
            defer { at += count }
            return at..<at + count
        }
        guard let keyRange = take(keyCount) else { return nil }
        var origins: [Origin] = []
        for _ in 0..<bytes.integer(at: 88, as: UInt32.self) {
            guard let count = take(2), let name = take(Int(bytes.integer(at: count.lowerBound, as: UInt16.self))),
                let values = take(24)?.lowerBound
            else { return nil }
            let first = bytes.integer(at: values + 4, as: UInt64.self)
            let end = bytes.integer(at: values + 12, as: UInt64.self)
            guard first <= end else { return nil }
            origins.append(
                Origin(
                    input: String(decoding: bytes.array(name), as: UTF8.self),
                    source: bytes.integer(at: values, as: UInt32.self),
                    first: first,
                    end: end,
                    records: Int(bytes.integer(at: values + 20, as: UInt32.self))
                )
            )
        }
        let explicit = HashKey(bytes.integer(at: 64, as: UInt128.self))
        let key = SealedAggregate.Key(
            partitionKey: bytes.array(keyRange),
            explicitHashKey: bytes.integer(at: 80, as: UInt32.self) == 1 ? explicit : nil
        )
        let record = SpoolRecord(
            milliseconds: Int64(bitPattern: bytes.integer(at: 16, as: UInt64.self)),
            recordCount: Int(bytes.integer(at: 24, as: UInt32.self)),
            userBytes: Int(bytes.integer(at: 28, as: UInt32.self)),
            key: key,
            hashes: low...high,
            origins: origins
        )
        return (record, length - dataCount..<length)
    }

    private init(
        milliseconds: Int64,
        recordCount: Int,
        userBytes: Int,
        key: SealedAggregate.Key,
        hashes: ClosedRange<HashKey>,
        origins: [Origin]
    ) {
        (self.milliseconds, self.recordCount, self.userBytes) = (milliseconds, recordCount, userBytes)
        (self.key, self.hashes, self.origins) = (key, hashes, origins)
    }
}

extension ByteWriter {
    mutating func append<Integer: FixedWidthInteger & BitwiseCopyable>(integer: Integer) {
        unsafe append(upTo: MemoryLayout<Integer>.size) { room in
            unsafe room.storeBytes(of: integer.littleEndian, as: Integer.self)
            return MemoryLayout<Integer>.size
        }
    }
}

extension [UInt8] {
    fileprivate mutating func store(_ value: UInt32, at offset: Int) {
        for index in 0..<4 { self[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index)) }
    }
}

extension Span<UInt8> {
    func integer<Integer: FixedWidthInteger & BitwiseCopyable>(at offset: Int, as: Integer.Type) -> Integer {
        precondition(offset >= 0 && offset + MemoryLayout<Integer>.size <= count)
        return unsafe withUnsafeBytes {
            unsafe Integer(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: Integer.self))
        }
    }

    func array(_ range: Range<Int>) -> [UInt8] {
        unsafe extracting(range).withUnsafeBytes { unsafe Array($0) }
    }
}
