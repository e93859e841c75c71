import Bytes
import Kinesis
import Logging
import Platform

// Concurrency: belongs to its collector's thread.

/// An input's files that are tailed, and which is which: a file is known by device and inode, and by its content when that is
/// not enough; its name may change.
struct TailedFiles: ~Copyable {
    private typealias Identity = TailedFile.Identity

    private let input: Configuration.Input
    private let paths: PathPatterns
    private let once: Bool
    private let checkpoints: Checkpoints
    private let counters: Counters
    private let log: Logger

    private var files: [TailedFile.Identity: TailedFile] = [:]
    /// Files that may have something to read.
    var ready = ReadyList()
    /// Packed files of which the rest is read.
    var packed: PackedFiles
    /// What is wrong with paths.
    let faults: PathFaults
    private var open: OpenFiles
    private var copies: Copies
    /// Files to look at again in a while: deleted, nowhere, or rotated with an unfinished line.
    private var waiting: [TailedFile] = []
    /// The number of the search that goes on, or was the last.
    private var search: UInt32 = 0
    /// A file of the last run got another name while it was looked for.
    private(set) var hasMissed = false
    /// Until every file is known that was there before.
    private var isFirstSearch = true
    private let startsAtEnd: Bool
    /// What of the common counters is ours.
    private var counted = (files: 0, behind: 0)

    /// How long a rotated file must be quiet before its last line is taken for finished: its writer may still hold it.
    static let rotatedQuiet: Duration = .seconds(5)
    /// How long one must be quiet that was moved to where no pattern looks, before another gets its descriptor if all are taken.
    private static let movedQuiet: Duration = .seconds(600)

    init(
        _ input: Configuration.Input,
        _ paths: PathPatterns,
        once: Bool,
        checkpoints: Checkpoints,
        counters: Counters,
        log: Logger
    ) {
        (self.input, self.paths, self.once, self.checkpoints) = (input, paths, once, checkpoints)
        (self.counters, self.log) = (counters, log)
        faults = PathFaults(input.name, counters, log)
        copies = Copies(checkpoints, faults)
        packed = PackedFiles(input, checkpoints, faults, log)
        open = OpenFiles(most: input.maxOpenFiles, sharers: input.sharers)
        // What is new to an input that has run before has come since: it is read from its start. And to read once from
        // the end would be to read nothing.
        startsAtEnd = input.startAt == .end && !once && !checkpoints.hasSeen(input.name)
    }

    /// There are files to look at again in a while, which no event tells of.
    var hasWaiting: Bool { !waiting.isEmpty || copies.holdsAny }

    /// The open file whose content lies at `path`.
    func open(at path: String) -> TailedFile? { open.file(at: path) }

    /// Whether another file may be opened, or nothing would come of waiting until it may.
    var mayOpen: Bool {
        mutating get {
            let hasRoom = open.hasRoom()
            return hasRoom || ready.isEmpty
        }
    }

    /// Lets go of every file: another collector may go on with them.
    mutating func releaseAll() {
        for file in files.values {
            if file.isOpen, file.isDeleted || !file.hasName, file.behind > 0 { lose(file) }
            checkpoints.release(file.source, readTo: file.offset)
        }
        packed.releaseAll()
        count(files: 0, behind: 0)
    }

    /// Nobody finds a file again that has no name, or one elsewhere, once it is closed.
    private func lose(_ file: TailedFile) {
        countLost(file.behind)
        log.warning(
            "a file was deleted, or moved to where no pattern looks, and its rest is not read",
            metadata: ["path": "\(file.path)", "offset": "\(file.offset)", "lost": "\(file.behind)"]
        )
    }

    /// Files whose last line may have to do without its end.
    func unfinished(all: Bool) -> [TailedFile] { all ? files.values.filter { $0.partial > 0 } : waiting }

    /// Counts what is to be read, by the last look at each file, and tells of those with most; others come last.
    mutating func furthestBehind() -> [FileLag] {
        countAll()
        let name = input.name
        return FileLag.furthest(
            files.values.lazy.map {
                FileLag(input: name, path: $0.path, source: $0.source, size: $0.size, read: $0.offset)
            }
        )
    }

