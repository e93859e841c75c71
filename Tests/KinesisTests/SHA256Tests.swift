import Bytes
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

    private func alone(_ pieces: [Range<Int>], of bytes: [UInt8], _ isBase64: (Range<Int>) -> Bool) -> String {
        var sha = SHA256()
        for piece in pieces {
            var text = ByteWriter()
            if isBase64(piece) { Base64.encode(bytes.span.extracting(piece), to: &text) }
            let part = isBase64(piece) ? text.array : Array(bytes[piece])
            sha.update(part.span)
        }
        return hexadecimalText(sha.finish().span)
    }

    @Test(.timeLimit(.minutes(1)), arguments: Set([SHA256.lanes, SHA256.mostLanes]))
    func
        `messages side by side have the sums that each has alone, however many they are and however they lie in memory`(
            lanes: Int
        )
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
            // None, all, or some of the pieces in base64.
            let share = random.below(3)
            func isBase64(_ piece: Range<Int>) -> Bool { share == 2 ? piece.lowerBound % 2 == 0 : share == 1 }
            let sums = unsafe bytes.withUnsafeBytes { bytes in
                sha.sums(
                    of: messages.map {
                        $0.map {
                            let piece = unsafe UnsafeRawBufferPointer(rebasing: bytes[$0])
                            return unsafe isBase64($0) ? BodyPiece(base64Of: piece) : BodyPiece(piece)
                        }
                    },
                    lanes: lanes
                )
            }
            let wanted = messages.map { alone($0, of: bytes, isBase64) }
            #expect(sums.map { hexadecimalText($0.span) } == wanted, random.note)
        }
    }

    @Test func `a sum by itself is FIPS 180-4's`() {
        #expect(
            SHA256.hexadecimal(of: Array("abc".utf8))
                == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        )
    }
}
