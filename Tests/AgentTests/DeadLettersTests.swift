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

    private static func letter(_ data: String) -> DeadLetters.Letter {
        DeadLetters.Letter(reason: "r", input: "a", source: "s", first: 0, end: 1, data: Array(data.utf8))
    }

    private static func texts(_ folder: String) throws -> [String] {
        try DeadLetters.files(in: folder).flatMap { file in
            try Folder.read(file, limit: 1 << 20).split(separator: 10).map {
                String(decoding: try #require(DeadLetters.read(Array($0))).letter.data, as: UTF8.self)
            }
        }
    }

    @Test func `what comes behind a file that was taken away is where it is looked for`() throws {
        let scratch = try Scratch()
        let folder = scratch["letters"]
        var letters = DeadLetters(folder, maxSize: 1 << 20)
        check(try letters.append(Self.letter("first"), milliseconds: 0))
        try letters.sync()
        try Folder.move(DeadLetters.files(in: folder)[0], to: scratch["elsewhere"])
        check(try letters.append(Self.letter("second"), milliseconds: 1))
        try letters.sync()
        #expect(try Self.texts(folder) == ["second"])
        try Folder.remove(DeadLetters.files(in: folder)[0])
        check(try letters.append(Self.letter("third"), milliseconds: 2))
        try letters.sync()
        // As a rotation that copies does.
        scratch.cut("letters/1970-01-01.jsonl", to: 0)
        check(try letters.append(Self.letter("third again"), milliseconds: 2))
        try letters.sync()
        #expect(try Self.texts(folder) == ["third again"])
        // Not looked at before it is safe: it might be taken back, and must not be in two files.
        check(try letters.append(Self.letter("fourth"), milliseconds: 2))
        try letters.sync()
        #expect(try Self.texts(folder) == ["third again", "fourth"])
    }

    @Test func `files that are taken away make room for others`() throws {
        let scratch = try Scratch()
        let folder = scratch["letters"]
        let (text, day) = (String(repeating: "x", count: 400), 86_400_000 as Int64)
        var letters = DeadLetters(folder, maxSize: 2000)
        check(try letters.append(Self.letter(text), milliseconds: 0))
        check(try letters.append(Self.letter(text), milliseconds: 0))
        check(try letters.append(Self.letter(text), milliseconds: day))
        try letters.sync()
        let isRefused = try !letters.append(Self.letter(text), milliseconds: day)
        #expect(isRefused)
        try Folder.remove(DeadLetters.files(in: folder)[0])
        // The files are not counted for each record that finds no room.
        let isStillRefused = try !letters.append(Self.letter(text), milliseconds: day + 1)
        #expect(isStillRefused)
        check(try letters.append(Self.letter(text), milliseconds: day + 1000))
        check(try letters.append(Self.letter(text), milliseconds: day + 1000))
        let isFullAgain = try !letters.append(Self.letter(text), milliseconds: day + 1000)
        #expect(isFullAgain)
    }
}
