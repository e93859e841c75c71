import Bytes
import Kinesis
import Logging
import Platform

// Concurrency: belongs to its collector's thread.

/// Finds an input's files, and knows which is which.
///
/// Folders are watched by inotify; a poll reconciles what inotify missed, or cannot see on a network file system. A file
/// is known by device and inode, and by its content when that is not enough; its name may change.
struct FileFinder: ~Copyable {
    private let input: Configuration.Input
    private let once: Bool
    private let checkpoints: Checkpoints
    private let counters: Counters
    private let log: Logger
    private let patterns: [Glob]
    private let excludes: [Glob]

    /// Tailed files in turn; boxed, because an array cannot hold what has one owner.
    private(set) var files: [Box] = []
    private var watch: FolderWatch?
    /// Readable when something changed in a folder; negative where there is no inotify.
    let watchNumber: Int32
    private var byIdentity: [Identity: Box] = [:]
    private var byPath: [String: Box] = [:]
    /// Paths whose fault has been told, and which.
    private var told: [String: String] = [:]
    /// New files that may be copies of tailed ones, with their size at the last change.
    private var held: [Identity: (path: String, size: UInt64, since: ContinuousClock.Instant)] = [:]
    private var isFirstScan = true
    private let startsAtEnd: Bool

    fileprivate struct Identity: Hashable {
        var device: UInt64
        var inode: UInt64
    }

    final class Box {
        var file: TailedFile
        init(_ file: consuming TailedFile) { self.file = file }
        fileprivate var identity: Identity { Identity(device: file.device, inode: file.inode) }
    }

    /// How often to look at everything, with inotify and without.
    private static let pollWatched: Duration = .seconds(5)
    private static let pollUnwatched: Duration = .seconds(1)
    /// How long a rotated file must be quiet before its last line is taken for finished: its writer may still hold it.
    static let rotatedQuiet: Duration = .seconds(5)
    /// How long a file that looks like a copy of another may stand still before it is taken for a file of its own.
    private static let copyQuiet: Duration = .seconds(10)

    init(_ input: Configuration.Input, once: Bool, checkpoints: Checkpoints, counters: Counters, log: Logger) {
        (self.input, self.once, self.checkpoints) = (input, once, checkpoints)
        (self.counters, self.log) = (counters, log)
        patterns = input.paths.map(Glob.init)
        excludes = input.exclude.map(Glob.init)
        // What is new to an input that has run before has come since: it is read from its start. And to read once from
        // the end would be to read nothing.
        startsAtEnd = input.startAt == .end && !once && !checkpoints.hasSeen(input.name)
        do {
            let folders = try FolderWatch()
            watchNumber = folders.number
            watch = consume folders
        } catch {
            watchNumber = -1
            watch = nil
            log.warning("inotify is not available, files are polled", metadata: ["reason": "\(error)"])
        }
    }

    /// How often `scan` is to be called.
    var poll: Duration { watch == nil ? Self.pollUnwatched : Self.pollWatched }

    /// Notes which files have something to read.
    ///
    /// True when a scan is needed.
    mutating func takeChanges() -> Bool {
        var needsScan = false
        for change in watch?.changes() ?? [] {
            switch change {
            case .content(let path):
                byPath[path]?.file.isReady = true
                if held.values.contains(where: { $0.path == path }) { needsScan = true }
            case .names, .overflow: needsScan = true
            }
        }
        return needsScan
    }

    // MARK: finding files

