import Platform

/// The inodes of folders, listed once.
struct FolderListings {
    private var folders: [String: [UInt64: String]] = [:]

    mutating func path(of inode: UInt64, in folder: String) -> String? {
        if folders[folder] == nil {
            let entries = (try? Folder.entries(of: folder)) ?? []
            folders[folder] = Dictionary(
                entries.map { ($0.inode, $0.name) },
                uniquingKeysWith: { first, _ in first }
            )
        }
        return folders[folder]?[inode].map { Folder.joined(folder, $0) }
    }
}
