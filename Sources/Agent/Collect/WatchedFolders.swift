import Logging
import Platform

// Concurrency: belongs to its collector's thread.

/// The folders in which an input's files appear and change, those of links' targets included.
struct WatchedFolders: ~Copyable {
    private var watch: FolderWatch?
    /// Readable when something changed; negative where there is no inotify.
    let number: Int32
    /// Where inotify does not tell everything.
    private(set) var polled: Set<String> = []
    private var known: Set<String> = []
    /// Where links lead, and which lead through a path.
    private var targets: [String: [String]] = [:]
    private var linksThrough: [String: Set<String>] = [:]
    private let log: Logger

    init(watches: Bool, _ log: Logger) {
        self.log = log
        guard watches else {
            watch = nil
            number = -1
            return
        }
        do {
            let folders = try FolderWatch()
            number = folders.number
            watch = consume folders
        } catch {
            watch = nil
            number = -1
            log.warning("inotify is not available, files are polled", metadata: ["reason": "\(error)"])
        }
    }

    var isWatching: Bool { watch != nil }

    mutating func changes() -> [FolderWatch.Change] { watch?.changes() ?? [] }

    /// Watches a folder from now on, also if another has its name now.
    mutating func add(_ folder: String) {
        let isNew = known.insert(folder).inserted
        if isNew, isWatching, Folder.isRemote(folder) { polled.insert(folder) }
        do { try watch?.add(folder) } catch {
            guard !error.isNotFound, polled.insert(folder).inserted else { return }
            log.warning(
                "folder cannot be watched, it is polled",
                metadata: ["folder": "\(folder)", "reason": "\(error.reason)"]
            )
        }
    }

    /// Watches where a link leads.
    mutating func follow(_ link: String, _ targets: [String]) {
        guard self.targets[link] != targets else { return }
        forget(link)
        self.targets[link] = targets
        for target in targets {
            linksThrough[target, default: []].insert(link)
            add(Folder.parent(of: target))
        }
    }

    /// The links that lead through `path`.
    func links(through path: String) -> Set<String> { linksThrough[path] ?? [] }

    private mutating func forget(_ link: String) {
        for target in targets.removeValue(forKey: link) ?? [] {
            linksThrough[target]?.remove(link)
            if linksThrough[target]?.isEmpty == true { linksThrough[target] = nil }
        }
    }

    /// Forgets all folders but those, and those to which these links lead.
    mutating func keep(_ folders: Set<String>, links: Set<String>) {
        for link in targets.keys where !links.contains(link) { forget(link) }
        let kept = folders.union(targets.values.joined().map(Folder.parent))
        known.formIntersection(kept)
        polled.formIntersection(kept)
        watch?.keep(kept)
    }
}
