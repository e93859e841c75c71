import Bytes
import Foundation
import Seeded
import Testing

@Suite struct BodyPieceTests {
    @Test(arguments: [false, true])
    func `a piece is written in parts of any size from any place, and nothing beside them`(isBase64: Bool) {
        var random = Random()
        for count in Array(0..<200) + [5_000, 50_000] {
            let bytes = random.bytes(count)
            let wanted = isBase64 ? [UInt8](Data(bytes).base64EncodedData()) : bytes
            unsafe bytes.withUnsafeBytes { bytes in
                let piece = unsafe isBase64 ? BodyPiece(base64Of: bytes) : BodyPiece(bytes)
                #expect(piece.count == wanted.count)
                for _ in 0..<50 {
                    let offset = random.below(wanted.count + 1)
                    let room = random.below(random.oneIn(2) ? 10 : wanted.count + 10)
                    var written = [UInt8](repeating: 0xaa, count: room + 64)
                    let size = unsafe written.withUnsafeMutableBytes {
                        unsafe piece.write(from: offset, to: UnsafeMutableRawBufferPointer(rebasing: $0[..<room]))
                    }
                    #expect(size == min(room, wanted.count - offset))
                    let isRight =
                        written[..<size] == wanted[offset..<offset + size] && written[size...].allSatisfy { $0 == 0xaa }
                    #expect(isRight, "\(size) from \(offset) of \(count), \(random.note)")
                }
            }
        }
    }
}
