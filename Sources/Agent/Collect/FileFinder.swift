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
        let hasRunBefore = checkpoints.markSeen(input.name)
        startsAtEnd = input.startAt == .end && !once && !hasRunBefore
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
        let known = Set(checkpoints.unclaimed(of: input.name).map(\.path))
        for path in paths.filter(known.contains) + paths.filter({ !known.contains($0) }) {
            if let identity = meet(path) { present.insert(identity) }
        }
        if isFirstScan { findRotatedSinceLastRun() }
        followOthers(present)
        byPath = Dictionary(files.map { ($0.file.path, $0) }, uniquingKeysWith: { first, _ in first })
        counters.collectors.filesOpen.set(files.count)
        counters.collectors.bytesBehind.set(files.reduce(0) { $0 + Int($1.file.behind) })
        // What is gone, or is tailed by now, is held no more.
        held = held.filter { present.contains($0.key) && byIdentity[$0.key] == nil }
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
        let known = checkpoints.unclaimed(of: input.name).first {
            $0.device == status.device && $0.inode == status.inode
        }
        guard let known else {
            if !isRotated, try mayBeCopyInTheMaking(file, identity, status, path) { return }
            return try begin(
                file,
                path,
                status,
                at: isFirstScan && startsAtEnd ? status.size : 0,
                isRotated: isRotated
            )
        }
        let mark = FileMark(headSize: known.headSize, headHash: known.headHash)
        var isSame = known.headSize == 0
        if !isSame { isSame = try mark.hasHead(file) }
        if isSame, status.size >= known.position {
            return try begin(file, path, status, at: known.position, isRotated: isRotated)
        }
        checkpoints.forget(known)
        counters.collectors.filesTruncated.add(1)
        let before: Logger.Metadata = [
            "path": "\(path)", "before": "\(known.path)", "size": "\(status.size)", "offset": "\(known.position)",
        ]
        if let copy = findCopy(of: mark, in: Self.folder(of: known.path), upTo: known.position),
            let rest = try? ReadableFile(copy), let size = try? rest.status()
        {
            log.notice(
                "file was truncated while no agent ran, finishing its copy",
                metadata: before.merging(["copy": "\(copy)"]) { _, new in new }
            )
            try begin(rest, copy, size, at: known.position, isRotated: true)
        } else {
            log.warning(
                isSame
                    ? "file was truncated while no agent ran, reading it from its start"
                    : known.path == path
                        ? "file has other content than before, reading it from its start"
                        : "another file has the inode of one that is gone",
                metadata: before
            )
        }
        // What only got the inode of a rotated file is nobody's that any pattern asks for.
        if !isRotated, byIdentity[identity] == nil { try begin(file, path, status, at: 0, isRotated: false) }
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
            .init(
                input: input.name,
                path: path,
                device: status.device,
                inode: status.inode,
                headSize: 0,
                headHash: "",
                position: offset
            )
        )
        let box = Box(TailedFile(source: source, file, path: path, status: status, offset: offset, now: .now))
        box.file.isRotated = isRotated
        files.append(box)
        byIdentity[box.identity] = box
        byPath[path] = box
        log.info(
            "tailing file",
            metadata: ["path": "\(path)", "offset": "\(offset)", "size": "\(status.size)", "input": "\(input.name)"]
        )
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
    private mutating func findRotatedSinceLastRun() {
        for entry in checkpoints.unclaimed(of: input.name) {
            let folder = Self.folder(of: entry.path)
            // A folder that cannot be listed says nothing about the file.
            guard let entries = try? Folder.entries(of: folder) else { continue }
            let name = entries.first { candidate in
                candidate.inode == entry.inode
                    && (try? FileStatus(of: folder + "/" + candidate.name))?.device == entry.device
            }
            guard let name else {
                log.info(
                    "file is gone since the last run",
                    metadata: ["path": "\(entry.path)", "offset": "\(entry.position)"]
                )
                checkpoints.forget(entry)
                continue
            }
            do {
                // An inode is given again: only the same head makes it the same file. Of an empty file nothing but the
                // name is known, which rotation adds to.
                let path = folder + "/" + name.name
                let isSame =
                    try entry.headSize > 0
                    ? FileMark(headSize: entry.headSize, headHash: entry.headHash).hasHead(ReadableFile(path))
                    : path.hasPrefix(entry.path)
                if isSame { try open(path, isRotated: true) } else { checkpoints.forget(entry) }
            } catch { tell(entry.path, error.reason) }
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
        if let copy = findCopy(of: box.file.mark, in: Self.folder(of: path), upTo: offset),
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
                .init(
                    input: input.name,
                    path: path,
                    device: old.device,
                    inode: old.inode,
                    headSize: 0,
                    headHash: "",
                    position: 0
                )
            )
        )
        checkpoints.close(source)
        do { try box.file.describe(in: checkpoints) } catch { tell(path, "\(error)") }
    }

    /// A file in `folder` that holds what `mark` was read from, up to `offset` at least, and is not tailed.
    private func findCopy(of mark: FileMark, in folder: String, upTo offset: UInt64) -> String? {
        for entry in ((try? Folder.entries(of: folder)) ?? []).sorted(by: { $0.name < $1.name }) {
            let path = folder == "/" ? "/" + entry.name : folder + "/" + entry.name
            guard let status = try? FileStatus(of: path), status.kind == .regular, status.size >= offset,
                byIdentity[Identity(device: status.device, inode: status.inode)] == nil,
                let file = try? ReadableFile(path), (try? mark.fits(file, upTo: offset)) == true
            else { continue }
            return path
        }
        return nil
    }
}
