import Bytes
import Kinesis
import Platform

/// One file that is tailed: which it is, how far it has been read, and the reading of it in blocks.
struct TailedFile: ~Copyable {
    private(set) var source: UInt32
    private(set) var path: String
    private(set) var device: UInt64
    private(set) var inode: UInt64
    /// Where reading goes on; everything before is in the ring.
    private(set) var offset: UInt64
    /// The size at the last look.
    private(set) var size: UInt64
    /// The size at the look before that: if the file was truncated since, so much is known to have been there.
    private(set) var sizeBefore: UInt64 = 0
    /// Bytes behind the last line end, at the last look: a line that is not finished.
    private(set) var partial = 0
    /// Its name no longer fits the input's patterns, or it has no name any more.
    var isRotated = false
    var isDeleted = false
    /// When it last grew, or was rotated.
    var lastChange: ContinuousClock.Instant
    /// Something may be there to read.
    var isReady = true
    /// The room in the ring that the last step asked for.
    private(set) var needed = 0

    private var file: ReadableFile
    /// What identifies the file: its first bytes, and those right before `offset`.
    private(set) var mark = FileMark()
    /// In the middle of a line whose rest is dropped (`on_oversize = "truncate"`).
    private var isSkipping = false

    /// Bytes read at once: from 64 to 256 KiB makes no difference, more is worse.
    static let block = 128 << 10

    init(
        source: UInt32,
        _ file: consuming ReadableFile,
        path: String,
        status: FileStatus,
        offset: UInt64,
        now: ContinuousClock.Instant
    ) {
        self.file = file
        (self.source, self.path, device, inode) = (source, path, status.device, status.inode)
        (self.offset, size, lastChange) = (offset, status.size, now)
        // What cannot be read here is told by the first step.
        if offset > 0 { mark.end = (try? FileMark.end(of: self.file, before: offset)) ?? [] }
    }

    /// Bytes that wait to be read.
    var behind: UInt64 { size > offset ? size - offset : 0 }

    /// Everything has been read that can be; a line that is not finished stays in the file.
    var isCaughtUp: Bool { offset + UInt64(partial) >= size }

    mutating func rename(to path: String) { self.path = path }

    /// Begins again at the start, as another source: the content is another one now.
    mutating func restart(as source: UInt32) {
        self.source = source
        (offset, partial, isSkipping, isReady) = (0, 0, false, true)
        mark = FileMark()
    }

    /// Goes on in another file that holds the same bytes: a copy that was made before this one was truncated.
    ///
    /// - Returns: the truncated one, as it was opened.
    mutating func goOn(in copy: consuming ReadableFile, _ path: String, _ status: FileStatus) -> ReadableFile {
        var other = copy
        swap(&file, &other)
        (self.path, device, inode, size) = (path, status.device, status.inode, status.size)
        (partial, isReady, isRotated) = (0, true, true)
        return other
    }

    /// Whether the file's first bytes are `head`.
    func begins(with head: [UInt8]) throws(SystemError) -> Bool { try file.bytes(at: 0, count: head.count) == head }

    /// Whether the file has `bytes` right before `end`.
    func holds(_ bytes: [UInt8], before end: UInt64) throws(SystemError) -> Bool {
        try FileMark.end(of: file, before: end) == bytes
    }

    /// Whether the bytes before the offset are still those that were read: a truncated file may have grown again.
    func isUntouched() throws(SystemError) -> Bool {
        if mark.end.isEmpty {
            // Before the first byte was read there is only the head, if the file had one when it was met.
            guard mark.headSize > 0 else { return true }
            return try mark.hasHead(file)
        }
        return try FileMark.end(of: file, before: offset).suffix(mark.end.count) == mark.end[...]
    }

    /// What stands before the offset, for the checkpoints.
    func end(_ sha: inout SHA256) -> Checkpoints.Entry.End {
        .init(position: offset, size: UInt16(mark.end.count), hash: Fingerprint(of: mark.end.span, &sha))
    }

    /// Looks at the file's size.
    ///
    /// True when it was truncated: it is shorter than what was read of it, or has other bytes there.
    mutating func look(now: ContinuousClock.Instant) throws(SystemError) -> Bool {
        let status = try file.status()
        if status.size != size { lastChange = now }
        (sizeBefore, size) = (size, status.size)
        if status.links == 0, !isDeleted {
            isDeleted = true
            lastChange = now
        }
        if offset + UInt64(partial) < size { isReady = true }
        guard size >= offset else { return true }
        return try !isUntouched()
    }

