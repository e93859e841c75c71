import Logging
import Platform

// Concurrency: belongs to its collector's thread.

/// The .gz files that hold the rest of what was packed before it was read to its end: finds them, and closes their
/// sources when they are read.
struct PackedFiles {
    /// Those that are being read.
    private(set) var files: [CompressedFile] = []
    /// Which were not what these sources had been, or could not be read.
    private var tried: Set<Tried> = []
    private let isWanted: Bool
    private let checkpoints: Checkpoints
    private let faults: PathFaults
    private let log: Logger

    private struct Tried: Hashable {
        var source: UInt32
        var file: TailedFile.Identity
        var modified: Int64

        init(_ source: UInt32, _ status: FileStatus) {
            (self.source, file, modified) = (source, TailedFile.Identity(status), status.modified)
        }
    }

    init(_ input: Configuration.Input, _ checkpoints: Checkpoints, _ faults: PathFaults, _ log: Logger) {
        isWanted = input.readCompressed
        (self.checkpoints, self.faults, self.log) = (checkpoints, faults, log)
    }

    /// Begins to read the rest of a file from its .gz in `folder`, if there is one that begins as it did; the newest of
    /// several.
    mutating func begin(
        _ source: UInt32,
        _ mark: FileMark,
        _ end: Checkpoints.Entry.End,
        in folder: String,
        _ offset: UInt64
    ) -> Bool {
        guard isWanted, mark.headSize > 0 else { return false }
        var candidates: [(path: String, status: FileStatus)] = []
        for entry in (try? Folder.entries(of: folder)) ?? [] where entry.name.hasSuffix(".gz") {
            let path = Folder.joined(folder, entry.name)
            guard let status = try? FileStatus(of: path), status.kind == .regular,
                !tried.contains(Tried(source, status))
            else { continue }
            candidates.append((path, status))
        }
        for (path, status) in candidates.sorted(by: { $0.status.modified > $1.status.modified }) {
            // Tried once, whatever comes of it; changed, it may be tried again.
            tried.insert(Tried(source, status))
            guard let file = CompressedFile.fits(path, mark) else { continue }
            log.notice(
                "file was packed before it was finished, reading the rest from its .gz",
                metadata: ["path": "\(path)", "offset": "\(offset)"]
            )
            files.append(CompressedFile(source: source, file, path: path, offset: offset, end: end))
            return true
        }
        return false
    }

    /// Takes what came of reading a packed file to its end; nil: all of it was read.
    mutating func ended(_ file: CompressedFile, _ fault: CompressedFile.Fault?) {
        files.removeAll { $0 === file }
        switch fault {
        case nil:
            log.info("packed file is finished", metadata: ["path": "\(file.path)", "size": "\(file.offset)"])
            return checkpoints.close(file.source, deliveredTo: file.offset)
        case .other: log.info("packed file is another one", metadata: ["path": "\(file.path)"])
        case .unreadable(let reason): faults.tell(file.path, "\(reason)")
        }
        // Another may fit; and this one, when it has changed.
        if let entry = checkpoints.entry(of: file.source) {
            let end = checkpoints.lastEnd(of: file.source)
            if begin(file.source, FileMark(entry), end, in: Folder.parent(of: file.path), file.offset) { return }
        }
        checkpoints.release(file.source, readTo: file.offset)
    }

    /// Forgets what was tried for all sources but those that are missing: nothing is sought for them any more.
    mutating func forgetTried(but missing: [UInt32]) {
        guard !tried.isEmpty else { return }
        let missing = Set(missing)
        tried = tried.filter { missing.contains($0.source) }
    }

    /// Lets go of every file: another collector may go on with them.
    func releaseAll() { for file in files { checkpoints.release(file.source, readTo: file.offset) } }
}
