import Bytes
import Platform

// Concurrency: belongs to its collector's thread.

/// Cuts what is read of a file into records of several lines: each begins with a line that an expression fits.
struct PendingRecord {
    /// Read, and in no record yet: from the file's offset on, which is where a line or a piece of one begins.
    private(set) var bytes: [UInt8] = []
    /// Lines before it have been tried.
    private var tried = 0
    /// The rest of a record that was too long is dropped, first the rest of its line.
    private var isSkipping = false
    private var isInLine = false

    private static let usualMemory = 1 << 20

    /// What the next bytes are.
    enum Cut: Equatable {
        case record(Int)
        /// The first piece of a record that is too long.
        case piece(Int)
        case skipped(Int)

        var count: Int {
            switch self {
            case .record(let count), .piece(let count), .skipped(let count): count
            }
        }
    }

    /// The lines that are whole, in bytes.
    var wholeLines: Int { unsafe bytes.withUnsafeBytes { unsafe $0.lastOffset(of: 10) }.map { $0 + 1 } ?? 0 }

    /// What the bytes begin with if no more come: a line that is not finished is not counted to a record that it would make
    /// too long.
    func lastCount(longest: Int) -> Int { bytes.count > longest + 1 ? wholeLines : bytes.count }

    mutating func append(_ more: [UInt8]) { bytes += more }

    /// What of the bytes from `first` on is finished; nil: more must be known.
    mutating func next(
        from first: Int,
        longest: Int,
        _ policy: Configuration.Oversize,
        isStart: (Span<UInt8>) -> Bool
    ) -> Cut? {
        let all = bytes
        var at = max(tried, first)
        if isSkipping {
            if isInLine {
                guard let end = all.span.firstOffset(of: 10, from: at) else {
                    return all.count > first ? .skipped(all.count - first) : nil
                }
                isInLine = false
                tried = end + 1
                return .skipped(end + 1 - first)
            }
            while let end = all.span.firstOffset(of: 10, from: at) {
                if isStart(all.span.extracting(at..<end)) {
                    isSkipping = false
                    tried = end + 1
                    return at > first
                        ? .skipped(at - first) : next(from: first, longest: longest, policy, isStart: isStart)
                }
                (at, tried) = (end + 1, end + 1)
            }
            if all.count - at > longest + 1 {
                // Not more of a line is kept than a record may have.
                isInLine = !isStart(all.span.extracting(at..<at + longest))
                isSkipping = isInLine
                tried = isInLine ? all.count : at
                return tried > first
                    ? .skipped(tried - first) : next(from: first, longest: longest, policy, isStart: isStart)
            }
            return at > first ? .skipped(at - first) : nil
        }
        while let end = all.span.firstOffset(of: 10, from: at) {
            if at - first > longest + 1 { break }
            if at > first, isStart(all.span.extracting(at..<end)) {
                // It is the first of the next, and need not be tried again.
                tried = end + 1
                return .record(at - first)
            }
            if end - first > longest { break }
            (at, tried) = (end + 1, end + 1)
        }
        guard all.count - first > longest + 1 else { return nil }
        // An unfinished line behind whole ones may begin the next record: it is waited for, as far as it may be one.
        if at > first, at - first <= longest + 1, all.span.firstOffset(of: 10, from: at) == nil {
            guard all.count - at > longest + 1 else { return nil }
            if isStart(all.span.extracting(at..<at + longest)) {
                tried = at
                return .record(at - first)
            }
        }
        // Between two of its lines, if it has more than one.
        let count =
            at > first && at - first <= longest + 1
            ? at - first
            : unsafe all.withUnsafeBytes {
                unsafe TailedFile.cut(UnsafeRawBufferPointer(rebasing: $0[first...]), at: longest)
            }
        if policy != .split {
            isSkipping = true
            isInLine = all[first + count - 1] != 10
        }
        tried = first + count
        return .piece(count)
    }

    /// Forgets the first bytes: they are in a record.
    mutating func removeFirst(_ count: Int) {
        if bytes.capacity > Self.usualMemory, count > 0, bytes.count - count < Self.usualMemory / 2 {
            // What a long record needed is not kept for every file.
            bytes = Array(bytes[count...])
        } else {
            bytes.removeFirst(count)
        }
        tried = max(0, tried - count)
    }

    /// Bytes of a record without its line end.
    static func payload(_ bytes: ArraySlice<UInt8>) -> Int {
        guard bytes.last == 10 else { return bytes.count }
        return bytes.count - (bytes.dropLast().last == 13 ? 2 : 1)
    }
}
