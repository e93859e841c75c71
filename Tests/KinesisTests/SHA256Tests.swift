import Kinesis
import Seeded
import Testing

@Suite struct SHA256Tests {
    /// Pieces of `bytes`, empty and short and long ones.
    private func message(of bytes: [UInt8], longest: Int, _ random: inout Random) -> [Range<Int>] {
        (0..<random.below(9)).map { _ in
            let start = random.below(bytes.count - longest)
            return start..<start + random.below(longest)
        }
    }

    private func alone(_ pieces: [Range<Int>], of bytes: [UInt8]) -> String {
        var sha = SHA256()
        for piece in pieces { sha.update(bytes.span.extracting(piece)) }
        return hexadecimalText(sha.finish().span)
    }

    @Test(.timeLimit(.minutes(1)))
    func
        `messages side by side have the sums that each has alone, however many they are and however they lie in memory`()
    {
        var random = Random()
        let bytes = random.bytes(200_000)
        var sha = SHA256()
        for _ in 0..<2_000 {
            let count = [1, 2, 3, 8, 9, 15, 16, 17, 40].randomElement(using: &random)!
            // Like calls, of nearly one size, or of all sizes.
            let longest = [3, 70, 130, 5_000, nil].randomElement(using: &random)!
            let messages = (0..<count).map { _ in
                message(of: bytes, longest: longest ?? 1 + random.below(3_000), &random)
            }
            let sums = unsafe bytes.withUnsafeBytes { bytes in
                unsafe sha.sums(
                    of: messages.map { unsafe $0.map { unsafe UnsafeRawBufferPointer(rebasing: bytes[$0]) } }
                )
            }
            #expect(sums.map { hexadecimalText($0.span) } == messages.map { alone($0, of: bytes) }, random.note)
        }
    }

    @Test func `a sum by itself is FIPS 180-4's`() {
        #expect(
            SHA256.hexadecimal(of: Array("abc".utf8))
                == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        )
    }
}