    /// Looks for new files, for those that have other names now, and for those that are gone.
    mutating func scan() {
        var found = Glob.Found()
        for pattern in patterns {
            let before = found.files.count
            pattern.search(into: &found)
            if isFirstScan, found.files.count == before {
                log.warning(
                    "no file matches the pattern yet",
                    metadata: ["input": "\(input.name)", "pattern": "\(pattern.pattern)"]
                )
            }
        }
        watchFolders(found)
        var present: Set<Identity> = []
        let paths = found.files.filter { path in !excludes.contains { $0.matches(path) } }
        // Files of the last run first: one of the others may be the copy that finishes one of them.
        let known = Set(checkpoints.unclaimed(of: input.name).map(\.entry.path))
        for path in paths.filter(known.contains) + paths.filter({ !known.contains($0) }) {
            if let identity = meet(path) { present.insert(identity) }
        }
        findRotatedSinceLastRun()
        followOthers(present)
        byPath = Dictionary(files.map { ($0.file.path, $0) }, uniquingKeysWith: { first, _ in first })
        counters.collectors.filesOpen.set(files.count)
        counters.collectors.bytesBehind.set(files.reduce(0) { $0 + Int($1.file.behind) })
        // What is gone, or is tailed by now, is held no more.
        held = held.filter { present.contains($0.key) && byIdentity[$0.key] == nil }
        // Not before every file is known: after a crash in between, those that are not would be new.
        if isFirstScan { checkpoints.markSeen(input.name) }
        isFirstScan = false
    }

    private mutating func watchFolders(_ found: Glob.Found) {
        for fault in found.faults { tell(fault.path ?? "", "\(fault.reason) (folder)") }
        for folder in Set(found.folders) {
            do { try watch?.add(folder) } catch {
                log.warning(
                    "folder cannot be watched, it is polled",
                    metadata: ["folder": "\(folder)", "reason": "\(error.reason)"]
                )
            }
        }
    }

    /// Looks at one path that matches: a file that is known, or a new one.
    private mutating func meet(_ path: String) -> Identity? {
        do {
            let status = try FileStatus(of: path)
            switch status.kind {
            case .folder:
                tell(path, "is a folder: match the files in it, like \(path)/*")
                return nil
            case .other:
                tell(path, "is not a regular file, and cannot be tailed")
                return nil
            case .regular: break
            }
            let identity = Identity(device: status.device, inode: status.inode)
            if let box = byIdentity[identity] {
                if box.file.path != path, (try? FileStatus(of: box.file.path))?.inode != status.inode {
                    log.info("file has another name", metadata: ["path": "\(path)", "before": "\(box.file.path)"])
                    box.file.rename(to: path)
                    try box.file.describe(in: checkpoints)
                }
                box.file.isRotated = false
                return identity
            }
            try open(path, isRotated: false)
            told[path] = nil
            return identity
        } catch {
            // A file that went while we looked is no fault.
            if !error.isNotFound {
                tell(path, error.reason)
            } else if path.unicodeScalars.contains("\u{fffd}") {
                tell(path, "its name is not UTF-8: rename it")
            }
            return nil
        }
    }

    private mutating func open(_ path: String, isRotated: Bool) throws(SystemError) {
        let file = try ReadableFile(path)
        let status = try file.status()
        let identity = Identity(device: status.device, inode: status.inode)
        // Rotated between the look at its name and the opening: it is tailed already.
        guard byIdentity[identity] == nil else { return }
        let known = checkpoints.unclaimed(of: input.name, device: status.device, inode: status.inode)
        for known in known where try isSame(file, status, known) {
            return try begin(file, path, status, as: known, isRotated: isRotated)
        }
        for known in known { try finishCopy(of: known, path, status) }
        if known.isEmpty {
            if !isRotated, try mayBeCopyInTheMaking(file, identity, status, path) { return }
            let isOld = isFirstScan && startsAtEnd
            return try begin(file, path, status, at: isOld ? status.size : 0, isRotated: isRotated)
        }
        // What only got the inode of a rotated file is nobody's that any pattern asks for.
        if !isRotated, byIdentity[identity] == nil { try begin(file, path, status, at: 0, isRotated: false) }
    }

    /// Whether a file is the one that an entry names: it has its head, and what stood where reading was.
    private func isSame(
        _ file: borrowing ReadableFile,
        _ status: FileStatus,
        _ known: Checkpoints.Unclaimed
    ) throws(SystemError) -> Bool {
        guard status.size >= known.offset else { return false }
        guard known.entry.headSize > 0 else { return true }
        return try FileMark(known.entry).fits(file, known.end)
    }

