import Bytes
import Platform

// Concurrency: belongs to its collector's thread.

/// A file that was packed by gzip before it was read to its end: the rest of it, inflated on the way into the ring.
final class CompressedFile {
    let source: UInt32
    let path: String
    /// Where reading goes on, in the file that was packed.
    private(set) var offset: UInt64
    /// The room in the ring that the last step asked for.
    private(set) var needed = 0

    private let file: GzipFile
    /// How far it is inflated.
    private var inflated: UInt64 = 0
    /// What must stand before the offset, or not far before it.
    private let end: Checkpoints.Entry.End
    private var passed: [UInt8] = []
    /// Inflated, and not in the ring yet: from `offset` on.
    private var pending = PendingRecord()
    private var waiting: [UInt8] { pending.bytes }
    private var cut: PendingRecord.Cut?
    private var isSkipping = false
    private var isInflated = false

    enum Fault: Error {
        /// It is the packed file of something else.
        case other
        case unreadable(GzipFile.Fault)
    }

    /// Bytes that a step inflates to come to its offset.
    private static let seek = 8 << 20

    init(source: UInt32, _ file: GzipFile, path: String, offset: UInt64, end: Checkpoints.Entry.End) {
        (self.source, self.file, self.path, self.offset, self.end) = (source, file, path, offset, end)
    }

    /// Whether the file at `path` is the packed file of something that begins as `mark` says.
    static func fits(_ path: String, _ mark: FileMark) -> GzipFile? {
        guard mark.headSize > 0, let file = try? GzipFile(path) else { return nil }
        var head: [UInt8] = []
        while head.count < mark.headSize {
            guard let more = try? file.bytes(Int(mark.headSize) - head.count), !more.isEmpty else { return nil }
            head += more
        }
        guard Fingerprint(of: head.span) == mark.head else { return nil }
        // From its start again, when it is read.
        return try? GzipFile(path)
    }

    /// Inflates the next block into the ring: whole lines, or a piece of one that is longer than `longest`; at the end
    /// also an unfinished one.
    func step(
        into writer: inout RingWriter,
        longest: Int,
        _ policy: Configuration.Oversize,
        _ oversize: inout TailedFile.Oversize
    ) throws(Fault) -> TailedFile.Step {
        guard try findOffset() else { return .read(0) }
        let most = max(longest + 2, TailedFile.block)
        while true {
            if isSkipping {
                let end = waiting.span.firstOffset(of: 10)
                let dropped = end.map { $0 + 1 } ?? waiting.count
                if dropped > 0 {
                    guard write(policy.restKind, dropped, into: &writer) else { return .full }
                    oversize.bytesDropped += policy == .truncate ? dropped : 0
                    isSkipping = end == nil
                    return .read(dropped)
                }
            } else if let last = unsafe waiting.withUnsafeBytes({ unsafe $0.lastOffset(of: 10) }) {
                return write(.lines, last + 1, into: &writer) ? .read(last + 1) : .full
            } else if waiting.count > longest + 1 {
                let count = unsafe waiting.withUnsafeBytes { unsafe TailedFile.cut($0, at: longest) }
                guard write(policy.pieceKind, count, into: &writer) else { return .full }
                oversize.lines += 1
                isSkipping = policy != .split
                return .read(count)
            } else if isInflated {
                let count = waiting.count
                guard count > 0 else { return .end }
                return write(.lines, count, into: &writer) ? .read(count) : .full
            }
            try inflate(upTo: min(most, waiting.count + TailedFile.block))
        }
    }

    /// Inflates the next record of several lines into the ring.
    ///
    /// - Parameter isStart: whether a line begins a record.
    func step(
        records isStart: (Span<UInt8>) -> Bool,
        into writer: inout RingWriter,
        longest: Int,
        _ policy: Configuration.Oversize,
        _ oversize: inout TailedFile.Oversize
    ) throws(Fault) -> TailedFile.Step {
        guard try findOffset() else { return .read(0) }
        while true {
            // Not again what did not find room the last time.
            if cut == nil { cut = pending.next(from: 0, longest: longest, policy, isStart: isStart) }
            if cut == nil, isInflated, !waiting.isEmpty { cut = .record(pending.lastCount(longest: longest)) }
            switch cut {
            case .record(let count), .piece(let count):
                let payload = PendingRecord.payload(waiting[..<count])
                var kind = EntryKind.record
                if case .piece = cut { kind = policy.pieceKind }
                guard write(kind, count, payload: payload, into: &writer) else { return .full }
                if case .piece = cut { oversize.lines += 1 }
                cut = nil
                return .read(count)
            case .skipped(let count):
                guard write(policy.restKind, count, into: &writer) else { return .full }
                oversize.bytesDropped += policy == .truncate ? count : 0
                cut = nil
                return .read(count)
            case nil:
                if isInflated { return .end }
                try inflate(upTo: waiting.count + TailedFile.block)
            }
        }
    }

    /// Goes to the offset, and makes sure of the way; false if there is more of it.
    private func findOffset() throws(Fault) -> Bool {
        guard inflated < offset, waiting.isEmpty else { return true }
        let until = inflated + UInt64(Self.seek)
        while inflated < offset, inflated < until {
            let stop = end.size > 0 && inflated < end.position ? end.position : offset
            let bytes = try read(Int(min(64 << 10, stop - inflated)))
            guard !bytes.isEmpty else { throw .other }
            unsafe bytes.withUnsafeBytes { unsafe FileMark.pass($0, &passed) }
            inflated += UInt64(bytes.count)
            if end.size > 0, inflated == end.position {
                guard Fingerprint(of: Array(passed.suffix(Int(end.size))).span) == end.hash else { throw .other }
            }
        }
        return inflated == offset
    }

    private func inflate(upTo most: Int) throws(Fault) {
        let bytes = try read(max(1, most - waiting.count))
        pending.append(bytes)
        inflated += UInt64(bytes.count)
        isInflated = bytes.isEmpty
    }

    private func read(_ most: Int) throws(Fault) -> [UInt8] {
        do { return try file.bytes(most) } catch { throw .unreadable(error) }
    }

    /// Moves the first bytes that wait into the ring; false if it has no room.
    ///
    /// - Parameter payload: how many of them the entry has, if not all.
    private func write(
        _ kind: EntryKind,
        _ count: Int,
        payload: Int? = nil,
        into writer: inout RingWriter
    ) -> Bool {
        let entry = RingEntry(kind: kind.rawValue, source: source, first: offset, end: offset + UInt64(count))
        needed = kind == .skipped ? 0 : payload ?? count
        let isWritten = Self.write(waiting, needed, as: entry, into: &writer)
        guard isWritten else { return false }
        unsafe waiting.withUnsafeBytes { unsafe FileMark.pass(UnsafeRawBufferPointer(rebasing: $0[..<count]), &passed) }
        pending.removeFirst(count)
        offset += UInt64(count)
        return true
    }

    private static func write(
        _ bytes: [UInt8],
        _ count: Int,
        as entry: RingEntry,
        into writer: inout RingWriter
    ) -> Bool { writer.write(bytes.span.extracting(..<count), as: entry) }

    /// What stands before the offset, for the checkpoints.
    var lastEnd: Checkpoints.Entry.End {
        let passed = passed
        return .init(position: offset, size: UInt16(passed.count), hash: Fingerprint(of: passed.span))
    }
}
