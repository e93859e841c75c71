/// Which beginnings the tailed files have, or may have: a bit for each, so that the answer no is certain.
struct Openings {
    private var bits = [UInt64](repeating: 0, count: 1 << 14)
    /// The beginning of one of them is not known, though it has one.
    private var mayHoldAny = false

    init() {}

    init(_ files: some Sequence<TailedFile>) { for file in files { insert(file) } }

    mutating func insert(_ file: TailedFile) {
        let opening = file.opening
        // One that was truncated while it was opened has only the head that the state file knows.
        guard opening != 0 else { return mayHoldAny = mayHoldAny || file.mark.headSize >= 32 }
        bits[Self.word(opening)] |= Self.bit(opening)
    }

    func mayHold(_ opening: UInt32) -> Bool { mayHoldAny || bits[Self.word(opening)] & Self.bit(opening) != 0 }

    // The lowest bit is always set.
    private static func word(_ opening: UInt32) -> Int { Int(opening >> 7 & 0x3fff) }
    private static func bit(_ opening: UInt32) -> UInt64 { 1 << UInt64(opening >> 1 & 63) }
}