    /// The file of an entry was truncated, or is gone and its inode another's: what was not read of it may be in a copy.
    private mutating func finishCopy(
        of known: Checkpoints.Unclaimed,
        _ path: String,
        _ status: FileStatus
    ) throws(SystemError) {
        let entry = known.entry
        counters.collectors.filesTruncated.add(1)
        let before: Logger.Metadata = [
            "path": "\(path)", "before": "\(entry.path)", "size": "\(status.size)", "offset": "\(entry.position)",
        ]
        if let copy = findCopy(of: FileMark(entry), known.end, in: Self.folder(of: entry.path), upTo: known.offset),
            let rest = try? ReadableFile(copy), let size = try? rest.status()
        {
            log.notice(
                "file was truncated while no agent ran, finishing its copy",
                metadata: before.merging(["copy": "\(copy)"]) { _, new in new }
            )
            try begin(rest, copy, size, as: known, isRotated: true)
        } else {
            log.warning(
                entry.path == path
                    ? "file was truncated or rewritten while no agent ran, reading it from its start"
                    : "another file has the inode of one that is gone",
                metadata: before
            )
            checkpoints.close(entry.id)
        }
    }

    /// Goes on with a file of the last run, or of the last collector.
    private mutating func begin(
        _ file: consuming ReadableFile,
        _ path: String,
        _ status: FileStatus,
        as known: Checkpoints.Unclaimed,
        isRotated: Bool
    ) throws(SystemError) {
        checkpoints.claim(known.entry.id)
        if known.entry.device != status.device || known.entry.inode != status.inode {
            checkpoints.move(known.entry.id, to: path, device: status.device, inode: status.inode)
        }
        try begin(file, path, status, as: known.entry.id, at: known.offset, isRotated: isRotated)
    }

    /// Starts to tail a file.
    private mutating func begin(
        _ file: consuming ReadableFile,
        _ path: String,
        _ status: FileStatus,
        at offset: UInt64,
        isRotated: Bool
    ) throws(SystemError) {
        let source = checkpoints.open(
            .init(input: input.name, path: path, device: status.device, inode: status.inode, position: offset)
        )
        try begin(file, path, status, as: source, at: offset, isRotated: isRotated)
    }

    private mutating func begin(
        _ file: consuming ReadableFile,
        _ path: String,
        _ status: FileStatus,
        as source: UInt32,
        at offset: UInt64,
        isRotated: Bool
    ) throws(SystemError) {
        let box = Box(TailedFile(source: source, file, path: path, status: status, offset: offset, now: .now))
        box.file.isRotated = isRotated
        files.append(box)
        byIdentity[box.identity] = box
        byPath[path] = box
        log.info(
            "tailing file",
            metadata: ["path": "\(path)", "offset": "\(offset)", "size": "\(status.size)", "input": "\(input.name)"]
        )
        var sha = SHA256()
        if offset > 0 { checkpoints.passed(source, box.file.end(&sha)) }
        try box.file.describe(in: checkpoints)
    }

