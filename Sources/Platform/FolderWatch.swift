import CLinux
import Glibc

/// inotify on folders: tells which names in them changed.
public struct FolderWatch: ~Copyable, Sendable {
    private let inotify: Descriptor
    private var folders: [Int32: String] = [:]
    private var watches: [String: Int32] = [:]

    public init() throws(SystemError) { inotify = Descriptor(try check("inotify_init", nil, clinux_inotify())) }

    /// Readable when something changed.
    public var number: Int32 { inotify.number }

    /// Watches `folder`, unless it is watched already; another folder that has the name now takes its place.
    public mutating func add(_ folder: String) throws(SystemError) {
        let watch = try check("inotify_add_watch", folder, unsafe clinux_watch_folder(inotify.number, folder))
        // The same folder by another name has the same watch; the first name stays.
        if let old = watches.updateValue(watch, forKey: folder), old != watch { folders[old] = nil }
        if folders[watch] == nil { folders[watch] = folder }
    }

    public enum Change: Equatable {
        /// A file's content changed.
        case content(path: String)
        /// A name appeared, went, or changed its rights; or the folder itself went.
        case names
        /// The kernel dropped events: look at everything.
        case overflow
    }

    /// Everything that has changed since the last call.
    public mutating func changes() -> [Change] {
        var changes: [Change] = []
        var gone: [Int32] = []
        unsafe withUnsafeTemporaryAllocation(byteCount: 64 << 10, alignment: 8) { room in
            while true {
                let count = unsafe read(inotify.number, room.baseAddress, room.count)
                guard count > 0 else { return }
                var at = 0
                while at + 16 <= count {
                    let watch = unsafe room.load(fromByteOffset: at, as: Int32.self)
                    let mask = unsafe room.load(fromByteOffset: at + 4, as: UInt32.self)
                    let length = unsafe Int(room.load(fromByteOffset: at + 12, as: UInt32.self))
                    let name = unsafe String(
                        decoding: room[at + 16..<at + 16 + length].prefix { $0 != 0 },
                        as: UTF8.self
                    )
                    at += 16 + length
                    let change: Change
                    if clinux_mask_is_overflow(mask) != 0 {
                        change = .overflow
                    } else if clinux_mask_is_modify(mask) != 0, let folder = folders[watch] {
                        change = .content(path: folder == "/" ? "/" + name : folder + "/" + name)
                    } else {
                        change = .names
                        if mask & UInt32(IN_IGNORED) != 0 { gone.append(watch) }
                    }
                    if changes.last != change { changes.append(change) }
                }
            }
        }
        for watch in gone {
            if let folder = folders.removeValue(forKey: watch) { watches[folder] = nil }
        }
        return changes
    }
}
