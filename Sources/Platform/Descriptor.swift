import CLinux
import Glibc

/// An open file descriptor with one owner, closed when the owner lets go.
public struct Descriptor: ~Copyable, Sendable {
    public let number: Int32

    public init(_ number: Int32) { self.number = number }

    deinit { _ = close(number) }
}

/// What identifies a file, and its size, as stat(2) tells.
public struct FileStatus: Equatable, Sendable {
    public var device: UInt64
    public var inode: UInt64
    public var size: UInt64
    /// Names the file still has; 0 once it is deleted.
    public var links: UInt64
    public var kind: Kind
    /// When its content last changed, by the wall clock in nanoseconds: to compare with another file's, no more.
    public var modified: Int64

    public enum Kind: Sendable { case regular, folder, socket, other }

    /// Follows symbolic links.
    public init(of path: String) throws(SystemError) {
        var file = clinux_file()
        _ = try check("stat", path, unsafe clinux_stat(path, &file))
        self.init(file)
    }

    /// Whether everybody on this machine may read the file at `path`, as far as its own mode says.
    public static func isOpenToOthers(_ path: String) -> Bool { unsafe clinux_is_open_to_others(path) == 1 }

    private init(_ file: clinux_file) {
        (device, inode, size, links) = (file.device, file.inode, file.size, file.links)
        modified = file.modified
        kind = file.kind == 1 ? .regular : file.kind == 2 ? .folder : file.kind == 3 ? .socket : .other
    }

    init(of descriptor: borrowing Descriptor, _ path: String) throws(SystemError) {
        var file = clinux_file()
        _ = try check("fstat", path, unsafe clinux_fstat(descriptor.number, &file))
        self.init(file)
    }
}

/// A file open for reading at any position.
public struct ReadableFile: ~Copyable, Sendable {
    private let descriptor: Descriptor
    private let path: String

    /// Opens `path`; never waits, also if it turns out to be a FIFO.
    public init(_ path: String) throws(SystemError) {
        descriptor = Descriptor(try check("open", path, unsafe clinux_open_read(path)))
        self.path = path
    }

    public func status() throws(SystemError) -> FileStatus { try FileStatus(of: descriptor, path) }

    /// Reads at `offset` into `room` and returns how many bytes came; 0 at the end.
    public func read(into room: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(SystemError) -> Int {
        while true {
            let count = unsafe pread(descriptor.number, room.baseAddress, room.count, off_t(offset))
            if count >= 0 { return count }
            let code = errno
            if code != EINTR { throw SystemError(call: "read", path: path, code: code) }
        }
    }

    /// The bytes from `offset` on, `count` at most.
    public func bytes(at offset: UInt64, count: Int) throws(SystemError) -> [UInt8] {
        var failure: SystemError?
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { room, used in
            do throws(SystemError) {
                while used < count {
                    let rest = unsafe UnsafeMutableRawBufferPointer(UnsafeMutableBufferPointer(rebasing: room[used...]))
                    let got = unsafe try read(into: rest, at: offset + UInt64(used))
                    if got == 0 { break }
                    used += got
                }
            } catch { failure = error }
        }
        if let failure { throw failure }
        return bytes
    }
}
