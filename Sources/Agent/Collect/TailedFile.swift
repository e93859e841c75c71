import Bytes
import Kinesis
import Platform

// Concurrency: belongs to its collector's thread.

/// One file that is tailed: which it is, how far it has been read, and the reading of it in blocks.
///
/// There may be 100,000: what only an open one needs is apart.
final class TailedFile {
    private(set) var source: UInt32
    /// Bytes behind the last line end, at the last look: a line that is not finished.
    private(set) var partial: UInt32 = 0
    private(set) var path: String
    private var link: Link?
    private(set) var device: UInt64
    private(set) var inode: UInt64
    /// Where reading goes on; everything before is in the ring.
    private(set) var offset: UInt64
    /// The size at the last look, and when the content had changed then.
    private(set) var size: UInt64
    private var modified: Int64
    /// When it last grew, or was rotated: milliseconds since the first file was met.
    private var lastChange = TailedFile.elapsed()
    private var head = Fingerprint.none
    private var headSize: UInt16 = 0
    /// Its first bytes in short: files that differ in it have nothing in common.
    private(set) var opening: UInt32 = 0
    /// The last scan that met it.
    var scan: UInt32 = 0
    /// When it was last read, in turns of the collector.
    var lastTurn: UInt32 = 0
    /// Its name no longer fits the input's patterns, or it has no name any more.
    var isRotated = false
    private(set) var isDeleted = false
    /// It has one that we know.
    var hasName = true
    /// Something may be there to read, and it stands in the list of those.
    var isReady = false
    /// It stands in the list of those at which to look again in a while.
    var isWaiting = false
    /// In the middle of a line whose rest is dropped (`on_oversize = "truncate"`).
    private var isSkipping = false
    fileprivate var reading: Reading?

    private final class Link {
        let target: String
        init(_ target: String) { self.target = target }
    }

    /// Where `path` led to, if it is a link.
    var target: String? {
        get { link?.target }
        set { link = newValue.map(Link.init) }
    }

    /// What an open file needs.
    fileprivate final class Reading {
        let file: ReadableFile
        /// The bytes right before the offset, as they were read.
        var end: [UInt8]
        /// The room in the ring that the last step asked for.
        var needed = 0
        /// The largest size from which it was seen to shrink: so much is known to have been there before it was truncated.
        var sizeBefore: UInt64 = 0
        /// Where records are of several lines: those that were read, and may not be all of a record.
        var pending = PendingRecord()
        /// What found no room in the ring.
        var cut: PendingRecord.Cut?

        init(_ file: consuming ReadableFile, end: [UInt8]) {
            self.file = file
            self.end = end
        }
    }

    struct Identity: Hashable {
        var device: UInt64
        var inode: UInt64

        init(_ status: FileStatus) { (device, inode) = (status.device, status.inode) }
        init(device: UInt64, inode: UInt64) { (self.device, self.inode) = (device, inode) }
    }

    /// Bytes read at once: from 64 to 256 KiB makes no difference, more is worse.
    static let block = 128 << 10

    /// A file to be read from `offset`.
    ///
    /// - Parameter mark: what is known of it already.
    init(
        source: UInt32,
        _ file: consuming ReadableFile,
        path: String,
        status: FileStatus,
        offset: UInt64,
        mark: FileMark = FileMark()
    ) {
        (self.source, self.path, device, inode) = (source, path, status.device, status.inode)
        (self.offset, size, modified) = (offset, status.size, status.modified)
        (headSize, head) = (mark.headSize, mark.head)
        // What cannot be read here is told by the first step.
        let end = (try? FileMark.end(of: file, before: offset)) ?? []
        reading = Reading(file, end: end)
    }

    var identity: Identity { Identity(device: device, inode: inode) }

    /// Where its content lies.
    var place: String { target ?? path }

    /// The folder where its siblings lie.
    var folder: String { Folder.parent(of: place) }

    /// Whether `folder` is that one.
    func lies(in folder: String) -> Bool {
        let place = place.utf8
        guard place.starts(with: folder.utf8) else { return false }
        let name = place.dropFirst(folder == "/" ? 1 : folder.utf8.count + 1)
        return place.count > folder.utf8.count && !name.contains(UInt8(ascii: "/"))
    }

