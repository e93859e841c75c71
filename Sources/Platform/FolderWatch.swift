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

    /// Stops watching all folders but those.
    public mutating func keep(_ kept: Set<String>) {
        for (folder, watch) in watches where !kept.contains(folder) {
            watches[folder] = nil
            // Another name of a folder that is kept has the same watch.
            guard folders[watch] == folder else { continue }
            folders[watch] = nil
            if let other = watches.first(where: { $0.value == watch })?.key {
                folders[watch] = other
            } else {
                _ = clinux_unwatch(inotify.number, watch)
            }
        }
    }

    public enum Change: Equatable {
        /// A file's content changed.
        case content(path: String)
        /// A file's name appeared, went, or changed its rights.
        case name(path: String)
        /// The same of a folder in a watched one.
        case folder(path: String)
        /// A watched folder itself went, or has another name.
        case gone
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
                    } else if mask & UInt32(IN_IGNORED) != 0 {
                        gone.append(watch)
                        // A watch that was taken away says so, too.
                        guard folders[watch] != nil else { continue }
                        change = .gone
                    } else if let folder = folders[watch] {
                        let path = Folder.joined(folder, name)
                        if name.isEmpty {
                            change = .gone
                        } else if clinux_mask_is_folder(mask) != 0 {
                            change = .folder(path: path)
                        } else {
                            change = clinux_mask_is_modify(mask) != 0 ? .content(path: path) : .name(path: path)
                        }
                    } else {
                        continue
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
