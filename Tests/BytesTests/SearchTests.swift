import Bytes
import Seeded
import Testing

@Suite struct SearchTests {
    @Test func `finds the first and the last of a byte, or none`() {
        var random = Random()
        for _ in 0..<2000 {
            let bytes = random.bytes(random.below(100)).map { $0 % 8 }
            let from = random.below(bytes.count + 1)
            let first = bytes.span.firstOffset(of: 3, from: from)
            #expect(first == bytes[from...].firstIndex(of: 3), random.note)
            let last = unsafe bytes.withUnsafeBytes { unsafe $0.lastOffset(of: 3) }
            #expect(last == bytes.lastIndex(of: 3), random.note)
        }
    }
}
