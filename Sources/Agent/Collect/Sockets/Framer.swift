import Bytes

/// Cuts one connection's bytes into records, the same ones however the bytes arrive.
///
/// No IO.
///
/// - `newline`: a record ends with LF; a CR before it belongs to the end.
/// - `nul`: a record ends with NUL.
/// - `octet_counting` (RFC 6587): its size in decimal digits, a space, the record; line ends between records are passed over.
/// - `length_prefix`: its size in four bytes, the most significant first, and the record.
/// - `auto`: by the first bytes of the connection, octet counting where they are a size (digits, the first not 0, and a
///   space), else newline.
package struct Framer: Equatable {
    package typealias Framing = Configuration.SocketSettings.Framing

    /// What the next bytes are.
    package enum Step: Equatable {
        /// A record, or a piece of one that is too long; what follows begins at `next`.
        case record(Range<Int>, next: Int)
        /// A piece of a record that is too long, for the dead letters.
        case oversize(Range<Int>, next: Int)
        /// Bytes up to `next` that become no record.
        case skipped(next: Int)
        /// More must arrive first.
        case more
        /// What comes cannot be understood, and nothing behind it.
        case broken(Fault)
    }

    /// Why a connection's bytes make no sense.
    package enum Fault: Error, CustomStringConvertible {
        case noCount, leadingZero, tooLarge

        package var description: String {
            switch self {
            case .noCount:
                "an octet count is decimal digits and a space: the sender does not count octets, or has miscounted"
            case .leadingZero:
                "an octet count does not begin with 0: the sender does not count octets, or has miscounted"
            case .tooLarge:
                "a message of \(Framer.largest) bytes or more is announced: the sender frames in another way"
            }
        }
    }

    private enum Mode: Equatable {
        case undecided
        case delimited(by: UInt8)
        case octetCounting
        case lengthPrefix
    }

    private var mode: Mode
    private let longest: Int
    private let policy: Configuration.Oversize
    /// Bytes behind the record's start that hold no delimiter.
    private var searched = 0
    /// A record that is too long has begun, and its first piece is cut off.
    private var isInOversize = false
    /// Bytes of it that are still to come, where sizes are announced.
    private var left = 0

    /// Records that were too long, and bytes of them that were dropped, since somebody took the figures.
    package private(set) var oversize = 0
    package private(set) var truncated = 0

    /// A larger size is taken for something else than a size.
    static let largest = 1_000_000_000
    /// A longer number at a connection's beginning is not meant as a size, not even as a wrong one.
    private static let mostDigits = 20
    private static let lineFeed: UInt8 = 10, carriageReturn: UInt8 = 13, space: UInt8 = 32

    package init(_ framing: Framing, longest: Int, _ policy: Configuration.Oversize) {
        (self.longest, self.policy) = (longest, policy)
        mode =
            switch framing {
            case .auto: .undecided
            case .newline: .delimited(by: Self.lineFeed)
            case .nul: .delimited(by: 0)
            case .octetCounting: .octetCounting
            case .lengthPrefix: .lengthPrefix
            }
    }

    /// Whether the sender says beforehand how long each record is: then one that ends sooner is not whole.
    package var isCounted: Bool { mode == .octetCounting || mode == .lengthPrefix }

    package mutating func takeFigures() -> (oversize: Int, truncated: Int) {
        defer { (oversize, truncated) = (0, 0) }
        return (oversize, truncated)
    }

    /// What comes at `start`, where the last step ended.
    ///
    /// After `more` ask again with the same bytes and those that have come since.
    package mutating func next(in bytes: Span<UInt8>, from start: Int) -> Step {
        if mode == .undecided { decide(bytes, start) }
        switch mode {
        case .undecided: return .more
        case .delimited(let end): return nextDelimited(by: end, bytes, start)
        case .octetCounting: return isInOversize ? nextOfOversize(bytes, start) : nextCounted(bytes, start)
        case .lengthPrefix: return isInOversize ? nextOfOversize(bytes, start) : nextPrefixed(bytes, start)
        }
    }

    /// What is left when no more will come: what arrived of the last record is a record, too.
    ///
    /// Ask until it returns `more`.
    package mutating func last(in bytes: Span<UInt8>, from start: Int) -> Step {
        guard start < bytes.count else { return .more }
        let step = next(in: bytes, from: start)
        guard step == .more else { return step }
        switch mode {
        // A record in lines may well be digits.
        case .undecided, .delimited: return end(of: bytes, from: start)
        case .octetCounting, .lengthPrefix:
            guard !isInOversize else { return end(of: bytes, from: start) }
            let header = mode == .lengthPrefix ? 4 : Self.size(in: bytes, from: start).header
            guard header > 0, start + header < bytes.count else { return .skipped(next: bytes.count) }
            return end(of: bytes, from: start + header)
        }
    }

    private mutating func end(of bytes: Span<UInt8>, from start: Int) -> Step {
        let rest = start..<bytes.count
        if rest.count > longest { return cut(bytes, start) }
        defer { isInOversize = false }
        return isInOversize ? pieceOfOversize(rest, next: bytes.count) : .record(rest, next: bytes.count)
    }

    // MARK: by a delimiter

    private mutating func nextDelimited(by end: UInt8, _ bytes: Span<UInt8>, _ start: Int) -> Step {
        if isInOversize, policy == .truncate {
            let found = bytes.firstOffset(of: end, from: start)
            guard found != nil || start < bytes.count else { return .more }
            if found != nil { isInOversize = false }
            return skip(from: start, to: found.map { $0 + 1 } ?? bytes.count)
        }
        // The longest record has at most CR LF behind it.
        let window = min(bytes.count, start + longest + 2)
        let unseen = bytes.extracting(start + searched..<window)
        guard let found = unseen.firstOffset(of: end).map({ start + searched + $0 }) else {
            searched = window - start
            return searched < longest + 2 ? .more : cut(bytes, start)
        }
        let hasReturn = end == Self.lineFeed && found > start && bytes[found - 1] == Self.carriageReturn
        let content = start..<(hasReturn ? found - 1 : found)
        guard content.count <= longest else { return cut(bytes, start) }
        searched = 0
        defer { isInOversize = false }
        return isInOversize ? pieceOfOversize(content, next: found + 1) : .record(content, next: found + 1)
    }

    // MARK: by a size

    private mutating func nextCounted(_ bytes: Span<UInt8>, _ start: Int) -> Step {
        var at = start
        while at < bytes.count, bytes[at] == Self.lineFeed { at += 1 }
        if at > start { return .skipped(next: at) }
        let (header, size) = Self.size(in: bytes, from: start)
        if header > 0 { return whole(size, behind: header, bytes, start) }
        guard at < bytes.count else { return .more }
        if bytes[at] == UInt8(ascii: "0") { return .broken(.leadingZero) }
        while at < bytes.count, Self.isDigit(bytes[at]) { at += 1 }
        // A digit more than the largest size has.
        if size >= Self.largest { return .broken(.tooLarge) }
        return at < bytes.count ? .broken(.noCount) : .more
    }

    private mutating func nextPrefixed(_ bytes: Span<UInt8>, _ start: Int) -> Step {
        guard start + 4 <= bytes.count else { return .more }
        let size = (0..<4).reduce(0) { $0 << 8 | Int(bytes[start + $1]) }
        guard size < Self.largest else { return .broken(.tooLarge) }
        return whole(size, behind: 4, bytes, start)
    }

    /// The record of a size, once it is all there; the beginning of one that is too long at once.
    private mutating func whole(_ size: Int, behind header: Int, _ bytes: Span<UInt8>, _ start: Int) -> Step {
        let first = start + header
        if size > longest {
            left = size
            return bytes.count - first > longest ? cut(bytes, first) : .more
        }
        return bytes.count - first < size ? .more : .record(first..<first + size, next: first + size)
    }

    private mutating func nextOfOversize(_ bytes: Span<UInt8>, _ start: Int) -> Step {
        let here = min(left, bytes.count - start)
        if policy == .truncate {
            guard here > 0 else { return .more }
            left -= here
            isInOversize = left > 0
            return skip(from: start, to: start + here)
        }
        if left > longest { return here > longest ? cut(bytes, start) : .more }
        guard here == left else { return .more }
        left = 0
        isInOversize = false
        return pieceOfOversize(start..<start + here, next: start + here)
    }

    /// An octet count with the space behind it, and what it says; 0 bytes when there is none, with the digits' value or
    /// the largest size.
    private static func size(in bytes: Span<UInt8>, from start: Int) -> (header: Int, size: Int) {
        var (at, size) = (start, 0)
        while at < bytes.count, isDigit(bytes[at]) {
            if at == start, bytes[at] == UInt8(ascii: "0") { return (0, 0) }
            size = size * 10 + Int(bytes[at] - UInt8(ascii: "0"))
            at += 1
            if size >= largest { return (0, largest) }
        }
        return at > start && at < bytes.count && bytes[at] == space ? (at + 1 - start, size) : (0, size)
    }

    private static func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }

    private mutating func decide(_ bytes: Span<UInt8>, _ start: Int) {
        guard start < bytes.count else { return }
        var at = start
        while at < bytes.count, at - start < Self.mostDigits, Self.isDigit(bytes[at]), bytes[start] != UInt8(ascii: "0")
        {
            at += 1
        }
        guard at < bytes.count || at - start == Self.mostDigits else { return }
        let isCount = at > start && at - start < Self.mostDigits && bytes[at] == Self.space
        mode = isCount ? .octetCounting : .delimited(by: Self.lineFeed)
    }

    // MARK: too long

    /// Cuts off the first piece of a record that is longer than it may be.
    private mutating func cut(_ bytes: Span<UInt8>, _ start: Int) -> Step {
        let rest = bytes.extracting(start...)
        let piece = unsafe rest.withUnsafeBytes { unsafe TailedFile.cut($0, at: longest) }
        searched = 0
        if !isInOversize { oversize += 1 }
        isInOversize = true
        left = max(0, left - piece)
        return pieceOfOversize(start..<start + piece, next: start + piece)
    }

    private func pieceOfOversize(_ piece: Range<Int>, next: Int) -> Step {
        policy == .deadLetter ? .oversize(piece, next: next) : .record(piece, next: next)
    }

    private mutating func skip(from start: Int, to next: Int) -> Step {
        truncated += next - start
        return .skipped(next: next)
    }
}
