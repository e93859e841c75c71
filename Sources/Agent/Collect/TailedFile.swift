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
    mutating func goOn(in copy: consuming ReadableFile, _ path: String, _ status: FileStatus) {
        file = copy
        (self.path, device, inode, size) = (path, status.device, status.inode, status.size)
        (partial, isReady, isRotated) = (0, true, true)
    }

    /// Whether the file's first bytes are `head`.
    func begins(with head: [UInt8]) throws(SystemError) -> Bool { try file.bytes(at: 0, count: head.count) == head }

    /// Whether the bytes before the offset are still those that were read: a truncated file may have grown again.
    func isUntouched() throws(SystemError) -> Bool {
        guard !mark.end.isEmpty else { return true }
        return try FileMark.end(of: file, before: offset).suffix(mark.end.count) == mark.end[...]
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
        if mark.headSize < FileMark.headBytes, size > UInt64(mark.headSize) {
            (mark.headSize, mark.headHash) = try FileMark.head(of: file, size: FileMark.headBytes)
        }
        checkpoints.update(source, path: path, headSize: mark.headSize, headHash: mark.headHash)
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
        var step = Step.end
        needed = Self.block
        if isSkipping {
            let fits = unsafe try writer.write(upTo: Self.block) {
                (room: UnsafeMutableRawBufferPointer) throws(SystemError) in
                let count = unsafe try file.read(into: room, at: offset)
                guard count > 0 else { return nil }
                let end = unsafe UnsafeRawBufferPointer(rebasing: room[..<count]).firstOffset(of: 10)
                let dropped = end.map { $0 + 1 } ?? count
                let entry = entry(.skipped, bytes: dropped)
                oversize.bytesDropped += dropped
                isSkipping = end == nil
                unsafe mark.passed(UnsafeRawBufferPointer(rebasing: room[..<dropped]))
                offset += UInt64(dropped)
                step = .read(dropped)
                return (0, entry)
            }
            return fits ? step : .full
        }
        var needsMore = false
        var fits = unsafe try writer.write(upTo: Self.block) {
            (room: UnsafeMutableRawBufferPointer) throws(SystemError) in
            let count = unsafe try file.read(into: room, at: offset)
            let bytes = unsafe UnsafeRawBufferPointer(rebasing: room[..<count])
            guard let last = unsafe bytes.lastOffset(of: 10) else {
                partial = count
                needsMore = count == room.count
                return nil
            }
            partial = count - last - 1
            let entry = entry(.lines, bytes: last + 1)
            unsafe mark.passed(UnsafeRawBufferPointer(rebasing: bytes[...last]))
            offset += UInt64(last + 1)
            step = .read(last + 1)
            return (last + 1, entry)
        }
        guard needsMore else { return fits ? step : .full }

        // A line longer than a block: room for the longest record, and its line end.
        needed = max(longest + 2, Self.block)
        fits = unsafe try writer.write(upTo: needed) {
            (room: UnsafeMutableRawBufferPointer) throws(SystemError) in
            let count = unsafe try file.read(into: room, at: offset)
            let bytes = unsafe UnsafeRawBufferPointer(rebasing: room[..<count])
            if let last = unsafe bytes.lastOffset(of: 10) {
                partial = count - last - 1
                let entry = entry(.lines, bytes: last + 1)
                unsafe mark.passed(UnsafeRawBufferPointer(rebasing: bytes[...last]))
                offset += UInt64(last + 1)
                step = .read(last + 1)
                return (last + 1, entry)
            }
            partial = count
            guard count > longest + 1 else { return nil }
            let cut = unsafe Self.cut(bytes, at: longest)
            let entry = entry(.record, bytes: cut)
            oversize.lines += 1
            isSkipping = policy == .truncate
            unsafe mark.passed(UnsafeRawBufferPointer(rebasing: bytes[..<cut]))
            offset += UInt64(cut)
            partial = 0
            step = .read(cut)
            return (cut, entry)
        }
        return fits ? step : .full
    }

    /// Makes a record of the unfinished last line: nobody will finish it.
    mutating func finishPartial(into writer: inout RingWriter, longest: Int) throws(SystemError) -> Step {
        guard partial > 0 else { return .end }
        var step = Step.end
        needed = max(longest + 2, Self.block)
        let fits = unsafe try writer.write(upTo: needed) {
            (room: UnsafeMutableRawBufferPointer) throws(SystemError) in
            let count = unsafe try file.read(into: room, at: offset)
            guard count > 0 else { return nil }
            let bytes = unsafe UnsafeRawBufferPointer(rebasing: room[..<count])
            // Lines may have been finished after all.
            guard unsafe bytes.firstOffset(of: 10) == nil else { return nil }
            let entry = entry(.lines, bytes: count)
            unsafe mark.passed(bytes)
            offset += UInt64(count)
            partial = 0
            step = .read(count)
            return (count, entry)
        }
        return fits ? step : .full
    }

    /// Stops waiting for the unfinished last line: it cannot be read.
    mutating func giveUpPartial() { partial = 0 }

    private func entry(_ kind: EntryKind, bytes: Int) -> RingEntry {
        RingEntry(kind: kind.rawValue, source: source, first: offset, end: offset + UInt64(bytes))
    }

    /// Where to cut `bytes` so that at most `most` remain and no UTF-8 sequence is torn.
    @unsafe
    static func cut(_ bytes: UnsafeRawBufferPointer, at most: Int) -> Int {
        guard most < bytes.count, most > 0 else { return min(most, bytes.count) }
        var at = most
        while at > most - 3, at > 1, unsafe bytes[at] & 0xc0 == 0x80 { at -= 1 }
        return unsafe bytes[at] & 0xc0 == 0x80 ? most : at
    }
}
