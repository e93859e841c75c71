import Bytes
import Logging
import Platform

// Concurrency: belongs to its collector's thread.

/// Finds an input's files.
///
/// Folders are watched by inotify, and a name that changes is looked at alone; a search of everything reconciles what
/// inotify missed, a slice at a time.
struct FileFinder: ~Copyable {
    private let input: Configuration.Input
    private let paths: PathPatterns
    private let checkpoints: Checkpoints
    private let log: Logger

    /// What was found.
    var files: TailedFiles

    private var folders: WatchedFolders
    /// Searches of folders that have just appeared, or are polled.
    private var walks: [Glob.Walk] = []
    private var scan: Scan?
    private var isScanWanted = false
    private var nextScan = Instant.now
    private var lastScan: Duration = .zero
    private var nextPoll = Instant.now
    private var nextWaiting = Instant.now
    private var lastChanges = Instant.now
    private var isFirstScan = true

    /// A search of everything, as far as it has come.
    private struct Scan {
        var walks: [Glob.Walk]
        /// Files found by the pattern that is being searched.
        var found = 0
        /// Files to look at behind all others.
        var later: [String] = []
        var folders: Set<String> = []
        var links: Set<String> = []
        var spent: Duration = .zero
    }

    /// How often to look at everything, with inotify and without.
    private static let pollWatched: Duration = .seconds(5)
    private static let pollUnwatched: Duration = .seconds(1)
    /// A search of everything may take a 200th of the time at most, one that is wanted a tenth.
    private static let scanShare = 200
    private static let mostFirstScan: Duration = .milliseconds(500)
    private static let wantedShare = 10

    init(
        _ input: Configuration.Input,
        once: Bool,
        watches: Bool,
        checkpoints: Checkpoints,
        counters: Counters,
        log: Logger
    ) {
        (self.input, self.checkpoints, self.log) = (input, checkpoints, log)
        paths = PathPatterns(input)
        files = TailedFiles(input, paths, once: once, checkpoints: checkpoints, counters: counters, log: log)
        folders = WatchedFolders(watches: watches, log)
    }

    /// Readable when something changed in a folder; negative where there is no inotify.
    var watchNumber: Int32 { folders.number }

    // MARK: when to look

    /// There is more to do at once.
    var isBusy: Bool { scan != nil || !walks.isEmpty || !files.packed.files.isEmpty || Instant.now >= nextLook }

    /// When `work` has something to do, if nothing changes before.
    var nextLook: Instant {
        var next = isScanWanted ? wantedScan : nextScan
        if files.hasWaiting { next = min(next, nextWaiting) }
        if !folders.polled.isEmpty { next = min(next, nextPoll) }
        return next
    }

    private var wantedScan: Instant { min(nextScan, lastScanEnd + lastScan * Self.wantedShare) }
    private var lastScanEnd: Instant { nextScan - pause }
    private var pause: Duration {
        max(folders.isWatching ? Self.pollWatched : Self.pollUnwatched, lastScan * Self.scanShare)
    }

    /// Takes note of what has changed and searches for files, until `deadline` if there is so much to do.
    mutating func work(until deadline: Instant) {
        let began = Instant.now
        // Before all files that were there are known, no other is new.
        if !isFirstScan, files.ready.isEmpty || began - lastChanges > .milliseconds(10) {
            lastChanges = began
            takeChanges()
        }
        // Before what may have to wait for the descriptors that are let go of here.
        if !isFirstScan, files.hasWaiting, began >= nextWaiting {
            for (identity, path) in files.lookAtWaiting() where meet(path, mayBeLink: true) != identity {
                files.letGo(identity)
            }
            nextWaiting = began + waitingPeriod
        }
        while let walk = walks.last {
            walks.removeLast()
            guard goOn(walk, until: deadline) else { return }
        }
        if scan == nil, began >= (isScanWanted ? wantedScan : nextScan) { beginScan() }
        if scan != nil {
            let isFinished = goOnScanning(until: deadline)
            scan?.spent += Instant.now - began
            if isFinished { endScan() }
        }
        guard !isFirstScan else { return }
        if !folders.polled.isEmpty, began >= nextPoll {
            for folder in folders.polled { walks += paths.walks(in: folder) }
            nextPoll = began + max(.seconds(1), lastScan * Self.scanShare)
        }
    }

    /// How often to look at the files that wait: a record that is due must not wait much longer.
    private var waitingPeriod: Duration {
        input.multilineStart.isEmpty
            ? .seconds(1) : min(.seconds(1), max(.milliseconds(50), input.multilineTimeout / 4))
    }

    // MARK: changes

    private mutating func takeChanges() {
        var names: [String] = []
        var lost: [TailedFile] = []
        for change in folders.changes() {
            switch change {
            case .content(let path):
                if let file = files.open(at: path) { files.ready.add(file) } else { names.append(path) }
            case .name(let path): names.append(path)
            case .folder(let path): walks += paths.walks(in: path)
            case .gone, .overflow: isScanWanted = true
            }
        }
        var seen: Set<String> = []
        for path in names where seen.insert(path).inserted { look(at: path, &lost) }
        var listings = FolderListings()
        for file in lost { files.follow(file, &listings) }
    }

