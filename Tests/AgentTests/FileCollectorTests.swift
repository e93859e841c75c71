import Agent
import Bytes
import Glibc
import Kinesis
import Logging
import Platform
import Synchronization
import Seeded
import Testing

@Suite struct FileCollectorTests {
    static func lines(_ count: Int, _ random: inout Random) -> [UInt8] {
        (0..<count).flatMap { Array("line \($0) \(String(repeating: "é", count: random.below(150)))\n".utf8) }
    }

    @Test func `every byte of many files comes exactly once, whatever the ring's size`() throws {
        var random = Random()
        for ring in [1 << 19, 2 << 20] {
            let scratch = try Scratch()
            var expected: [String: [UInt8]] = [:]
            for file in 0..<20 {
                let bytes = Self.lines(random.below(5000), &random)
                expected["\(file).log"] = bytes
                try scratch.write("\(file).log", bytes)
            }
            let collecting = try Collecting(scratch, once: true, ring: ring) { $0.maxRecord = 100_000 }
            #expect(collecting.finish())
            #expect(!collecting.hasGap, random.note)
            for source in collecting.order {
                let entry = try #require(collecting.checkpoints.entry(of: source))
                let name = entry.path.split(separator: "/").last.map(String.init) ?? ""
                #expect(collecting.sources[source]?.bytes == expected[name], random.note)
                expected[name] = nil
            }
            #expect(expected.values.allSatisfy { $0.isEmpty }, random.note)
        }
    }

    @Test func `once, an unfinished last line is a line too`() throws {
        let scratch = try Scratch()
        try scratch.write("a.log", "one\ntwo")
        try scratch.write("b.log", "")
        try scratch.write("c.log", "\n\nthree")
        try scratch.write("d.txt", "not mine\n")
        let collecting = try Collecting(scratch, once: true)
        #expect(collecting.finish())
        #expect(collecting.text == "one\ntwo\n\nthree")
        #expect(!collecting.hasGap)
    }

    @Test func `an unfinished last line is kept until it is finished`() throws {
        let scratch = try Scratch()
        try scratch.write("a.log", "one\ntw")
        let collecting = try Collecting(scratch)
        #expect(collecting.until { collecting.text == "one\n" })
        try scratch.write("a.log", "o")
        Machine.sleep(.milliseconds(200))
        collecting.drain()
        #expect(collecting.text == "one\n")
        try scratch.write("a.log", "\nthree")
        #expect(collecting.until { collecting.text == "one\ntwo\n" })
        #expect(collecting.stop() < .seconds(1))
        #expect(collecting.text == "one\ntwo\n")
    }

    @Test(arguments: [Configuration.Oversize.split, .truncate], [1000, 200_000])
    func `a line of 3 MB comes in pieces that tear no character`(policy: Configuration.Oversize, longest: Int) throws {
        let scratch = try Scratch()
        let line = String(repeating: "aé漢😀", count: 300_000)
        try scratch.write("a.log", "before\n" + line + "\nafter\n")
        let collecting = try Collecting(scratch, once: true) {
            $0.maxRecord = longest
            $0.onOversize = policy
        }
        #expect(collecting.finish())
        let source = try #require(collecting.sources.values.first)
        #expect(!source.gap && source.end == UInt64(14 + line.utf8.count))
        let text = collecting.text
        #expect(text.hasPrefix("before\na") && text.hasSuffix("after\n"))
        #expect(collecting.records.allSatisfy { $0.count <= longest && String(validating: $0, as: UTF8.self) != nil })
        if policy == .split {
            #expect(text == "before\n" + line + "\nafter\n")
        } else {
            #expect(source.bytes.count + source.skipped == Int(source.end))
            #expect(source.bytes.count <= 14 + longest)
        }
    }

    @Test func `bytes that are no text come as they are`() throws {
        var random = Random()
        let scratch = try Scratch()
        let bytes = random.bytes(900_000) + [UInt8](repeating: 0x80, count: 400_000) + [0, 10, 13, 10]
        try scratch.write("a.log", bytes)
        let collecting = try Collecting(scratch, once: true) { $0.maxRecord = 150_000 }
        #expect(collecting.finish())
        #expect(collecting.bytes == bytes && !collecting.hasGap, random.note)
    }