    /// The room in the ring that the last step asked for.
    var needed: Int { reading?.needed ?? 0 }

    var isOpen: Bool { reading != nil }

    /// What identifies it.
    var mark: FileMark {
        var mark = FileMark()
        (mark.headSize, mark.head) = (headSize, head)
        return mark
    }

    private static let start = Instant.now
    private static func elapsed() -> Int64 { Int64((.now - start) / .milliseconds(1)) }

    /// Notes that something has happened to it.
    func changed() { lastChange = Self.elapsed() }

    /// Whether nothing has happened to it for so long.
    func isQuiet(for duration: Duration) -> Bool { .milliseconds(Self.elapsed() - lastChange) > duration }

    /// Bytes that wait to be read.
    var behind: UInt64 { size > offset ? size - offset : 0 }

    /// Bytes that are known to have been there, had not been read, and were truncated.
    var truncated: UInt64 {
        let before = reading?.sizeBefore ?? 0
        return before > offset ? before - offset : 0
    }

    /// Everything has been read that can be; a line that is not finished stays in the file.
    var isCaughtUp: Bool { offset + UInt64(partial) >= size }

    func rename(to path: String, target: String?) {
        self.path = path
        self.target = target
    }

    /// Closes the file; false if something of it might then be lost: bytes that were not read, or its only name.
    func close() -> Bool {
        guard let reading, !isReady, isCaughtUp, !isDeleted, let now = try? reading.file.status(), now.links > 0,
            reading.pending.wholeLines == 0, now.size == offset + UInt64(partial),
            let named = try? FileStatus(of: path),
            Identity(named) == identity
        else { return false }
        self.reading = nil
        return true
    }

    /// What opening it again found.
    enum Opening {
        case same
        /// Its name is another file's now.
        case other
        /// What stands before the offset is not what was read.
        case rewritten
    }

    /// Opens the file again.
    func open(_ end: Checkpoints.Entry.End) throws(SystemError) -> Opening {
        let file = try ReadableFile(path)
        let status = try file.status()
        guard Identity(status) == identity else { return .other }
        let bytes = try FileMark.end(of: file, before: offset)
        let isSame = try FileMark.holds(file, end)
        _ = look(status)
        reading = Reading(file, end: bytes)
        return isSame && status.size >= offset ? .same : .rewritten
    }

    /// Begins again at the start, as another source: the content is another one now.
    func restart(as source: UInt32) {
        self.source = source
        (offset, partial, isSkipping) = (0, 0, false)
        (head, headSize, opening) = (.none, 0, 0)
        reading?.sizeBefore = 0
        reading?.end = []
        reading?.pending = PendingRecord()
        reading?.cut = nil
    }

    /// Goes on in another file that holds the same bytes: a copy that was made before this one was truncated.
    ///
    /// - Returns: another reading of the truncated one, as it was opened.
    func goOn(in copy: consuming ReadableFile, _ path: String, _ status: FileStatus) -> Truncated {
        let old = reading!
        let end = try? FileMark.end(of: copy, before: offset)
        reading = Reading(copy, end: end ?? old.end)
        (self.path, link, device, inode, size) = (path, nil, status.device, status.inode, status.size)
        (partial, isRotated, isDeleted) = (0, true, false)
        return Truncated(reading: old)
    }

    /// A file that was truncated, still open.
    struct Truncated {
        fileprivate let reading: Reading

        func status() throws(SystemError) -> FileStatus { try reading.file.status() }
    }

    /// Tails what was truncated from its start.
    init(source: UInt32, _ truncated: Truncated, path: String, status: FileStatus) {
        (self.source, self.path, device, inode) = (source, path, status.device, status.inode)
        (offset, size, modified) = (0, status.size, status.modified)
        reading = truncated.reading
        reading?.sizeBefore = 0
        reading?.end = []
        reading?.pending = PendingRecord()
        reading?.cut = nil
    }

    /// Goes on in the middle of a line whose rest is dropped, if the file was left there.
    func findSkipped(_ policy: Configuration.Oversize, longest: Int) {
        guard policy != .split, offset > 0, let reading, reading.end.last != 10 else { return }
        // A record that was cut is at most three bytes shorter than the longest.
        let least = UInt64(max(1, longest - 3))
        guard offset >= least, let bytes = try? reading.file.bytes(at: offset - least, count: Int(least)) else {
            return
        }
        isSkipping = bytes.span.firstOffset(of: 10) == nil
    }

