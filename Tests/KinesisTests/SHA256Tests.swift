import Kinesis
import Seeded
import Testing

@Suite struct SHA256Tests {
    @Test(.enabled(if: SHA256.canPair))
    func `two messages side by side have the sums that each has alone, however they lie in memory`() {
        var random = Random()
        let bytes = random.bytes(200_000)
        for _ in 0..<2_000 {
            let messages = (0..<2).map { _ -> [Range<Int>] in
                let longest = [3, 70, 130, 5_000].randomElement(using: &random)!
                return (0..<random.below(9)).map { _ in
                    let start = random.below(bytes.count - longest)
                    return start..<start + random.below(longest)
                }
            }
            let alone = messages.map { pieces in
                var sha = SHA256()
                for piece in pieces { sha.update(bytes.span.extracting(piece)) }
                return hexadecimalText(sha.finish().span)
            }
            let sums = unsafe bytes.withUnsafeBytes { bytes in
                unsafe SHA256.pair(
                    messages[0].map { unsafe UnsafeRawBufferPointer(rebasing: bytes[$0]) },
                    messages[1].map { unsafe UnsafeRawBufferPointer(rebasing: bytes[$0]) }
                )
            }
            #expect([hexadecimalText(sums.0.span), hexadecimalText(sums.1.span)] == alone, random.note)
        }
    }
}
