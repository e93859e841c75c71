import CLinux
import Glibc

/// A Unix socket that is bound to a file of its own: of streams, to listen on, or of datagrams.
///
/// What a dead process has left at the path is replaced; a socket that somebody listens on is respected. The file goes with
/// the last holder. A lock beside it (`PATH.lock`) keeps two processes from replacing each other's.
public final class UnixSocketFile: Sendable {
    public let path: String
    public let number: Int32
    private let descriptor: Descriptor
    private let lock: LockFile
    private let identity: FileStatus

    /// - Parameters:
    ///   - mode: the file's permissions: who may write to it may connect and send.
    ///   - group: the file's group; empty: the process's.
    public init(_ path: String, isDatagram: Bool, mode: UInt32, group: String) throws(SocketFault) {
        let owner = try Self.number(ofGroup: group)
        let lock = try Self.lock(path)
        try Self.removeDead(path, isDatagram: isDatagram)
        do throws(SystemError) {
            let descriptor = Descriptor(try check("socket", nil, clinux_socket(1, isDatagram ? 1 : 0)))
            // Of what is sent before the kernel was asked to, it does not say who sent it.
            if isDatagram { _ = try check("setsockopt", path, clinux_tell_origin(descriptor.number, 1, 0)) }
            _ = try check("bind", path, unsafe clinux_bind_unix(descriptor.number, path))
            do throws(SystemError) {
                identity = try FileStatus(of: path)
                _ = try check("chown", path, unsafe clinux_own(path, owner, mode))
            } catch {
                unsafe _ = unlink(path)
                throw error
            }
            number = descriptor.number
            self.descriptor = descriptor
        } catch { throw SocketFault(binding: error) }
        self.path = path
        self.lock = lock
    }

    deinit {
        if let status = try? FileStatus(of: path), status.inode == identity.inode, status.device == identity.device {
            unsafe _ = unlink(path)
        }
        unsafe _ = unlink(Self.lockPath(path))
    }

    /// Gives the file another mode and group.
    public func own(mode: UInt32, group: String) throws(SocketFault) {
        let owner = try Self.number(ofGroup: group)
        do { _ = try check("chown", path, unsafe clinux_own(path, owner, mode)) } catch { throw .system(error) }
    }

    private static func lockPath(_ path: String) -> String { path + ".lock" }

    private static func number(ofGroup name: String) throws(SocketFault) -> UInt32 {
        guard !name.isEmpty else { return .max }
        let number = unsafe clinux_group(name)
        guard number >= 0 else { throw .unknownGroup(name) }
        return UInt32(number)
    }

    private static func lock(_ path: String) throws(SocketFault) -> LockFile {
        while true {
            do {
                let lock = try LockFile(lockPath(path))
                // Whoever had it may have removed it since we opened it.
                if lock.isStill(at: lockPath(path)) { return lock }
            } catch {
                switch error {
                case .held(let process): throw .inUse(process: process)
                case .system(let error): throw .system(error)
                }
            }
        }
    }

    /// Removes the file of a socket that nobody has open any more.
    private static func removeDead(_ path: String, isDatagram: Bool) throws(SocketFault) {
        do {
            _ = try FileStatus(of: path)
            // A socket of the other kind refuses in another way than a dead one.
            for isDatagram in [isDatagram, !isDatagram] {
                let probe = Descriptor(try check("socket", nil, clinux_socket(1, isDatagram ? 1 : 0)))
                switch -(unsafe clinux_connect_unix(probe.number, path)) {
                case 0, EAGAIN, EINPROGRESS: throw SocketFault.inUse(process: nil)
                case EPROTOTYPE: continue
                case ECONNREFUSED:
                    guard try isSocket(path) else { throw SocketFault.notASocket }
                    try Folder.remove(path)
                    return
                case ENOENT: return
                case let code: throw SystemError(call: "connect", path: path, code: code)
                }
            }
            throw SocketFault.notASocket
        } catch let error as SystemError {
            if !error.isNotFound { throw .system(error) }
        } catch let fault as SocketFault { throw fault } catch { throw .notASocket }
    }

    private static func isSocket(_ path: String) throws(SystemError) -> Bool {
        try FileStatus(of: path).kind == .socket
    }
}

extension LockFile {
    /// Whether the file at `path` is the one that is locked.
    func isStill(at path: String) -> Bool {
        guard let there = try? FileStatus(of: path), let mine = try? FileStatus(of: descriptor, path) else {
            return false
        }
        return there.inode == mine.inode && there.device == mine.device
    }
}
