import Kinesis
import Platform

/// What tells a file from another that has its name or its inode, and a copy of it from any other file.
struct FileMark: Equatable {
    /// Bytes of the head that `head` is of; a short file's head grows with it.
    var headSize: UInt16 = 0
    var head = Fingerprint.none

    /// Bytes of the head that identify a file.
    static let headBytes = 1024
    /// Bytes right before an offset that tell whether a file was read up to there.
    static let endBytes = 256

    init() {}

    /// What an entry knows of its file.
    init(_ entry: Checkpoints.Entry) { (headSize, head) = (entry.headSize, entry.head) }

    /// Keeps of what was read, `end` and then `bytes`, so much as the mark needs.
    @unsafe
    static func pass(_ bytes: UnsafeRawBufferPointer, _ end: inout [UInt8]) {
        if bytes.count >= endBytes {
            end.removeAll(keepingCapacity: true)
        } else if end.count + bytes.count > endBytes {
            end.removeFirst(end.count + bytes.count - endBytes)
        }
        unsafe end.append(contentsOf: bytes.suffix(endBytes))
    }

    /// The bytes of a file right before `offset`.
    static func end(of file: borrowing ReadableFile, before offset: UInt64) throws(SystemError) -> [UInt8] {
        let count = min(offset, UInt64(endBytes))
        return try file.bytes(at: offset - count, count: Int(count))
    }

    /// Whether bytes from a file's start may be of the marked one: they are no fewer than its head, and begin with it.
    func begins(_ bytes: [UInt8]) -> Bool {
        guard headSize > 0 else { return true }
        return bytes.count >= headSize && Fingerprint(of: bytes.span.extracting(0..<Int(headSize))) == head
    }

    /// Whether `file` begins with the marked head.
    func hasHead(_ file: borrowing ReadableFile) throws(SystemError) -> Bool {
        guard headSize > 0 else { return false }
        let bytes = try file.bytes(at: 0, count: Int(headSize))
        return bytes.count == headSize && Fingerprint(of: bytes.span) == head
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