    /// Whether the file's first bytes are `head`.
    func begins(with head: [UInt8]) throws(SystemError) -> Bool {
        try withFile { file throws(SystemError) in try file.bytes(at: 0, count: head.count) == head }
    }

    /// Whether the file has `bytes` right before `end`.
    func holds(_ bytes: [UInt8], before end: UInt64) throws(SystemError) -> Bool {
        try withFile { file throws(SystemError) in try FileMark.end(of: file, before: end) == bytes }
    }

    private func withFile(_ body: (borrowing ReadableFile) throws(SystemError) -> Bool) throws(SystemError) -> Bool {
        if let reading { return try body(reading.file) }
        return try body(ReadableFile(path))
    }

    /// Whether the bytes before the offset are still those that were read: a truncated file may have grown again.
    func isUntouched() throws(SystemError) -> Bool {
        guard let reading else { return true }
        if reading.end.isEmpty {
            // Before the first byte was read there is only the head, if the file had one when it was met.
            guard headSize > 0 else { return true }
            return try mark.hasHead(reading.file)
        }
        return try FileMark.end(of: reading.file, before: offset).suffix(reading.end.count) == reading.end[...]
    }

    /// What stands before the offset, for the checkpoints.
    func end(_ sha: inout SHA256) -> Checkpoints.Entry.End {
        let end = reading?.end ?? []
        return .init(position: offset, size: UInt16(end.count), hash: Fingerprint(of: end.span, &sha))
    }

    /// Looks at an open file's size; nothing happens to one that is closed.
    ///
    /// True when there may be something to read, or was: it grew, or shrank.
    func look() throws(SystemError) -> Bool {
        guard let reading else { return false }
        return try look(reading.file.status())
    }

    /// Takes what stat said of it.
    func look(_ status: FileStatus) -> Bool {
        if status.size != size { changed() }
        if status.links == 0, !isDeleted {
            isDeleted = true
            changed()
        }
        let isTouched = status.size != size || status.modified != modified
        if let reading {
            if status.size < size { reading.sizeBefore = max(reading.sizeBefore, size) }
            // What was read and is not there any more belongs to no record.
            if status.size < offset + UInt64(reading.pending.bytes.count) {
                (reading.pending, reading.cut) = (PendingRecord(), nil)
            }
        }
        (size, modified) = (status.size, status.modified)
        return isTouched || size < offset || !isCaughtUp
    }

    /// Whether an open file was truncated: it is shorter than what was read of it, or has other bytes there.
    func isTruncated() throws(SystemError) -> Bool {
        if size < offset { return true }
        return try !isUntouched()
    }

    /// Whether more of it was read than its mark knows: it was met when it was short, and may never be read to its end.
    var hasGrownPastMark: Bool { Int(headSize) < FileMark.headBytes && offset > UInt64(headSize) }

    /// Notes name and head in the checkpoints: while the file is short, its head grows.
    func describe(in checkpoints: Checkpoints) throws(SystemError) {
        if opening == 0 || Int(headSize) < FileMark.headBytes && size > UInt64(headSize), let reading {
            let bytes = try reading.file.bytes(at: 0, count: FileMark.headBytes)
            // Truncated a moment ago, it keeps the head by which its copy is found.
            if mark.begins(bytes), try isUntouched() {
                (headSize, head) = (UInt16(bytes.count), Fingerprint(of: bytes.span))
                opening = Self.opening(bytes)
            }
        }
        checkpoints.update(source, path: place, headSize: headSize, head: head)
    }

    /// The first bytes of a file in short; 0 if there are too few to tell.
    static func opening(_ bytes: [UInt8]) -> UInt32 {
        guard bytes.count >= 32 else { return 0 }
        return bytes[..<32].reduce(2_166_136_261) { ($0 ^ UInt32($1)) &* 16_777_619 } | 1
    }

    enum Step: Equatable {
        /// Bytes went into the ring.
        case read(Int)
        /// Nothing more for now.
        case end
        /// The ring has no room.
        case full
    }

