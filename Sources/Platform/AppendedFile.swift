public import Bytes
import CLinux
import Glibc

/// A file that is written at its end.
public struct AppendedFile: ~Copyable, Sendable {
    private let descriptor: Descriptor

    /// Creates `path` if it is not there.
    public init(_ path: String) throws(SystemError) {
        descriptor = Descriptor(try check("open", path, unsafe clinux_open_append(path, 0o640)))
    }

    /// Writes all that `bytes` holds; false when the file takes no more.
    public func append(_ bytes: borrowing ByteWriter) -> Bool {
        bytes.withBytes { (bytes: Span<UInt8>) in append(bytes) }
    }

    /// Writes all of `bytes`; false when the file takes no more.
    public func append(_ bytes: Span<UInt8>) -> Bool {
        unsafe bytes.withUnsafeBytes { bytes in
            var at = 0
            while at < bytes.count {
                let count = unsafe write(descriptor.number, bytes.baseAddress! + at, bytes.count - at)
                if count < 0 {
                    if errno == EINTR { continue }
                    return false
                }
                at += count
            }
            return true
        }
    }

    /// Writes all of `bytes`, or throws the kernel's reason why not; `path` is the file's name in it.
    public func appendAll(_ bytes: borrowing ByteWriter, _ path: String) throws(SystemError) {
        guard append(bytes) else { throw SystemError(call: "write", path: path, code: errno) }
    }

    /// Waits until what was written is on disk.
    public func sync(_ path: String) throws(SystemError) {
        if fdatasync(descriptor.number) != 0 { throw SystemError(call: "fdatasync", path: path, code: errno) }
    }

    public func status(_ path: String) throws(SystemError) -> FileStatus { try FileStatus(of: descriptor, path) }
}