    /// Whether a new file may be a copy of one that is tailed in the same folder: `copytruncate` copies first, which takes
    /// its time, and truncates then.
    ///
    /// Such a file is left alone until that one was truncated, when it goes on as the copy; until it has other bytes; or
    /// until nothing has happened for a while: then it is a file like any other.
    private mutating func mayBeCopyInTheMaking(
        _ file: borrowing ReadableFile,
        _ identity: Identity,
        _ status: FileStatus,
        _ path: String
    ) throws(SystemError) -> Bool {
        guard !once, !isFirstScan else { return false }
        let folder = Self.folder(of: path)
        let head = try file.bytes(at: 0, count: FileMark.headBytes)
        var mayBe = false
        for box in files where !mayBe && !box.file.isRotated && Self.folder(of: box.file.path) == folder {
            // While it is being made, a copy is the beginning of the other file, up to its own last byte; once that one was
            // truncated, it holds what was read.
            mayBe = try box.file.begins(with: head)
            if mayBe {
                mayBe = try box.file.holds(FileMark.end(of: file, before: status.size), before: status.size)
            }
            if !mayBe, status.size >= box.file.offset, try !box.file.isUntouched() {
                mayBe = try box.file.mark.fits(file, upTo: box.file.offset)
            }
        }
        if mayBe, let before = held[identity], before.size == status.size, !head.isEmpty {
            mayBe = .now - before.since <= Self.copyQuiet
        } else if mayBe {
            held[identity] = (path, status.size, .now)
        }
        if !mayBe { held[identity] = nil }
        return mayBe
    }

    /// Files of the last run that no pattern matches now: renamed while no agent ran, or gone.
    ///
    /// An entry is kept for a while if its file is not there: its file system may not be mounted yet.
    private mutating func findRotatedSinceLastRun() {
        var listings: [String: [UInt64: String]] = [:]
        var missing: [UInt32] = []
        for known in checkpoints.unclaimed(of: input.name) {
            let entry = known.entry
            let folder = Self.folder(of: entry.path)
            if listings[folder] == nil {
                let entries = (try? Folder.entries(of: folder)) ?? []
                listings[folder] = Dictionary(
                    entries.map { ($0.inode, $0.name) },
                    uniquingKeysWith: { first, _ in first }
                )
            }
            let path = listings[folder]?[entry.inode].map { folder == "/" ? "/" + $0 : folder + "/" + $0 }
            guard let path, (try? FileStatus(of: path))?.device == entry.device else {
                if entry.missingSince == 0 {
                    log.info(
                        "file is gone since the last run",
                        metadata: ["path": "\(entry.path)", "offset": "\(entry.position)"]
                    )
                }
                missing.append(entry.id)
                continue
            }
            do {
                // An inode is given again: only the same head makes it the same file. Of an empty file nothing but the
                // name is known, which rotation adds to.
                if entry.headSize > 0 || path.hasPrefix(entry.path) {
                    try open(path, isRotated: true)
                } else {
                    missing.append(entry.id)
                }
            } catch { tell(entry.path, error.reason) }
        }
        let expired = checkpoints.missing(missing)
        if expired > 0 {
            log.notice("forgot files that have been gone for long", metadata: ["files": "\(expired)"])
        }
    }

    /// Files that no pattern matches any more: rotated, moved or deleted.
    ///
    /// They are read to their end.
    private mutating func followOthers(_ present: Set<Identity>) {
        var listings: [String: [UInt64: String]] = [:]
        for box in files {
            do {
                if try box.file.look(now: .now) { restart(box) }
            } catch { tell(box.file.path, error.reason) }
            guard !present.contains(box.identity) else { continue }
            if !box.file.isRotated {
                box.file.isRotated = true
                box.file.lastChange = .now
                counters.collectors.filesRotated.add(1)
                log.info(
                    "file was rotated, reading the rest of it",
                    metadata: ["path": "\(box.file.path)", "offset": "\(box.file.offset)", "size": "\(box.file.size)"]
                )
            }
            guard !box.file.isDeleted else { continue }
            let folder = Self.folder(of: box.file.path)
            if listings[folder] == nil {
                let entries = (try? Folder.entries(of: folder)) ?? []
                listings[folder] = Dictionary(
                    entries.map { ($0.inode, $0.name) },
                    uniquingKeysWith: { first, _ in first }
                )
            }
            if let name = listings[folder]?[box.file.inode] { box.file.rename(to: folder + "/" + name) }
            try? box.file.describe(in: checkpoints)
        }
        // Its writer may still hold it: a deleted file must be quiet for a while before it is let go.
        let finished = files.filter {
            $0.file.isDeleted && $0.file.isCaughtUp && $0.file.partial == 0
                && .now - $0.file.lastChange > Self.rotatedQuiet
        }
        for box in finished {
            log.info("deleted file is finished", metadata: ["path": "\(box.file.path)", "size": "\(box.file.size)"])
            checkpoints.close(box.file.source)
            byIdentity[box.identity] = nil
        }
        if !finished.isEmpty { files.removeAll { box in finished.contains { $0 === box } } }
    }

