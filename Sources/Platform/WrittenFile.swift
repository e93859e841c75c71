import CLinux
import Glibc

/// A file that is written at positions of its writer's choice, and synced.
public struct WrittenFile: ~Copyable, Sendable {
    private let descriptor: Descriptor
    private let path: String

    /// Opens `path` for writing, and creates it if it is not there.
    public init(_ path: String) throws(SystemError) {
        descriptor = Descriptor(try check("open", path, unsafe clinux_open_update(path, 0o640)))
        self.path = path
    }

    /// Writes all of `bytes` at `offset`.
    public func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(SystemError) {
        var done = 0
        while done < bytes.count {
            let count = unsafe pwrite(
                descriptor.number,
                bytes.baseAddress! + done,
                bytes.count - done,
                off_t(offset) + done
            )
            if count < 0 {
                let code = errno
                if code == EINTR { continue }
                throw SystemError(call: "write", path: path, code: code)
            }
            // A device that takes nothing and says no fault would keep us here for ever.
            if count == 0 { throw SystemError(call: "write", path: path, code: ENOSPC) }
            done += count
        }
    }

    /// Writes all of `bytes` at `offset`.
    public func write(_ bytes: [UInt8], at offset: UInt64) throws(SystemError) {
        var failure: SystemError?
        unsafe bytes.withUnsafeBytes { bytes in
            do throws(SystemError) { unsafe try write(bytes, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// Lets the kernel begin to write a stretch to the disk, and does not wait for it.
    public func startWriting(_ stretch: Range<UInt64>) {
        clinux_start_writing(descriptor.number, stretch.lowerBound, UInt64(stretch.count))
    }

    /// Returns once everything written, and the size, are on the disk.
    public func sync() throws(SystemError) {
        if fdatasync(descriptor.number) != 0 { throw SystemError(call: "fdatasync", path: path, code: errno) }
    }

    /// Cuts the file off at `size`.
    public func truncate(to size: UInt64) throws(SystemError) {
        if ftruncate(descriptor.number, off_t(size)) != 0 {
            throw SystemError(call: "ftruncate", path: path, code: errno)
        }
    }
}