    // MARK: searching

    mutating func beginSearch() {
        search &+= 1
        faults.beginScan()
    }

    /// Follows the files that a search of everything has not met, and looks for those of the last run.
    mutating func endSearch() {
        var listings = FolderListings()
        for file in Array(files.values) where file.scan != search { follow(file, &listings) }
        findMissing(&listings)
        countAll()
        faults.endScan()
        copies.endScan(files)
        // Not before every file is known: after a crash in between, those that are not would be new.
        if isFirstSearch { checkpoints.markSeen(input.name) }
        isFirstSearch = false
    }

    /// Whether something of it is known but its inode.
    func isKnown(_ path: String) -> Bool {
        guard let status = try? FileStatus(of: path) else { return true }
        let known = checkpoints.unclaimed(of: input.name, device: status.device, inode: status.inode)
        return known.contains { $0.entry.headSize > 0 } || !ofOtherDevice(status).isEmpty
    }

    /// The entries that a file may have from before its file system got another device number.
    ///
    /// Those of LVM, btrfs and ZFS are given out anew at each mount, and those of disks at each start, in the order in which they
    /// are found. Of entries of which nothing but the inode is known none is.
    private func ofOtherDevice(_ status: FileStatus) -> [Checkpoints.Unclaimed] {
        checkpoints.unclaimed(of: input.name, inode: status.inode, notOn: status.device).filter { known in
            // A copy of a whole disk has the same files: while the other one is there they are its own.
            known.entry.headSize > 0 && (try? FileStatus(of: known.entry.path))?.device != known.entry.device
        }
    }

    /// Looks at a file that a pattern asks for: one that is known, or a new one.
    mutating func meet(_ path: String, _ status: FileStatus, target: String?) throws(SystemError) {
        if let file = files[Identity(status)] {
            (file.scan, file.hasName) = (search, true)
            if file.look(status) { ready.add(file) }
            // Met empty, it may be truncated before anything is read: while the ring is full.
            if file.isOpen, file.mark.headSize == 0, file.size > 0 { describe(file) }
            if file.path != path { renamed(file, to: path) }
        } else {
            try open(path, target: target, isRotated: false)
            faults.forget(path)
        }
    }

    /// Looks at a file because something happened to its name; nil if it is not tailed.
    mutating func met(_ path: String, _ status: FileStatus?) -> TailedFile? {
        guard let status, status.kind == .regular, let file = files[Identity(status)] else { return nil }
        _ = file.look(status)
        ready.add(file)
        (file.scan, file.hasName) = (search, true)
        if file.place != path { renamed(file, to: path) }
        return file
    }

    /// A file has been met under another name: its own may be gone.
    private mutating func renamed(_ file: TailedFile, to path: String) {
        if let named = try? FileStatus(of: file.path), Identity(named) == file.identity { return }
        log.info("file has another name", metadata: ["path": "\(path)", "before": "\(file.path)"])
        open.rename(file, to: path, target: Folder.targets(of: path).last)
        file.hasName = true
        if !paths.fit(path) { rotated(file) } else { file.isRotated = false }
        describe(file)
    }

    private mutating func rotated(_ file: TailedFile) {
        if file.partial > 0 { wait(for: file) }
        guard !file.isRotated else { return }
        file.isRotated = true
        file.changed()
        counters.collectors.filesRotated.add(1)
        log.info(
            "file was rotated, reading the rest of it",
            metadata: ["path": "\(file.path)", "offset": "\(file.offset)", "size": "\(file.size)"]
        )
    }

    private mutating func wait(for file: TailedFile) {
        guard !file.isWaiting else { return }
        file.isWaiting = true
        waiting.append(file)
    }

    private mutating func describe(_ file: TailedFile) {
        // What cannot be read is told when it is to be read.
        try? file.describe(in: checkpoints)
        copies.noteOpening(of: file)
    }