    private static func folder(of path: String) -> String {
        let folder = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
        return folder.isEmpty ? "/" : folder
    }

    /// Logs a path's fault, once until it changes.
    mutating func tell(_ path: String, _ fault: String) {
        guard told[path] != fault else { return }
        told[path] = fault
        counters.collectors.errors.add(1)
        log.error("file cannot be read", metadata: ["path": "\(path)", "reason": "\(fault)", "input": "\(input.name)"])
    }

    // MARK: truncation

    /// The file was truncated: what stands there now is read from its start, and what was not read yet from a copy of it,
    /// if `copytruncate` has left one.
    mutating func restart(_ box: Box) {
        counters.collectors.filesTruncated.add(1)
        let (path, offset) = (box.file.path, box.file.offset)
        let old = Identity(device: box.file.device, inode: box.file.inode)
        if let copy = findCopy(of: box.file.mark, .init(), in: Self.folder(of: path), upTo: offset),
            let file = try? ReadableFile(copy), let status = try? file.status()
        {
            // The old source goes on in the copy: positions mean the same bytes there. What was opened under its name is
            // the new one; the name itself may be another file's by now.
            let wasRotated = box.file.isRotated
            byIdentity[old] = nil
            let fresh = box.file.goOn(in: file, copy, status)
            byIdentity[box.identity] = box
            byPath[copy] = box
            checkpoints.move(box.file.source, to: copy, device: status.device, inode: status.inode)
            log.notice(
                "file was truncated, finishing its copy",
                metadata: ["path": "\(path)", "copy": "\(copy)", "offset": "\(offset)", "size": "\(status.size)"]
            )
            do {
                let freshStatus = try fresh.status()
                try begin(fresh, path, freshStatus, at: 0, isRotated: wasRotated)
            } catch { tell(path, "\(error)") }
            return
        }
        let known = max(box.file.sizeBefore, box.file.size)
        let lost = known > offset ? known - offset : 0
        counters.collectors.bytesLost.add(Int(lost))
        log.warning(
            "file was truncated, reading it from its start",
            metadata: [
                "path": "\(path)", "size": "\(box.file.size)", "offset": "\(offset)", "lost_at_least": "\(lost)",
            ]
        )
        let source = box.file.source
        box.file.restart(
            as: checkpoints.open(
                .init(input: input.name, path: path, device: old.device, inode: old.inode, position: 0)
            )
        )
        checkpoints.close(source)
        do { try box.file.describe(in: checkpoints) } catch { tell(path, "\(error)") }
    }

    /// A file in `folder` that holds what `mark` was read from, up to `offset` at least, has `end` where it was, and is not
    /// tailed.
    ///
    /// The newest of several: the others were made earlier, and hold less.
    private func findCopy(
        of mark: FileMark,
        _ end: Checkpoints.Entry.End,
        in folder: String,
        upTo offset: UInt64
    ) -> String? {
        var best: (path: String, changed: Int64)?
        for entry in (try? Folder.entries(of: folder)) ?? [] {
            let path = folder == "/" ? "/" + entry.name : folder + "/" + entry.name
            guard let status = try? FileStatus(of: path), status.kind == .regular, status.size >= offset,
                best == nil || status.modified > best!.changed,
                byIdentity[Identity(device: status.device, inode: status.inode)] == nil,
                let file = try? ReadableFile(path), (try? mark.fits(file, upTo: offset)) == true,
                (try? FileMark.holds(file, end)) == true
            else { continue }
            best = (path, status.modified)
        }
        return best?.path
    }
}