    /// What an oversize line cost: for the counters.
    struct Oversize {
        var lines = 0
        var bytesDropped = 0
    }

    /// Reads the next block into the ring: whole lines, or a piece of one that is longer than `longest`.
    ///
    /// The bytes go from the file into the ring's memory, and nowhere between. A line that is not finished is read again
    /// when there is more of it.
    func step(
        into writer: inout RingWriter,
        longest: Int,
        _ policy: Configuration.Oversize,
        _ oversize: inout Oversize
    ) throws(SystemError) -> Step {
        let before = offset
        if isSkipping {
            let fits = unsafe try fill(Self.block, of: &writer) { bytes in
                let end = unsafe bytes.firstOffset(of: 10)
                let dropped = end.map { $0 + 1 } ?? bytes.count
                isSkipping = end == nil
                if policy == .truncate { oversize.bytesDropped += dropped }
                return (policy.restKind, dropped)
            }
            return taken(since: before, fits)
        }
        var needsMore = false
        var fits = unsafe try fill(Self.block, of: &writer) { bytes in
            let lines = unsafe lines(in: bytes)
            needsMore = lines == nil && bytes.count == Self.block
            return lines
        }
        guard needsMore else { return taken(since: before, fits) }

        // A line longer than a block: room for the longest record, and its line end.
        fits = unsafe try fill(max(longest + 2, Self.block), of: &writer) { bytes in
            if let lines = unsafe lines(in: bytes) { return lines }
            guard bytes.count > longest + 1 else { return nil }
            oversize.lines += 1
            isSkipping = policy != .split
            partial = 0
            return unsafe (policy.pieceKind, Self.cut(bytes, at: longest))
        }
        return taken(since: before, fits)
    }

    /// Reads further records of several lines into the ring, each once the next one has begun.
    ///
    /// - Parameter isStart: whether a line begins a record.
    func step(
        records isStart: (Span<UInt8>) -> Bool,
        into writer: inout RingWriter,
        longest: Int,
        _ policy: Configuration.Oversize,
        _ oversize: inout Oversize
    ) throws(SystemError) -> Step {
        guard let reading else { return .end }
        let before = offset
        while true {
            var first = 0
            var fits = true
            while let cut = reading.cut
                ?? reading.pending.next(from: first, longest: longest, policy, isStart: isStart)
            {
                fits = write(cut, reading.pending.bytes[first..<first + cut.count], first, policy, into: &writer)
                reading.cut = fits ? nil : cut
                guard fits else { break }
                first += cut.count
                switch cut {
                case .record: break
                case .piece: oversize.lines += 1
                case .skipped(let bytes): oversize.bytesDropped += policy == .truncate ? bytes : 0
                }
            }
            if first > 0 { passed(first) }
            if offset > before { return .read(Int(offset - before)) }
            guard fits else { return .full }
            let more = try reading.file.bytes(at: offset + UInt64(reading.pending.bytes.count), count: Self.block)
            guard !more.isEmpty else {
                partial = UInt32(reading.pending.bytes.count)
                return .end
            }
            reading.pending.append(more)
        }
    }

    /// Whether lines wait for the one that begins the next record.
    var hasPendingLines: Bool { reading.map { $0.pending.wholeLines > 0 } ?? false }

    /// Makes a record of the lines that wait: no more will come of it, or nobody would wait that long.
    ///
    /// - Parameter all: with an unfinished last line, too.
    func finishRecord(into writer: inout RingWriter, longest: Int, all: Bool) -> Step {
        guard let reading else { return .end }
        let count = all ? reading.pending.lastCount(longest: longest) : reading.pending.wholeLines
        guard count > 0 else { return .end }
        guard write(.record(count), reading.pending.bytes[..<count], 0, .split, into: &writer) else { return .full }
        passed(count)
        partial = UInt32(reading.pending.bytes.count)
        return .read(count)
    }

