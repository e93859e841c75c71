import Agent
import Kinesis
import Platform
import Seeded
import Testing

@Suite struct DeadLettersTests {
    static func readBack(_ letter: DeadLetters.Letter) throws -> DeadLetters.Letter? {
        let scratch = try Scratch()
        var letters = DeadLetters(scratch["letters"], maxSize: 1 << 30)
        check(try letters.append(letter, milliseconds: 0))
        try letters.sync()
        let bytes = try Folder.read(DeadLetters.files(in: scratch["letters"])[0], limit: 1 << 30)
        #expect(bytes.last == 10 && bytes.dropLast().allSatisfy { $0 != 10 })
        return DeadLetters.read(bytes.dropLast())?.letter
    }

    @Test func `a letter is read back as it was, whatever is in it`() throws {
        var random = Random()
        let keys = [HashKey?.none, .lowest, .highest]
        for round in 0..<60 {
            let size = round == 0 ? 10 << 20 : random.below(3000)
            var letter = DeadLetters.Letter(
                reason: "because \"\(round)\"",
                input: "app",
                source: "/var/log/ä.log",
                first: random.next() >> 2,
                end: random.next() >> 2,
                data: random.oneIn(2) ? random.bytes(size) : [UInt8](repeating: UInt8(random.below(128)), count: size)
            )
            if random.oneIn(2) {
                let key = SealedAggregate.Key(partitionKey: Array("schlüssel".utf8), explicitHashKey: keys[round % 3])
                letter.sent = .init(records: 1 + random.below(900), key: key)
            }
            let back = try Self.readBack(letter)
            check(back == letter, random.note)
        }
    }

    @Test func `what takes six times its size as text is written in base64`() throws {
        let scratch = try Scratch()
        var letters = DeadLetters(scratch["letters"], maxSize: 1 << 30)
        let data = [UInt8](repeating: 0, count: 10 << 20)
        let letter = DeadLetters.Letter(reason: "r", input: "a", source: "s", first: 0, end: 1, data: data)
        check(try letters.append(letter, milliseconds: 0))
        #expect(try FileStatus(of: DeadLetters.files(in: scratch["letters"])[0]).size < 14 << 20)
    }
}