    /// Notes name and head in the checkpoints: while the file is short, its head grows.
    mutating func describe(in checkpoints: Checkpoints) throws(SystemError) {
        if Int(mark.headSize) < FileMark.headBytes, size > UInt64(mark.headSize) {
            try mark.setHead(of: file)
        }
        checkpoints.update(source, path: path, headSize: mark.headSize, head: mark.head)
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
    mutating func step(
        into writer: inout RingWriter,
        longest: Int,
        _ policy: Configuration.Oversize,
        _ oversize: inout Oversize
    ) throws(SystemError) -> Step {
        let before = offset
        if isSkipping {
            let fits = unsafe try fill(Self.block, of: &writer) { bytes, file in
                let end = unsafe bytes.firstOffset(of: 10)
                let dropped = end.map { $0 + 1 } ?? bytes.count
                file.isSkipping = end == nil
                oversize.bytesDropped += dropped
                return (.skipped, dropped)
            }
            return taken(since: before, fits)
        }
        var needsMore = false
        var fits = unsafe try fill(Self.block, of: &writer) { bytes, file in
            let lines = unsafe file.lines(in: bytes)
            needsMore = lines == nil && bytes.count == Self.block
            return lines
        }
        guard needsMore else { return taken(since: before, fits) }

        // A line longer than a block: room for the longest record, and its line end.
        fits = unsafe try fill(max(longest + 2, Self.block), of: &writer) { bytes, file in
            if let lines = unsafe file.lines(in: bytes) { return lines }
            guard bytes.count > longest + 1 else { return nil }
            oversize.lines += 1
            file.isSkipping = policy == .truncate
            file.partial = 0
            return unsafe (.record, Self.cut(bytes, at: longest))
        }
        return taken(since: before, fits)
    }

    /// Makes a record of the unfinished last line: nobody will finish it.
    mutating func finishPartial(into writer: inout RingWriter, longest: Int) throws(SystemError) -> Step {
        guard partial > 0 else { return .end }
        let before = offset
        let fits = unsafe try fill(max(longest + 2, Self.block), of: &writer) { bytes, file in
            // Lines may have been finished after all.
            guard unsafe bytes.firstOffset(of: 10) == nil else { return nil }
            file.partial = 0
            return (.lines, bytes.count)
        }
        return taken(since: before, fits)
    }

    /// Reads up to `most` bytes into the ring's memory; `choose` says how many of them become an entry, and of which kind.
    ///
    /// False when the ring has no room.
    @unsafe
    private mutating func fill(
        _ most: Int,
        of writer: inout RingWriter,
        _ choose: (UnsafeRawBufferPointer, inout TailedFile) -> (kind: EntryKind, count: Int)?
    ) throws(SystemError) -> Bool {
        needed = most
        return unsafe try writer.write(upTo: most) { (room: UnsafeMutableRawBufferPointer) throws(SystemError) in
            let count = unsafe try file.read(into: room, at: offset)
            guard count > 0 else {
                // An unfinished line that was seen has been cut off.
                partial = 0
                return nil
            }
            let bytes = unsafe UnsafeRawBufferPointer(rebasing: room[..<count])
            guard let chosen = unsafe choose(bytes, &self) else { return nil }
            let end = offset + UInt64(chosen.count)
            let entry = RingEntry(kind: chosen.kind.rawValue, source: source, first: offset, end: end)
            unsafe mark.passed(UnsafeRawBufferPointer(rebasing: bytes[..<chosen.count]))
            offset = end
            return (chosen.kind == .skipped ? 0 : chosen.count, entry)
        }
    }

    /// The whole lines that `bytes` begin with; notes what is behind them.
    @unsafe
    private mutating func lines(in bytes: UnsafeRawBufferPointer) -> (kind: EntryKind, count: Int)? {
        let last = unsafe bytes.lastOffset(of: 10)
        partial = bytes.count - (last.map { $0 + 1 } ?? 0)
        return last.map { (.lines, $0 + 1) }
    }

    private func taken(since before: UInt64, _ fits: Bool) -> Step {
        guard fits else { return .full }
        return offset > before ? .read(Int(offset - before)) : .end
    }

    /// Stops waiting for the unfinished last line: it cannot be read.
    mutating func giveUpPartial() { partial = 0 }

    /// Where to cut `bytes` so that at most `most` remain and no UTF-8 sequence is torn.
    @unsafe
    static func cut(_ bytes: UnsafeRawBufferPointer, at most: Int) -> Int {
        guard most < bytes.count, most > 0 else { return min(most, bytes.count) }
        var at = most
        while at > most - 3, at > 1, unsafe bytes[at] & 0xc0 == 0x80 { at -= 1 }
        return unsafe bytes[at] & 0xc0 == 0x80 ? most : at
    }
}
