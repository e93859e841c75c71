import Kinesis
import Seeded
import Testing

@Suite struct HashKeyTests {
    @Test(.enabled(if: Vectors.exist, Vectors.absent))
    func `a partition key's hash key is the one AWS's tools give it`() throws {
        let cases = try #require(Vectors.json("hashkeys.json").list)
        #expect(cases.count >= 10)
        let md5 = MD5()
        for vector in cases {
            let key = try #require(vector["pk"]?.string)
            let hash = HashKey(partitionKey: Array(key.utf8).span, md5)
            #expect(hash.description == vector["md5_decimal"]?.string, "\(key)")
            if let hex = vector["pk_hex"]?.string { #expect(Array(key.utf8) == Array(hex: hex)) }
        }
    }

    @Test func `reads back the decimal form it writes`() {
        var random = Random()
        for _ in 0..<2000 {
            let high = random.next() >> UInt64(random.below(64))
            let hash = HashKey(UInt128(high) << UInt128(random.below(65)) | UInt128(random.next()))
            #expect(HashKey(decimal: hash.description) == hash, random.note)
        }
        #expect(HashKey.highest.description == "340282366920938463463374607431768211455")
        #expect(HashKey(decimal: "340282366920938463463374607431768211455") == .highest)
        #expect(HashKey(decimal: "0") == .lowest)
    }

    @Test(arguments: [
        "", "00", "01", "+1", "-1", " 1", "1 ", "1a", "١", "0x10", "1.0", "340282366920938463463374607431768211456",
        "999999999999999999999999999999999999999", "3402823669209384634633746074317682114550",
    ])
    func `refuses what the API refuses`(text: String) {
        #expect(HashKey(decimal: text) == nil)
    }
}
