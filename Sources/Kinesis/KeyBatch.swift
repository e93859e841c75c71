internal import Bytes
internal import CMD5

// Concurrency: belongs to its lane's thread.

/// Records of a block whose partition keys are hashed together: MD5 takes hardly longer for as many as a processor has lanes
/// than for one.
@safe
struct KeyBatch: ~Copyable {
    /// As many as go through the widest vectors at once.
    static let most = 32

    /// A record on its way to its shard.
    struct Entry {
        /// Where it lies in its block.
        var data: Range<Int>
        var run: Run
        /// Where its partition key lies; empty if it has none.
        fileprivate var key: Range<Int>

        var hasKey: Bool { !key.isEmpty }
    }

    private(set) var entries: [Entry] = []
    private var keys = ByteWriter(capacity: 0)
    private let messages: UnsafeMutablePointer<cmd5_message>
    private let sums: UnsafeMutablePointer<UInt8>
    private let lanes = cmd5_best()

    init() {
        entries.reserveCapacity(Self.most)
        unsafe messages = .allocate(capacity: Self.most)
        unsafe sums = .allocate(capacity: Self.most * 16)
        unsafe sums.initialize(repeating: 0, count: Self.most * 16)
    }

    deinit {
        unsafe messages.deallocate()
        unsafe sums.deallocate()
    }

    var isFull: Bool { entries.count == Self.most }

    mutating func clear() {
        entries.removeAll(keepingCapacity: true)
        keys.clear()
    }

    /// Adds a record.
    ///
    /// - Parameter writeKey: appends the record's partition key, or says that it has none.
    @inline(__always)
    mutating func add(_ data: Range<Int>, from run: Run, _ writeKey: (inout ByteWriter) -> Bool) {
        let start = keys.count
        // Readers would decode another text to something else, hash that, and find the record in the wrong shard.
        if !writeKey(&keys) || !keys.withBytes(start..<keys.count, Self.isText) { keys.truncate(to: start) }
        entries.append(Entry(data: data, run: run, key: start..<keys.count))
    }

    /// Hashes the keys of all records.
    mutating func hash() {
        for index in entries.indices {
            let key = entries[index].key
            unsafe messages[index] = cmd5_message(
                bytes: keys.bytes.baseAddress.map { unsafe $0 + key.lowerBound },
                count: key.count,
                sum: sums + index * 16
            )
        }
        unsafe cmd5_sums(messages, entries.count, lanes)
    }

    /// Where its partition key puts a record.
    func hash(of index: Int) -> HashKey {
        unsafe HashKey(bytes: Span(_unsafeStart: sums + index * 16, count: 16))
    }

    /// A record's partition key, which lies there until the batch is changed.
    @unsafe
    @inline(__always)
    func key(of index: Int) -> UnsafeRawBufferPointer { unsafe .init(rebasing: keys.bytes[entries[index].key]) }

    func recordKey(of index: Int) -> RecordKey {
        RecordKey(copying: unsafe Span(_unsafeBytes: key(of: index)), hash: hash(of: index))
    }

    /// Whether these bytes are UTF-8.
    private static func isText(_ bytes: Span<UInt8>) -> Bool {
        var high: UInt8 = 0
        for index in bytes.indices { high |= bytes[index] }
        if high < 0x80 { return true }
        do {
            _ = try UTF8Span(validating: bytes)
            return true
        } catch {
            return false
        }
    }
}