    @Test func `a file that is rotated while it is read is finished, and its successor follows`() throws {
        let scratch = try Scratch()
        let collecting = try Collecting(scratch) { $0.paths = [scratch.path + "/app.log"] }
        var expected = ""
        for round in 0..<5 {
            for line in 0..<1000 {
                let text = "round \(round) line \(line)\n"
                try scratch.write("app.log", text)
                expected += text
                // A file that comes and goes between two looks is never seen.
                if line == 0 { #expect(collecting.until { collecting.bytes.count == expected.utf8.count }) }
            }
            try scratch.move("app.log", to: "app.log.\(round)")
            // Its writer has not noticed yet.
            try scratch.write("app.log.\(round)", "late \(round)\n")
            expected += "late \(round)\n"
            #expect(collecting.until { collecting.bytes.count == expected.utf8.count })
        }
        #expect(collecting.text == expected)
        #expect(!collecting.hasGap && collecting.sources.count == 5)
        #expect(collecting.counters.collectors.filesRotated.now == 5)
    }

    @Test func `a file created late is read from its start, although others began at their end`() throws {
        let scratch = try Scratch()
        try scratch.write("old.log", "not this\n")
        let collecting = try Collecting(scratch) { $0.startAt = .end }
        #expect(collecting.until { collecting.counters.collectors.filesOpen.now == 1 })
        try scratch.write("new.log", "this\n")
        try scratch.write("old.log", "that\n")
        #expect(collecting.until { collecting.bytes.count == 10 })
        #expect(collecting.text == "this\nthat\n" || collecting.text == "that\nthis\n")
    }

    @Test func `a file that shrinks is read from its start, as another source`() throws {
        let scratch = try Scratch()
        try scratch.write("a.log", "one\ntwo\n")
        let collecting = try Collecting(scratch)
        #expect(collecting.until { collecting.text == "one\ntwo\n" })
        scratch.cut("a.log", to: 0)
        try scratch.write("a.log", "new\n")
        #expect(collecting.until { collecting.text == "one\ntwo\nnew\n" })
        #expect(collecting.sources.count == 2 && collecting.counters.collectors.filesTruncated.now == 1)
        // Within an unfinished line there is nothing to begin again.
        try scratch.write("a.log", "unfinished")
        Machine.sleep(.milliseconds(100))
        scratch.cut("a.log", to: 6)
        try scratch.write("a.log", "x\n")
        #expect(collecting.until { collecting.text == "one\ntwo\nnew\nunx\n" })
    }

    @Test(arguments: ["app.log", "app.log*"])
    func `a file that was met empty and is not read to its end before it is truncated goes on in its copy`(
        pattern: String
    ) throws {
        let scratch = try Scratch()
        try scratch.write("app.log", "")
        let collecting = try Collecting(scratch, ring: 1 << 20) { $0.paths = [scratch.path + "/" + pattern] }
        #expect(collecting.until { collecting.counters.collectors.filesOpen.now == 1 })
        let text = (0..<200_000).map { "line \($0) of a file that is longer than the ring\n" }.joined()
        try scratch.write("app.log", text)
        #expect(collecting.until { collecting.bytes.count > 0 })
        try scratch.write("app.log.1", text)
        // Time to meet the copy, where the pattern asks for it.
        #expect(collecting.until { collecting.bytes.count > 4 << 20 })
        scratch.cut("app.log", to: 0)
        #expect(collecting.until { collecting.bytes.count >= text.utf8.count })
        try scratch.write("app.log", "new\n")
        #expect(collecting.until { collecting.bytes.count >= text.utf8.count + 4 })
        #expect(collecting.text == text + "new\n" && !collecting.hasGap)
        #expect(collecting.sources.count == 2 && collecting.counters.collectors.bytesLost.now == 0)
    }

    @Test func `a file that is truncated twice while the ring is full goes on in both copies`() throws {
        let scratch = try Scratch()
        func lines(_ word: String, _ count: Int) -> [UInt8] {
            Array((0..<count).map { "\(word) \($0) of a file that waits for room\n" }.joined().utf8)
        }
        let (first, second) = (lines("first", 100_000), lines("second", 1000))
        try scratch.write("a.log", first)
        // Nobody drains.
        let collecting = try Collecting(scratch, ring: 1 << 20)
        func wait(_ condition: () -> Bool) -> Bool {
            for _ in 0..<1000 where !condition() { Machine.sleep(.milliseconds(20)) }
            return condition()
        }
        func isKnown() -> Bool {
            (0..<8).contains {
                collecting.checkpoints.entry(of: $0).map { $0.path.hasSuffix("/a.log") && $0.headSize > 0 } ?? false
            }
        }
        #expect(wait(isKnown))
        try scratch.write("a.log.1", first)
        scratch.cut("a.log", to: 0)
        #expect(wait { collecting.counters.collectors.filesTruncated.now == 1 && !isKnown() })
        try scratch.write("a.log", second)
        #expect(wait(isKnown))
        try scratch.write("a.log.2", second)
        scratch.cut("a.log", to: 0)
        #expect(collecting.until { collecting.bytes.count >= first.count + second.count })
        #expect(collecting.bytes == first + second)
        #expect(collecting.counters.collectors.bytesLost.now == 0)
    }

    @Test func `what was truncated before it was read is counted, once, and nothing where nothing was`() throws {
        let scratch = try Scratch()
        func lines(_ word: String, _ count: Int) -> [UInt8] {
            Array((0..<count).map { "\(word) \($0) of a file that waits for room\n" }.joined().utf8)
        }
        let (small, first, second) = (lines("small", 100), lines("first", 100_000), lines("second", 400))
        try scratch.write("a.log", small)
        let collecting = try Collecting(scratch, ring: 1 << 20)
        func lost() -> Int { collecting.counters.collectors.bytesLost.now }
        #expect(collecting.until { collecting.bytes.count == small.count })
        // Read to its end, truncated, and longer than before when it is looked at.
        scratch.cut("a.log", to: 0)
        try scratch.write("a.log", second)
        #expect(collecting.until { collecting.bytes.count == small.count + second.count })
        #expect(lost() == 0)
        // Nobody drains. Met when it is whole: what nobody saw is not known to have been there.
        try scratch.write("b", first)
        try scratch.move("b", to: "b.log")
        Machine.sleep(.milliseconds(500))
        scratch.cut("b.log", to: 0)
        Machine.sleep(.milliseconds(500))
        try scratch.write("b.log", small)
        let all = small.count + second.count
        let taken = { collecting.bytes.count - all }
        #expect(
            collecting.until {
                collecting.counters.collectors.filesTruncated.now == 2
                    && collecting.bytes.suffix(small.count).elementsEqual(small)
            }
        )
        #expect(lost() == first.count - (taken() - small.count))
    }