    /// A file is not where it was, or is not looked for there any more.
    mutating func follow(_ file: TailedFile, _ listings: inout FolderListings) {
        guard files[file.identity] === file else { return }
        do {
            if try file.look() { ready.add(file) }
        } catch { faults.tell(file.path, error.reason) }
        if file.isDeleted {
            rotated(file)
            return wait(for: file)
        }
        if let named = try? FileStatus(of: file.path), Identity(named) == file.identity {
            file.hasName = true
            if file.look(named) { ready.add(file) }
            if !paths.fit(file.path) { rotated(file) }
        } else if let path = listings.path(of: file.inode, in: file.folder), let named = try? FileStatus(of: path),
            Identity(named) == file.identity
        {
            renamed(file, to: path)
        } else if file.isOpen {
            file.hasName = false
            rotated(file)
            wait(for: file)
        } else {
            leave(file)
        }
    }

    /// A file that was read to its end is gone.
    private mutating func leave(_ file: TailedFile) {
        log.info("file is gone", metadata: ["path": "\(file.path)", "offset": "\(file.offset)"])
        files[file.identity] = nil
        countLost(file.behind)
        checkpoints.release(file.source, readTo: file.offset)
        _ = checkpoints.missing([file.source])
    }

    private func countLost(_ bytes: UInt64) { counters.collectors.bytesLost.add(Self.counted(bytes)) }

    /// For counters: a file may claim to have 8 EiB, of which two are more than fits.
    private static func counted(_ bytes: UInt64) -> Int { Int(min(bytes, 1 << 44)) }

    /// Looks at files that no event tells of, and lets go of those that are finished.
    ///
    /// - Returns: files that were left alone as copies in the making, and are none.
    mutating func lookAtWaiting() -> [(identity: TailedFile.Identity, path: String)] {
        let all = waiting
        waiting = []
        for file in all {
            file.isWaiting = false
            guard files[file.identity] === file else { continue }
            do {
                if try file.look() || !file.isOpen && file.behind > 0 { ready.add(file) }
            } catch { faults.tell(file.path, error.reason) }
            // Its writer may still hold it: a deleted file must be quiet for a while before it is let go.
            if file.isDeleted, file.isCaughtUp, file.partial == 0, file.isQuiet(for: Self.rotatedQuiet) {
                log.info(
                    "deleted file is finished",
                    metadata: ["path": "\(file.path)", "size": "\(file.size)"]
                )
                checkpoints.close(file.source)
                files[file.identity] = nil
                open.remove(file)
                count(files: files.count, behind: counted.behind)
            } else if !file.hasName, open.isFull, file.isCaughtUp, file.partial == 0, !file.hasPendingLines,
                file.isQuiet(for: Self.movedQuiet)
            {
                open.remove(file)
                leave(file)
                count(files: files.count, behind: counted.behind)
            } else if file.isDeleted || !file.hasName || file.isRotated && file.partial > 0 || file.hasPendingLines {
                wait(for: file)
            }
        }
        return copies.quiet
    }

    /// A file that was left alone is not there any more.
    mutating func letGo(_ identity: TailedFile.Identity) { copies.letGo(identity) }

    private mutating func countAll() {
        count(files: files.count, behind: files.values.reduce(0) { $0 + Self.counted($1.behind) })
    }

    private mutating func count(files: Int, behind: Int) {
        counters.collectors.filesOpen.add(files - counted.files)
        counters.collectors.bytesBehind.add(behind - counted.behind)
        counted = (files, behind)
    }

    // MARK: which is which

