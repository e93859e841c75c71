import Kinesis
import Platform

/// What tells a file from another that has its name or its inode, and a copy of it from any other file.
struct FileMark: Equatable {
    /// Bytes of the head that `head` is of; a short file's head grows with it.
    var headSize: UInt16 = 0
    var head = Fingerprint.none
    /// The bytes right before the offset up to which the file was read.
    var end: [UInt8] = []

    /// Bytes of the head that identify a file.
    static let headBytes = 1024
    static let endBytes = 256

    init() {}

    /// What an entry knows of its file.
    init(_ entry: Checkpoints.Entry) { (headSize, head) = (entry.headSize, entry.head) }

    /// Notes that reading has passed `bytes`.
    @unsafe
    mutating func passed(_ bytes: UnsafeRawBufferPointer) {
        if bytes.count >= Self.endBytes {
            end.removeAll(keepingCapacity: true)
        } else if end.count + bytes.count > Self.endBytes {
            end.removeFirst(end.count + bytes.count - Self.endBytes)
        }
        unsafe end.append(contentsOf: bytes.suffix(Self.endBytes))
    }

    /// Notes the file's head, or more of it.
    mutating func setHead(of file: borrowing ReadableFile) throws(SystemError) {
        let bytes = try file.bytes(at: 0, count: Self.headBytes)
        (headSize, head) = (UInt16(bytes.count), Fingerprint(of: bytes.span))
    }

    /// The bytes of a file right before `offset`.
    static func end(of file: borrowing ReadableFile, before offset: UInt64) throws(SystemError) -> [UInt8] {
        let count = min(offset, UInt64(endBytes))
        return try file.bytes(at: offset - count, count: Int(count))
    }

    /// Whether `file` begins with the marked head.
    func hasHead(_ file: borrowing ReadableFile) throws(SystemError) -> Bool {
        guard headSize > 0 else { return false }
        let bytes = try file.bytes(at: 0, count: Int(headSize))
        return bytes.count == headSize && Fingerprint(of: bytes.span) == head
    }

    /// Whether `file` holds what was read up to `offset`, as far as the mark can tell.
    func fits(_ file: borrowing ReadableFile, upTo offset: UInt64) throws(SystemError) -> Bool {
        guard try hasHead(file) else { return false }
        guard !end.isEmpty else { return true }
        return try file.bytes(at: offset - UInt64(end.count), count: end.count) == end
    }

    /// Whether `file` begins with the marked head and has `end` where it was.
    func fits(_ file: borrowing ReadableFile, _ end: Checkpoints.Entry.End) throws(SystemError) -> Bool {
        guard try hasHead(file) else { return false }
        return try Self.holds(file, end)
    }

    /// Whether `file` has `end` where it was; true if nothing is known of it.
    static func holds(_ file: borrowing ReadableFile, _ end: Checkpoints.Entry.End) throws(SystemError) -> Bool {
        guard end.size > 0 else { return true }
        let bytes = try file.bytes(at: end.position - UInt64(end.size), count: Int(end.size))
        return bytes.count == end.size && Fingerprint(of: bytes.span) == end.hash
    }
}