    /// Writes bytes that lie `ahead` of the offset into the ring, as one entry; false if it has no room.
    private func write(
        _ cut: PendingRecord.Cut,
        _ bytes: ArraySlice<UInt8>,
        _ ahead: Int,
        _ policy: Configuration.Oversize,
        into writer: inout RingWriter
    )
        -> Bool
    {
        let (first, end) = (offset + UInt64(ahead), offset + UInt64(ahead + bytes.count))
        let kind: EntryKind =
            switch cut {
            case .record: .record
            case .piece: policy.pieceKind
            case .skipped: policy.restKind
            }
        let count = kind == .skipped ? 0 : PendingRecord.payload(bytes)
        reading?.needed = count
        let entry = RingEntry(kind: kind.rawValue, source: source, first: first, end: end)
        return writer.write(bytes.span.extracting(..<count), as: entry)
    }

    /// Notes that the first bytes that waited are in the ring.
    private func passed(_ count: Int) {
        guard let reading else { return }
        unsafe reading.pending.bytes.withUnsafeBytes {
            unsafe FileMark.pass(UnsafeRawBufferPointer(rebasing: $0[..<count]), &reading.end)
        }
        reading.pending.removeFirst(count)
        offset += UInt64(count)
        partial = UInt32(reading.pending.bytes.count)
    }

    /// Makes a record of the unfinished last line: nobody will finish it.
    func finishPartial(into writer: inout RingWriter, longest: Int) throws(SystemError) -> Step {
        guard partial > 0 else { return .end }
        let before = offset
        let fits = unsafe try fill(max(longest + 2, Self.block), of: &writer) { bytes in
            // Lines may have been finished after all.
            guard unsafe bytes.firstOffset(of: 10) == nil else { return nil }
            partial = 0
            return (.lines, bytes.count)
        }
        return taken(since: before, fits)
    }

    /// Reads up to `most` bytes into the ring's memory; `choose` says how many of them become an entry, and of which kind.
    ///
    /// False when the ring has no room.
    @unsafe
    private func fill(
        _ most: Int,
        of writer: inout RingWriter,
        _ choose: (UnsafeRawBufferPointer) -> (kind: EntryKind, count: Int)?
    ) throws(SystemError) -> Bool {
        guard let reading else { return true }
        reading.needed = most
        return unsafe try writer.write(upTo: most) { (room: UnsafeMutableRawBufferPointer) throws(SystemError) in
            let count = unsafe try reading.file.read(into: room, at: offset)
            guard count > 0 else {
                // An unfinished line that was seen has been cut off.
                partial = 0
                return nil
            }
            let bytes = unsafe UnsafeRawBufferPointer(rebasing: room[..<count])
            guard let chosen = unsafe choose(bytes) else { return nil }
            let end = offset + UInt64(chosen.count)
            let entry = RingEntry(kind: chosen.kind.rawValue, source: source, first: offset, end: end)
            unsafe FileMark.pass(UnsafeRawBufferPointer(rebasing: bytes[..<chosen.count]), &reading.end)
            offset = end
            return (chosen.kind == .skipped ? 0 : chosen.count, entry)
        }
    }

    /// The whole lines that `bytes` begin with; notes what is behind them.
    @unsafe
    private func lines(in bytes: UnsafeRawBufferPointer) -> (kind: EntryKind, count: Int)? {
        let last = unsafe bytes.lastOffset(of: 10)
        partial = UInt32(bytes.count - (last.map { $0 + 1 } ?? 0))
        return last.map { (.lines, $0 + 1) }
    }

    private func taken(since before: UInt64, _ fits: Bool) -> Step {
        guard fits else { return .full }
        return offset > before ? .read(Int(offset - before)) : .end
    }

    /// Stops waiting for the unfinished last line: it cannot be read.
    func giveUpPartial() { partial = 0 }

    /// Where to cut `bytes` so that at most `most` remain and no UTF-8 sequence is torn.
    @unsafe
    static func cut(_ bytes: UnsafeRawBufferPointer, at most: Int) -> Int {
        guard most < bytes.count, most > 0 else { return min(most, bytes.count) }
        var at = most
        while at > most - 3, at > 1, unsafe bytes[at] & 0xc0 == 0x80 { at -= 1 }
        return unsafe bytes[at] & 0xc0 == 0x80 ? most : at
    }
}

extension Configuration.Oversize {
    /// What the first piece of a line becomes that is longer than a record may be, and what its rest does.
    var pieceKind: EntryKind { self == .deadLetter ? .oversize : .record }
    var restKind: EntryKind { self == .deadLetter ? .oversize : .skipped }
}