    private mutating func open(_ path: String, target: String?, isRotated: Bool) throws(SystemError) {
        let file = try ReadableFile(path)
        let status = try file.status()
        // Rotated between the look at its name and the opening: it is tailed already.
        guard files[Identity(status)] == nil else { return }
        let known = checkpoints.unclaimed(of: input.name, device: status.device, inode: status.inode)
        let isOld = isFirstSearch && startsAtEnd
        // An input that starts at the ends of its files takes each as it finds it.
        let looksForCopies = !once && !isOld
        var same: [Checkpoints.Unclaimed] = []
        for known in known where try isSame(file, status, known) { same.append(known) }
        if same.isEmpty {
            for known in ofOtherDevice(status) where try isSame(file, status, known) { same.append(known) }
        }
        if let furthest = same.max(by: { $0.offset < $1.offset }) {
            // Of one that was empty nothing is known: its inode may be a copy's by now, whatever the patterns say of that.
            let isUnknown = furthest.entry.headSize == 0
            if looksForCopies, isUnknown, try copies.mayBeInTheMaking(file, status, path, beside: files) { return }
            // A copy that was finished has the entry of the file that it is of, and may have had one before.
            for known in same where known.entry.id != furthest.entry.id { checkpoints.close(known.entry.id) }
            try begin(file, path, target: target, status, as: furthest, isRotated: isRotated)
            // Others had its inode before, and may have been packed since: `findMissing` looks for those that were not.
            for other in known where !same.contains(where: { $0.entry.id == other.entry.id }) {
                _ = finishPacked(other)
            }
            return
        }
        for known in known { try finishCopy(of: known, target ?? path, status) }
        // What only has the inode of a rotated file, or got its name since we looked, is nobody's that a pattern asks for.
        guard !isRotated, files[Identity(status)] == nil else { return }
        if looksForCopies, try copies.mayBeInTheMaking(file, status, path, beside: files) { return }
        try begin(file, path, target: target, status, at: known.isEmpty && isOld ? status.size : 0, isRotated: false)
    }

    /// Whether a file is the one that an entry names: it has its head, and what stood where reading was.
    private func isSame(
        _ file: borrowing ReadableFile,
        _ status: FileStatus,
        _ known: Checkpoints.Unclaimed
    ) throws(SystemError) -> Bool {
        guard status.size >= known.offset else { return false }
        guard known.entry.headSize > 0 else { return try FileMark.holds(file, known.end) }
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
        let folder = Folder.parent(of: entry.path)
        if let copy = Copies.find(of: FileMark(entry), known.end, in: folder, upTo: known.offset, notIn: files),
            let rest = try? ReadableFile(copy), let size = try? rest.status()
        {
            log.notice(
                "file was truncated while no agent ran, finishing its copy",
                metadata: before.merging(["copy": "\(copy)"]) { _, new in new }
            )
            try begin(rest, copy, target: nil, size, as: known, isRotated: true)
        } else if !finishPacked(known) {
            log.warning(
                entry.path != path
                    ? "another file has the inode of one that is gone"
                    : status.size < known.offset
                        ? "file was truncated while no agent ran, reading it from its start"
                        : "file has other content than before, reading it from its start",
                metadata: before
            )
            checkpoints.close(entry.id)
        }
    }

    /// The file of an entry is gone: what was not read of it may be in its .gz.
    ///
    /// - Returns: whether there is one.
    private mutating func finishPacked(_ known: Checkpoints.Unclaimed) -> Bool {
        let (entry, folder) = (known.entry, Folder.parent(of: known.entry.path))
        guard packed.begin(entry.id, FileMark(entry), known.end, in: folder, known.offset) else { return false }
        checkpoints.claim(entry.id)
        return true
    }

    /// Goes on with a file of the last run, or of the last collector.
    private mutating func begin(
        _ file: consuming ReadableFile,
        _ path: String,
        target: String?,
        _ status: FileStatus,
        as known: Checkpoints.Unclaimed,
        isRotated: Bool
    ) throws(SystemError) {
        checkpoints.claim(known.entry.id)
        if known.entry.device != status.device || known.entry.inode != status.inode {
            checkpoints.move(known.entry.id, to: path, device: status.device, inode: status.inode)
        }
        // The entry's own text of it, where it is the same.
        let path = known.entry.path == path ? known.entry.path : path
        let file = TailedFile(
            source: known.entry.id,
            file,
            path: path,
            status: status,
            offset: known.offset,
            mark: FileMark(known.entry)
        )
        file.findSkipped(input.onOversize, longest: input.maxRecord)
        try begin(file, target: target, isRotated: isRotated)
    }

