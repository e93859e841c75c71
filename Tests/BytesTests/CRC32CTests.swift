import Bytes
import CCRC32C
import Seeded
import Testing

@Suite struct CRC32CTests {
    @Test func `the sums are those of RFC 3720, appendix B.4`() {
        #expect(CRC32C([UInt8](repeating: 0, count: 32).span).value == 0x8a91_36aa)
        #expect(CRC32C([UInt8](repeating: 0xff, count: 32).span).value == 0x62a8_ab43)
        #expect(CRC32C(Array(UInt8(0)...31).span).value == 0x46dd_794e)
        #expect(CRC32C(Array("123456789".utf8).span).value == 0xe306_9283)
        #expect(CRC32C([UInt8]().span).value == 0)
    }

    @Test func `the sum is the same by the processor's instruction and by the table, in any pieces`() {
        var random = Random()
        for _ in 0..<200 {
            let bytes = random.bytes(random.below(300))
            let expected = unsafe bytes.withUnsafeBytes {
                unsafe ccrc32c_update_portable(0, $0.baseAddress, $0.count)
            }
            var sum = CRC32C()
            var at = 0
            while at < bytes.count {
                let end = at + 1 + random.below(bytes.count - at)
                sum.update(bytes.span.extracting(at..<end))
                at = end
            }
            #expect(sum.value == expected, random.note)
        }
    }
}