    @Test func `a deleted file is read to its end, and what its writer still writes too`() throws {
        let scratch = try Scratch()
        let file = try AppendedFile(scratch["a.log"])
        func write(_ text: String) -> Bool { file.append(Array(text.utf8).span) }
        var isWritten = write("one\n")
        let collecting = try Collecting(scratch)
        #expect(collecting.until { collecting.text == "one\n" })
        isWritten = write("two\n")
        scratch.remove("a.log")
        #expect(collecting.until { collecting.text == "one\ntwo\n" })
        isWritten = write("three\nfour") && isWritten
        #expect(isWritten)
        #expect(collecting.until { collecting.text == "one\ntwo\nthree\nfour" })
        #expect(collecting.until(.seconds(30)) { collecting.counters.collectors.filesOpen.now == 0 })
        #expect(collecting.checkpoints.entry(of: collecting.order[0]) == nil)
    }

    @Test func `after a restart it goes on where it was, also in a file renamed meanwhile`() throws {
        let scratch = try Scratch()
        try scratch.write("a.log", "one\n")
        try scratch.write("b.log", "uno\n")
        func run(_ expected: Set<String>) throws {
            let collecting = try Collecting(scratch) { $0.startAt = .end }
            let wanted = expected.reduce(0) { $0 + $1.utf8.count }
            #expect(
                collecting.until {
                    collecting.bytes.count >= wanted && collecting.counters.collectors.filesOpen.now > 0
                }
            )
            collecting.stop()
            #expect(Set(collecting.sources.values.map { String(decoding: $0.bytes, as: UTF8.self) }) == expected)
            for (source, content) in collecting.sources { _ = collecting.checkpoints.settle(source, at: content.end) }
            try collecting.checkpoints.writeIfChanged()
        }
        try run([])
        try scratch.write("a.log", "two\n")
        try scratch.write("c.log", "came while nobody looked\n")
        try run(["two\n", "came while nobody looked\n"])
        try scratch.write("a.log", "three\n")
        try scratch.move("a.log", to: "a.log.1")
        try scratch.write("a.log", "four\n")
        scratch.remove("b.log")
        try run(["three\n", "four\n"])
        scratch.cut("a.log", to: 0)
        try scratch.write("a.log", "5\n")
        try run(["5\n"])
    }

    @Test func `a file that only has the inode of one that is gone is left alone, unless a pattern asks for it`() throws
    {
        let scratch = try Scratch()
        try scratch.write("a.log", "one\n")
        let first = try Collecting(scratch)
        #expect(first.until { first.text == "one\n" })
        first.stop()
        try first.checkpoints.writeIfChanged()
        // The same inode with another content, under a name that is nobody's business.
        try scratch.move("a.log", to: "private.txt")
        scratch.cut("private.txt", to: 0)
        try scratch.write("private.txt", "secret and longer than before\n")
        let second = try Collecting(scratch, once: true)
        #expect(second.finish())
        #expect(second.text == "")
    }

    @Test func `a folder or FIFO in place of a file, and a file that cannot be opened, hold nobody up`() throws {
        let scratch = try Scratch()
        try Folder.create(scratch["folder.log"])
        unsafe #expect(mkfifo(scratch["fifo.log"], 0o600) == 0)
        try scratch.link("broken.log", to: "/no/such/file")
        try scratch.link("loop.log", to: "loop.log")
        try scratch.write("good.log", "good\n")
        let collecting = try Collecting(scratch)
        #expect(collecting.until { collecting.text == "good\n" })
        #expect(collecting.counters.collectors.errors.now == 3)
        // What becomes readable is read.
        scratch.remove("loop.log")
        try scratch.write("loop.log", "late\n")
        #expect(collecting.until { collecting.text == "good\nlate\n" })
        #expect(collecting.stop() < .seconds(1))
    }

    @Test func `a file with a backlog leaves room for those behind it while the ring is full`() throws {
        let scratch = try Scratch()
        try scratch.write("a.log", [UInt8](repeating: 97, count: 99).flatMap { _ in [UInt8(97), 10] })
        let big = [UInt8](repeating: 10, count: 40 << 20)
        try scratch.write("a.log", big)
        try scratch.write("b.log", "b\n")
        try scratch.write("c.log", "c\n")
        let collecting = try Collecting(scratch)
        // The lane is slow: half a ring at a time, as soon as the collector sleeps.
        var taken = 0
        while collecting.sources.count < 3, taken < 200 {
            collecting.drain()
            Machine.sleep(.milliseconds(5))
            taken += 1
        }
        let drained = collecting.bytes.count
        #expect(collecting.sources.count == 3 && drained < 20 << 20, "after \(drained) bytes")
        collecting.stop()
    }

    @Test func `while nobody drains the ring the collector sleeps, also when half of it is free, and stops at once`()
        throws
    {
        let scratch = try Scratch()
        let lines = [UInt8](repeating: 10, count: 1250 << 10)
        try scratch.write("a.log", lines)
        let collecting = try Collecting(scratch, thread: "sleeper")
        let end = Instant.now + .seconds(20)
        while collecting.feed.ring.waiting < lines.count, .now < end { Machine.sleep(.milliseconds(5)) }
        collecting.drain()
        #expect(collecting.feed.ring.waiting < 1 << 20)
        // It needs 1 MiB in one piece: there is half of a ring, but in two.
        let long = [UInt8](repeating: 97, count: 900 << 10) + [10]
        try scratch.write("a.log", long)
        Machine.sleep(.milliseconds(300))
        let before = Machine.cpuTime(ofThreadsNamed: "sleeper")
        Machine.sleep(.seconds(1))
        #expect(Machine.cpuTime(ofThreadsNamed: "sleeper") - before < .milliseconds(200))
        #expect(collecting.until { collecting.bytes.count == lines.count + long.count })
        try scratch.write("a.log", [UInt8](repeating: 10, count: 4 << 20))
        Machine.sleep(.milliseconds(300))
        #expect(collecting.stop() < .seconds(1))
        #expect(!collecting.hasGap)
    }
}