    /// Begins to tail a file.
    private mutating func begin(
        _ file: consuming ReadableFile,
        _ path: String,
        target: String?,
        _ status: FileStatus,
        at offset: UInt64,
        isRotated: Bool
    ) throws(SystemError) {
        let source = checkpoints.open(entry(of: path, status, at: offset))
        let file = TailedFile(source: source, file, path: path, status: status, offset: offset)
        try begin(file, target: target, isRotated: isRotated)
    }

    private func entry(of path: String, _ status: FileStatus, at offset: UInt64) -> Checkpoints.Entry {
        .init(input: input.name, path: path, device: status.device, inode: status.inode, position: offset)
    }

    private mutating func begin(_ file: TailedFile, target: String?, isRotated: Bool) throws(SystemError) {
        file.target = target
        file.isRotated = isRotated
        file.scan = search
        files[file.identity] = file
        open.add(file)
        ready.add(file)
        copies.letGo(file.identity)
        log.info(
            "tailing file",
            metadata: [
                "path": "\(file.path)", "offset": "\(file.offset)", "size": "\(file.size)", "input": "\(input.name)",
            ]
        )
        var sha = SHA256()
        // What is known was compared with the file; since then it may have been truncated.
        if file.offset > 0, checkpoints.lastEnd(of: file.source).size == 0 {
            checkpoints.passed(file.source, file.end(&sha))
        }
        try file.describe(in: checkpoints)
        copies.noteOpening(of: file)
        count(files: files.count, behind: counted.behind)
    }

    /// Files of the last run that no pattern matches now: renamed while no agent ran, or gone.
    ///
    /// An entry is kept for a while if its file is not there: its file system may not be mounted yet.
    private mutating func findMissing(_ listings: inout FolderListings) {
        var missing: [UInt32] = []
        hasMissed = false
        for known in checkpoints.unclaimed(of: input.name) {
            let entry = known.entry
            // Found meanwhile: it had its inode after another, or before.
            guard checkpoints.isUnclaimed(entry.id) else { continue }
            // The configuration asks for it no more. What version 1 wrote has but its last name.
            guard paths.fit(entry.name) || entry.position > 0 && entry.end.size == 0 else {
                missing.append(entry.id)
                continue
            }
            let path = listings.path(of: entry.inode, in: Folder.parent(of: entry.path))
            let status = path.flatMap { try? FileStatus(of: $0) }
            if let status, status.device == entry.device, status.inode != entry.inode {
                hasMissed = true
                continue
            }
            // Its inode may be another's by now, who has an entry of its own.
            let isTaken = status.map { files[Identity($0)] != nil } ?? false
            // Of an empty file nothing but the name is known, which rotation adds to.
            if let path, let status, !isTaken, status.inode == entry.inode,
                entry.headSize > 0 || status.device == entry.device && path.hasPrefix(entry.path)
            {
                // An inode is given again: only the same content makes it the same file.
                do { try open(path, target: nil, isRotated: !paths.fit(path)) } catch {
                    faults.tell(entry.path, error.reason)
                }
                guard checkpoints.isUnclaimed(entry.id) else { continue }
                // Else it is another's, who had it after this one.
                if status.device == entry.device, files[Identity(status)] == nil { continue }
            }
            if finishPacked(known) { continue }
            if entry.missingSince == 0 {
                log.info(
                    "file is gone since the last run",
                    metadata: ["path": "\(entry.path)", "offset": "\(entry.position)"]
                )
            }
            missing.append(entry.id)
        }
        packed.forgetTried(but: missing)
        let expired = checkpoints.missing(missing)
        if expired > 0 {
            log.notice("forgot files that have been gone for long", metadata: ["files": "\(expired)"])
        }
    }

    // MARK: reading

