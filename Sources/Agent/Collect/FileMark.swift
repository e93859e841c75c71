import Kinesis
import Platform

/// What tells a file from another that has its name or its inode, and a copy of it from any other file.
struct FileMark: Equatable {
    /// Bytes of the head that `headHash` covers; a short file's head grows with it.
    var headSize = 0
    /// SHA-256, hexadecimal.
    var headHash = ""
    /// The bytes right before the offset up to which the file was read.
    var end: [UInt8] = []

    /// Bytes of the head that identify a file.
    static let headBytes = 1024
    private static let endBytes = 256

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

    /// The hash of a file's first `size` bytes, or of fewer if it has fewer.
    static func head(of file: borrowing ReadableFile, size: Int) throws(SystemError) -> (size: Int, hash: String) {
        let bytes = try file.bytes(at: 0, count: size)
        return (bytes.count, SHA256.hexadecimal(of: bytes))
    }

    /// The bytes of a file right before `offset`.
    static func end(of file: borrowing ReadableFile, before offset: UInt64) throws(SystemError) -> [UInt8] {
        let count = min(offset, UInt64(endBytes))
        return try file.bytes(at: offset - count, count: Int(count))
    }

    /// Whether `file` begins with the marked head.
    func hasHead(_ file: borrowing ReadableFile) throws(SystemError) -> Bool {
        guard headSize > 0 else { return false }
        let head = try Self.head(of: file, size: headSize)
        return head.size == headSize && head.hash == headHash
    }

    /// Whether `file` holds what was read up to `offset`, as far as the mark can tell.
    func fits(_ file: borrowing ReadableFile, upTo offset: UInt64) throws(SystemError) -> Bool {
        guard try hasHead(file) else { return false }
        guard !end.isEmpty else { return true }
        return try file.bytes(at: offset - UInt64(end.count), count: end.count) == end
    }
}