    /// Looks at one name in a watched folder, because something happened to it.
    private mutating func look(at path: String, _ lost: inout [TailedFile]) {
        let old = files.open(at: path)
        let file = files.met(path, try? FileStatus(of: path))
        if let old, old !== file { lost.append(old) }
        if file == nil, paths.fit(path) { _ = meet(path, mayBeLink: true) }
        for link in folders.links(through: path) { _ = meet(link, mayBeLink: true) }
    }

    // MARK: searching

    private mutating func beginScan() {
        files.beginSearch()
        isScanWanted = false
        scan = Scan(walks: paths.walks())
    }

    /// Goes on with the search of everything; true at its end.
    private mutating func goOnScanning(until deadline: Instant) -> Bool {
        // Files of the last run first: one of the others may be the copy that finishes one of them.
        let defers = isFirstScan && checkpoints.hasUnclaimed(of: input.name)
        while let walk = scan!.walks.last {
            scan!.walks.removeLast()
            guard goOn(walk, until: deadline, scanning: true, defers: defers) else { return false }
            if isFirstScan, scan!.found == 0 {
                let pattern = paths.patterns[paths.patterns.count - 1 - scan!.walks.count].pattern
                log.warning(
                    "no file matches the pattern yet",
                    metadata: ["input": "\(input.name)", "pattern": "\(pattern)"]
                )
            }
            scan!.found = 0
        }
        while let path = scan!.later.popLast() {
            guard files.mayOpen else {
                scan!.later.append(path)
                return false
            }
            _ = meet(path, mayBeLink: true)
            if .now > deadline { return scan!.later.isEmpty }
        }
        return true
    }

    /// Goes on with a search of the file system; false if it has to wait, for which it is kept.
    private mutating func goOn(
        _ walk: Glob.Walk,
        until deadline: Instant,
        scanning: Bool = false,
        defers: Bool = false
    ) -> Bool {
        var (walk, steps) = (walk, 0)
        while true {
            steps += 1
            if !files.mayOpen || steps % 16 == 0 && .now > deadline {
                if scanning { scan!.walks.append(walk) } else { walks.append(walk) }
                return false
            }
            guard let found = walk.next() else { return true }
            switch found {
            case .step: break
            case .fault(let fault): files.faults.tell(fault.path ?? "", "\(fault.reason) (folder)")
            case .folder(let folder):
                folders.add(folder)
                if scanning { scan!.folders.insert(folder) }
            case .file(let path, let mayBeLink):
                guard !paths.exclude(path) else { break }
                if scanning { scan!.found += 1 }
                if defers, !files.isKnown(path) {
                    scan!.later.append(path)
                } else {
                    _ = meet(path, mayBeLink: mayBeLink)
                }
            }
        }
    }

    private mutating func endScan() {
        files.endSearch()
        folders.keep(scan!.folders, links: scan!.links)
        // The first one opens and reads every file, which no later one does.
        lastScan = isFirstScan ? min(scan!.spent, Self.mostFirstScan) : scan!.spent
        isFirstScan = false
        scan = nil
        nextScan = .now + pause
        if files.hasMissed { isScanWanted = true }
    }

    /// Looks at one path that matches: a file that is known, or a new one.
    private mutating func meet(_ path: String, mayBeLink: Bool) -> TailedFile.Identity? {
        do {
            let targets = mayBeLink ? Folder.targets(of: path) : []
            if !targets.isEmpty {
                folders.follow(path, targets)
                scan?.links.insert(path)
            }
            let status = try FileStatus(of: path)
            switch status.kind {
            case .folder:
                files.faults.tell(path, "is a folder: match the files in it, like \(path)/*")
                return nil
            case .socket, .other:
                files.faults.tell(path, "is not a regular file, and cannot be tailed")
                return nil
            case .regular: break
            }
            try files.meet(path, status, target: targets.last)
            return TailedFile.Identity(status)
        } catch {
            // A file that went while we looked is no fault.
            if !error.isNotFound {
                files.faults.tell(path, error.reason)
            } else if path.unicodeScalars.contains("\u{fffd}") {
                files.faults.tell(path, "its name is not UTF-8: rename it")
            }
            return nil
        }
    }
}

/// Which paths an input asks for.
struct PathPatterns {
    let patterns: [Glob]
    private let excludes: [Glob]

    init(_ input: Configuration.Input) {
        patterns = input.paths.map(Glob.init)
        excludes = input.exclude.map(Glob.init)
    }

    func fit(_ path: String) -> Bool { patterns.contains { $0.matches(path) } && !exclude(path) }

    func exclude(_ path: String) -> Bool { excludes.contains { $0.matches(path) } }

    /// Searches of everything, the last first.
    func walks() -> [Glob.Walk] { patterns.reversed().map { $0.walk() } }

    /// Searches of what is in a folder, or below it.
    func walks(in folder: String) -> [Glob.Walk] { patterns.map { $0.walk(in: folder) } }
}
