import Bytes
import Platform

// Concurrency: belongs to its collector's thread.

/// The copies that `copytruncate` makes of tailed files: those that may be in the making, which are left alone, and those
/// in which a truncated file goes on.
struct Copies {
    typealias Files = [TailedFile.Identity: TailedFile]

    private let checkpoints: Checkpoints
    private let faults: PathFaults
    /// How the tailed files begin.
    private var openings = Openings()
    /// New files that may be copies of tailed ones, with their size at the last change.
    private var held: [TailedFile.Identity: (path: String, size: UInt64, since: Instant)] = [:]

    /// How long a file that looks like a copy of another may stand still before it is taken for a file of its own.
    private static let copyQuiet: Duration = .seconds(10)
    /// Files in a folder whose content is compared with a new one's, however little they have in common.
    private static let fewFiles = 1000

    init(_ checkpoints: Checkpoints, _ faults: PathFaults) {
        (self.checkpoints, self.faults) = (checkpoints, faults)
    }

    /// Notes how a tailed file begins.
    mutating func noteOpening(of file: TailedFile) { openings.insert(file) }

    // MARK: in the making

    /// There are new files that may be copies.
    var holdsAny: Bool { !held.isEmpty }

    /// Those of them that have stood still for so long that they are none.
    var quiet: [(identity: TailedFile.Identity, path: String)] {
        held.filter { .now - $0.value.since > Self.copyQuiet }.map { ($0.key, $0.value.path) }
    }

    /// A file is tailed now, or is not there any more.
    mutating func letGo(_ identity: TailedFile.Identity) { held[identity] = nil }

    /// Forgets, after a search of everything, what is gone or is tailed by now.
    mutating func endScan(_ files: Files) {
        held = held.filter { identity, copy in
            files[identity] == nil && (try? FileStatus(of: copy.path)).map(TailedFile.Identity.init) == identity
        }
        openings = Openings(files.values)
    }

    /// Whether a new file may be a copy of one that is tailed in the same folder: `copytruncate` copies first, which takes
    /// its time, and truncates then.
    ///
    /// Such a file is left alone until that one was truncated, when it goes on as the copy; until it has other bytes; or
    /// until nothing has happened for a while: then it is a file like any other.
    mutating func mayBeInTheMaking(
        _ file: borrowing ReadableFile,
        _ status: FileStatus,
        _ path: String,
        beside files: Files
    ) throws(SystemError) -> Bool {
        let identity = TailedFile.Identity(status)
        let head = try file.bytes(at: 0, count: FileMark.headBytes)
        // What is empty may become one, and there is nothing to read yet.
        var mayBe = head.isEmpty && !files.isEmpty
        for other in mayBe ? [] : neighbours(of: path, head, in: files) where !mayBe {
            do {
                // While it is being made, a copy is the beginning of the other file, up to its own last byte; once that
                // one was truncated, it holds what was read.
                mayBe = try other.begins(with: head)
                if mayBe {
                    mayBe = try other.holds(FileMark.end(of: file, before: status.size), before: status.size)
                }
                // Its size after that, which is the copy's whole: it may have grown since it was looked at.
                if !mayBe, try !other.isUntouched(), try file.status().size >= other.offset {
                    mayBe = try other.mark.fits(file, checkpoints.lastEnd(of: other.source))
                }
            } catch { faults.tell(other.path, error.reason) }
        }
        if mayBe, let before = held[identity], before.size == status.size, !head.isEmpty {
            mayBe = .now - before.since <= Self.copyQuiet
        } else if mayBe {
            held[identity] = (path, status.size, .now)
        }
        if !mayBe { held[identity] = nil }
        return mayBe
    }

    /// Tailed files beside a new one that it may be a copy of.
    private func neighbours(of path: String, _ head: [UInt8], in files: Files) -> [TailedFile] {
        let opening = TailedFile.opening(head)
        guard opening == 0 || openings.mayHold(opening) else { return [] }
        let folder = Folder.parent(of: path)
        guard opening == 0, files.count > Self.fewFiles else {
            let near = files.values.lazy.filter { !$0.isRotated && $0.lies(in: folder) }
            guard near.prefix(Self.fewFiles + 1).count > Self.fewFiles else { return Array(near) }
            return Array(near.filter { $0.opening == opening || $0.opening == 0 }.prefix(Self.fewFiles))
        }
        // Its first bytes do not tell yet: among very many, those whose names it continues, like app.log-20261121 or
        // app-20261121.log.
        let name = path.dropFirst(folder.count + 1)
        let suffix = String(name.lastIndex(of: ".").map { name[$0...] } ?? "")
        var near: [TailedFile] = []
        for end in name.indices.dropFirst() {
            for candidate in [String(name[..<end]), String(name[..<end]) + suffix] {
                guard let status = try? FileStatus(of: Folder.joined(folder, candidate)),
                    let file = files[TailedFile.Identity(status)], !file.isRotated,
                    !near.contains(where: { $0 === file })
                else { continue }
                near.append(file)
            }
        }
        return near
    }

    // MARK: made

    /// A file in `folder` that holds what `mark` was read from, up to `offset` at least, has `end` where it was, and is not
    /// one of `files`, which are tailed.
    ///
    /// The newest of several: the others were made earlier, and hold less.
    static func find(
        of mark: FileMark,
        _ end: Checkpoints.Entry.End,
        in folder: String,
        upTo offset: UInt64,
        notIn files: Files
    ) -> String? {
        var best: (path: String, changed: Int64)?
        let device = (try? FileStatus(of: folder))?.device ?? 0
        for entry in (try? Folder.entries(of: folder)) ?? []
        where files[TailedFile.Identity(device: device, inode: entry.inode)] == nil {
            let path = Folder.joined(folder, entry.name)
            guard let status = try? FileStatus(of: path), status.kind == .regular, status.size >= offset,
                best == nil || status.modified > best!.changed, files[TailedFile.Identity(status)] == nil,
                let file = try? ReadableFile(path), (try? mark.fits(file, end)) == true
            else { continue }
            best = (path, status.modified)
        }
        return best?.path
    }
}
