import Bytes
import CMD5
import COpenSSL
import Kinesis
import Seeded
import Testing

@Suite struct MD5Tests {
    /// What this machine can do of the lanes.
    static let lanes = [cmd5_one, cmd5_four, cmd5_eight, cmd5_sixteen].filter { $0.rawValue <= cmd5_best().rawValue }

    static func sums(of messages: [[UInt8]], by lanes: cmd5_lanes) -> [[UInt8]] {
        let text = messages.flatMap(\.self) + [0]
        var sums = [UInt8](repeating: 0xaa, count: 16 * messages.count + 1)
        unsafe text.withUnsafeBytes { text in
            unsafe sums.withUnsafeMutableBytes { sums in
                var (list, at): ([cmd5_message], Int) = unsafe ([], 0)
                for (index, message) in messages.enumerated() {
                    let sum = unsafe sums.baseAddress! + 16 * index
                    unsafe list.append(cmd5_message(bytes: text.baseAddress! + at, count: message.count, sum: sum))
                    at += message.count
                }
                unsafe cmd5_sums(list, list.count, lanes)
            }
        }
        #expect(sums.last == 0xaa, "nothing is written behind the sums")
        return messages.indices.map { Array(sums[16 * $0..<16 * $0 + 16]) }
    }

    static func reference(_ message: [UInt8]) -> [UInt8] {
        var sum = [UInt8](repeating: 0, count: 16)
        unsafe EVP_Digest(message, message.count, &sum, nil, EVP_md5(), nil)
        return sum
    }

    @Test(arguments: lanes.indices)
    func `the sums are those of RFC 1321, appendix A.5`(index: Int) {
        let known = [
            "": "d41d8cd98f00b204e9800998ecf8427e",
            "a": "0cc175b9c0f1b6a831c399e269772661",
            "abc": "900150983cd24fb0d6963f7d28e17f72",
            "message digest": "f96b697d7cb7938d525a2f31aaf161d0",
            "abcdefghijklmnopqrstuvwxyz": "c3fcd3d76192e4007dfb496cca67e13b",
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789": "d174ab98d277d9f5a5611c2c9f419d9f",
            "12345678901234567890123456789012345678901234567890123456789012345678901234567890":
                "57edf4a22be3c955ac49da2e2107b67a",
        ]
        let texts = known.keys.sorted()
        let sums = Self.sums(of: texts.map { Array($0.utf8) }, by: Self.lanes[index])
        #expect(sums.map { hexadecimalText($0.span) } == texts.map { known[$0]! })
    }

    /// Where a message ends in its last block decides how many blocks the padding takes.
    @Test(arguments: lanes.indices)
    func `the sums of every length up to three blocks are OpenSSL's, together and alone`(index: Int) {
        var random = Random()
        let messages = (0...192).map { random.bytes($0) }
        let sums = Self.sums(of: messages, by: Self.lanes[index])
        #expect(sums == messages.map(Self.reference), random.note)
        for message in messages {
            #expect(Self.sums(of: [message], by: Self.lanes[index]) == [Self.reference(message)], random.note)
            let alone = MD5().sum(of: message.span)
            #expect(Array(alone.span) == Self.reference(message), random.note)
        }
    }

    @Test(arguments: lanes.indices)
    func `the sums of any number of messages of any lengths are OpenSSL's`(index: Int) {
        var random = Random()
        for _ in 0..<200 {
            let most = [100, 1000, 20_000].randomElement(using: &random)!
            let messages = (0..<random.below(40)).map { _ in random.bytes(random.below(most)) }
            #expect(
                Self.sums(of: messages, by: Self.lanes[index]) == messages.map(Self.reference),
                "\(Self.lanes[index].rawValue) lanes, \(random.note)"
            )
        }
    }

    @Test(arguments: lanes.indices)
    func `the sums of messages in blocks of their own are OpenSSL's, however many`(index: Int) {
        var random = Random()
        for count in 0...70 {
            let messages = (0..<count).map { _ in random.bytes(random.below(56)) }
            let blocks = messages.flatMap { message in
                var block = message + [0x80] + [UInt8](repeating: 0, count: 63 - message.count)
                block[56] = UInt8(truncatingIfNeeded: message.count * 8)
                block[57] = UInt8(message.count >> 5)
                return block
            }
            var sums = [UInt8](repeating: 0xaa, count: 16 * count + 1)
            unsafe cmd5_block_sums(blocks, count, &sums, Self.lanes[index])
            #expect(sums == messages.flatMap(Self.reference) + [0xaa], random.note)
        }
    }
}
