/// Which beginnings the tailed files have, or may have: a bit for each, so that the answer no is certain.
struct Openings {
    private var bits = [UInt64](repeating: 0, count: 1 << 14)

    init() {}

    init(_ openings: some Sequence<UInt32>) { for opening in openings { insert(opening) } }

    /// 0 is none.
    mutating func insert(_ opening: UInt32) {
        guard opening != 0 else { return }
        bits[Self.word(opening)] |= Self.bit(opening)
    }

    func mayHold(_ opening: UInt32) -> Bool { bits[Self.word(opening)] & Self.bit(opening) != 0 }

    // The lowest bit is always set.
    private static func word(_ opening: UInt32) -> Int { Int(opening >> 7 & 0x3fff) }
    private static func bit(_ opening: UInt32) -> UInt64 { 1 << UInt64(opening >> 1 & 63) }
}
