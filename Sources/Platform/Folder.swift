import CLinux
import Glibc

/// Whole small files and folders: configuration and state.
public enum Folder {
    /// The names in `path`, with inode and whether it may be a folder, in no order; `.` and `..` left out.
    public static func entries(of path: String) throws(SystemError) -> [Entry] {
        guard let folder = unsafe opendir(path) else { throw SystemError(call: "opendir", path: path, code: errno) }
        defer { unsafe _ = closedir(folder) }
        var entries: [Entry] = []
        while let entry = unsafe readdir(folder) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
                unsafe String(cString: UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self))
            }
            if name == "." || name == ".." { continue }
            let type = unsafe Int(entry.pointee.d_type)
            unsafe entries.append(
                Entry(
                    name: name,
                    inode: UInt64(entry.pointee.d_ino),
                    mayBeFolder: type == DT_DIR || type == DT_LNK || type == DT_UNKNOWN,
                    mayBeLink: type == DT_LNK || type == DT_UNKNOWN
                )
            )
        }
        return entries
    }

    public struct Entry: Sendable {
        public var name: String
        public var inode: UInt64
        /// A folder, a link that may lead to one, or a file system that does not say.
        public var mayBeFolder: Bool
        /// A link, or a file system that does not say.
        public var mayBeLink: Bool
    }

    /// Where the link `path` leads, link by link, the last one no link any more; empty if it is none itself.
    public static func targets(of path: String) -> [String] {
        var targets: [String] = []
        var path = path
        // The kernel follows 40, too.
        while targets.count < 40 {
            let target = unsafe String(unsafeUninitializedCapacity: Int(PATH_MAX)) { room in
                unsafe max(
                    0,
                    readlink(
                        path,
                        UnsafeMutableRawPointer(room.baseAddress!).assumingMemoryBound(to: CChar.self),
                        room.count
                    )
                )
            }
            guard !target.isEmpty else { break }
            path = target.hasPrefix("/") ? target : joined(parent(of: path), target)
            targets.append(path)
        }
        return targets
    }

    /// The path of `name` in the folder `path`.
    public static func joined(_ path: String, _ name: String) -> String {
        var joined = ""
        // Exactly: appending would take twice as much, and there may be very many paths.
        joined.reserveCapacity(path.utf8.count + 1 + name.utf8.count)
        joined += path
        if path != "/" { joined += "/" }
        joined += name
        return joined
    }

    /// Whether others may change the folder `path` without this machine's kernel knowing.
    public static func isRemote(_ path: String) -> Bool { unsafe clinux_is_remote(path) == 1 }

    /// Creates `path` and the folders above it; what is synced in it later survives a loss of power.
    public static func create(_ path: String) throws(SystemError) {
        if let status = try? FileStatus(of: path), status.kind == .folder { return }
        if let slash = path.lastIndex(of: "/"), slash != path.startIndex { try create(String(path[..<slash])) }
        if unsafe mkdir(path, 0o750) != 0 && errno != EEXIST {
            throw SystemError(call: "mkdir", path: path, code: errno)
        }
        do {
            let parent = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
            try sync(parent.isEmpty ? "/" : parent)
        } catch {
            // Whoever may not list the folder above can create in it all the same.
            guard error.code == EACCES else { throw error }
        }
    }

    /// The bytes of a file, at most `limit`.
    public static func read(_ path: String, limit: Int = 64 << 20) throws(SystemError) -> [UInt8] {
        let file = try ReadableFile(path)
        let size = try Int(clamping: file.status().size)
        guard size <= limit else { throw SystemError(call: "read", path: path, code: EFBIG) }
        // A file of /proc says 0, and is small.
        return try file.bytes(at: 0, count: size == 0 ? 1 << 16 : size)
    }

    /// The last byte of a file; nil when it is empty.
    public static func lastByte(of path: String) throws(SystemError) -> UInt8? {
        let file = try ReadableFile(path)
        let size = try file.status().size
        return size == 0 ? nil : try file.bytes(at: size - 1, count: 1).first
    }

    /// Replaces `path` by `bytes` so that a crash leaves the old file or the new one: write, fsync, rename, fsync of the
    /// folder.
    /// - Parameter isDurable: false leaves out what makes it outlive a crash of the machine.
    public static func replace(_ path: String, with bytes: [UInt8], isDurable: Bool = true) throws(SystemError) {
        let temporary = path + ".new"
        let file = Descriptor(try check("open", temporary, unsafe clinux_open_write(temporary, 0o640)))
        var written = 0
        while written < bytes.count {
            let count = unsafe bytes.withUnsafeBytes {
                unsafe write(file.number, $0.baseAddress! + written, $0.count - written)
            }
            if count < 0 {
                if errno == EINTR { continue }
                throw SystemError(call: "write", path: temporary, code: errno)
            }
            written += count
        }
        if isDurable, fsync(file.number) != 0 { throw SystemError(call: "fsync", path: temporary, code: errno) }
        if unsafe rename(temporary, path) != 0 { throw SystemError(call: "rename", path: path, code: errno) }
        if isDurable { try sync(parent(of: path)) }
    }

    /// Returns once the names in `path` are on the disk.
    public static func sync(_ path: String) throws(SystemError) {
        let folder = Descriptor(try check("open", path, unsafe clinux_open_folder(path)))
        if fsync(folder.number) != 0 { throw SystemError(call: "fsync", path: path, code: errno) }
    }

    /// Bytes that may be written to the file system of `path` by others than root.
    public static func freeBytes(_ path: String) throws(SystemError) -> Int {
        var system = statvfs()
        if unsafe statvfs(path, &system) != 0 { throw SystemError(call: "statvfs", path: path, code: errno) }
        return Int(clamping: UInt64(system.f_bavail) * UInt64(system.f_frsize))
    }

    /// Removes a file.
    public static func remove(_ path: String) throws(SystemError) {
        if unsafe unlink(path) != 0 { throw SystemError(call: "unlink", path: path, code: errno) }
    }

    /// The folder that `path` lies in.
    public static func parent(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// Makes a new folder whose path begins with `prefix`, among the system's temporary files.
    public static func createTemporary(_ prefix: String) throws(SystemError) -> String {
        let parent = Machine.environment("TMPDIR").flatMap { $0.isEmpty ? nil : $0 } ?? "/tmp"
        var template = Array((parent + "/" + prefix + "XXXXXX").utf8CString)
        guard unsafe mkdtemp(&template) != nil else {
            throw SystemError(call: "mkdtemp", path: parent, code: errno)
        }
        return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Removes a folder with all that is in it; what cannot be removed stays.
    public static func removeTree(_ path: String) {
        for entry in (try? entries(of: path)) ?? [] {
            let child = path + "/" + entry.name
            if unsafe unlink(child) != 0 { removeTree(child) }
        }
        unsafe _ = rmdir(path)
    }

    /// Gives `path` another name.
    public static func move(_ path: String, to name: String) throws(SystemError) {
        if unsafe rename(path, name) != 0 { throw SystemError(call: "rename", path: path, code: errno) }
    }
}

/// A file that one process at a time holds locked; the lock ends with the process, however it ends.
public struct LockFile: ~Copyable, Sendable {
    let descriptor: Descriptor

    /// Takes the lock and writes this process's number into the file.
    ///
    /// - Throws: `.held` with the number found in the file, when another process has it.
    public init(_ path: String) throws(Fault) {
        let number: Int32
        do { number = try check("open", path, unsafe clinux_open_lock(path)) } catch { throw .system(error) }
        let descriptor = Descriptor(number)
        let locked = clinux_lock(descriptor.number)
        if locked == -EAGAIN || locked == -EACCES {
            let text = (try? Folder.read(path)).map { String(decoding: $0, as: UTF8.self) }
            throw .held(by: text.flatMap { Int32($0.prefix { $0.isNumber }) })
        }
        do { _ = try check("lock", path, locked) } catch { throw .system(error) }
        let pid = Array("\(getpid())\n".utf8)
        _ = ftruncate(descriptor.number, 0)
        _ = unsafe pwrite(descriptor.number, pid, pid.count, 0)
        self.descriptor = descriptor
    }

    public enum Fault: Error, Equatable {
        case held(by: Int32?)
        case system(SystemError)
    }
}