    /// Makes a file ready for its turn; false if it cannot have it.
    mutating func prepare(_ file: TailedFile) -> Bool {
        guard files[file.identity] === file else { return false }
        open.used(file)
        do {
            if !file.isOpen {
                guard open.hasRoom() || Machine.descriptorLimit > open.count + 64 else {
                    wait(for: file)
                    return false
                }
                guard try reopen(file) else { return false }
            }
            if try !file.isUntouched() {
                _ = try file.look()
                restart(file)
            }
            return true
        } catch {
            if error.isNotFound, !file.isOpen {
                var listings = FolderListings()
                follow(file, &listings)
            } else {
                faults.tell(file.path, "\(error)")
            }
            return false
        }
    }

    /// Opens a file that was closed; false if it is not there any more.
    private mutating func reopen(_ file: TailedFile) throws(SystemError) -> Bool {
        switch try file.open(checkpoints.lastEnd(of: file.source)) {
        case .same: open.add(file)
        case .rewritten:
            open.add(file)
            _ = try file.look()
            restart(file)
        case .other:
            var listings = FolderListings()
            follow(file, &listings)
            return false
        }
        return true
    }

    /// Notes how far a file is read, before anybody can settle what was read.
    mutating func noteRead(_ file: TailedFile, _ sha: inout SHA256) {
        checkpoints.passed(file.source, file.end(&sha))
        if file.hasGrownPastMark { describe(file) }
    }

    /// Looks at a file that was read to its end; true if there is more.
    mutating func lookAgain(_ file: TailedFile) throws(SystemError) -> Bool {
        _ = try file.look()
        if try file.isTruncated() {
            restart(file)
            ready.add(file)
        }
        try file.describe(in: checkpoints)
        copies.noteOpening(of: file)
        if file.isDeleted || file.isRotated && file.partial > 0 || file.hasPendingLines { wait(for: file) }
        return !file.isCaughtUp
    }

    // MARK: truncation

    /// The file was truncated: what stands there now is read from its start, and what was not read yet from a copy of it,
    /// if `copytruncate` has left one.
    private mutating func restart(_ file: TailedFile) {
        counters.collectors.filesTruncated.add(1)
        let (path, target, offset, identity) = (file.path, file.target, file.offset, file.identity)
        let end = checkpoints.lastEnd(of: file.source)
        if let copy = Copies.find(of: file.mark, end, in: file.folder, upTo: offset, notIn: files),
            let rest = try? ReadableFile(copy), let status = try? rest.status()
        {
            // The old source goes on in the copy: positions mean the same bytes there. What was opened under its name is
            // the new one; the name itself may be another file's by now.
            let wasRotated = file.isRotated
            open.remove(file)
            files[identity] = nil
            let truncated = file.goOn(in: rest, copy, status)
            files[file.identity] = file
            open.add(file)
            ready.add(file)
            checkpoints.move(file.source, to: copy, device: status.device, inode: status.inode)
            log.notice(
                "file was truncated, finishing its copy",
                metadata: ["path": "\(path)", "copy": "\(copy)", "offset": "\(offset)", "size": "\(status.size)"]
            )
            do {
                let now = try truncated.status()
                let source = checkpoints.open(entry(of: path, now, at: 0))
                let fresh = TailedFile(source: source, truncated, path: path, status: now)
                try begin(fresh, target: target, isRotated: wasRotated)
            } catch { faults.tell(path, "\(error)") }
            return
        }
        let isInflated = packed.begin(file.source, file.mark, end, in: file.folder, offset)
        let lost = isInflated ? 0 : file.truncated
        countLost(lost)
        log.warning(
            "file was truncated, reading it from its start",
            metadata: [
                "path": "\(path)", "size": "\(file.size)", "offset": "\(offset)", "lost_at_least": "\(lost)",
            ]
        )
        let source = file.source
        defer { if !isInflated { checkpoints.close(source) } }
        file.restart(
            as: checkpoints.open(
                .init(input: input.name, path: path, device: identity.device, inode: identity.inode, position: 0)
            )
        )
        describe(file)
    }
}
