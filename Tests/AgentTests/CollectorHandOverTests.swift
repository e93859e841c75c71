import Agent
import Bytes
import Glibc
import Kinesis
import Logging
import Platform
import Synchronization
import Seeded
import Testing

@Suite struct CollectorHandOverTests {
    @Test func `a second collector goes on where the first one stopped reading, not where the lane has settled`() throws
    {
        var random = Random()
        let scratch = try Scratch()
        var expected: [String: [UInt8]] = [:]
        func write() throws {
            for file in 0..<30 {
                let name = "\(file).log"
                let bytes = FileCollectorTests.lines(random.below(200), &random) + (random.oneIn(3) ? [97, 98] : [])
                expected[name, default: []] += bytes
                try scratch.write(name, bytes)
            }
        }
        try write()
        var checkpoints: Checkpoints?
        var all: [UInt32: [UInt8]] = [:]
        for round in 0..<4 {
            // A small ring stops it anywhere; few open files close those that are read.
            let collecting = try Collecting(scratch, once: round == 3, ring: 1 << 19, checkpoints: checkpoints) {
                $0.maxRecord = 100_000
                $0.maxOpenFiles = 8
            }
            checkpoints = collecting.checkpoints
            if round < 3 {
                let wanted = random.below(400_000)
                _ = collecting.until(.milliseconds(300)) { collecting.bytes.count > wanted }
                if round == 1 { try scratch.move("3.log", to: "3.old") }
                collecting.stop()
            } else {
                #expect(collecting.finish())
            }
            #expect(!collecting.hasGap, random.note)
            for (source, content) in collecting.sources {
                #expect(content.first == UInt64(all[source, default: []].count), random.note)
                all[source, default: []] += content.bytes
                // Some of it is settled, some is under way.
                if random.oneIn(2) { collecting.checkpoints.settle(source, at: content.end / 2) }
            }
            if round < 2 { try write() }
            if round == 1 {
                // What was written to the new file by this name belongs to it.
                expected["3.log"] = nil
            }
        }
        for (source, bytes) in all {
            let entry = try #require(checkpoints?.entry(of: source))
            let name = String(entry.path.dropFirst(scratch.path.count + 1))
            if let wanted = expected.removeValue(forKey: name) { #expect(bytes == wanted, random.note) }
        }
        #expect(expected.values.allSatisfy { $0.isEmpty }, random.note)
    }

    @Test func `files are known again when their file system has got another device number`() throws {
        let scratch = try Scratch()
        for name in ["a", "b", "c"] { try scratch.write("\(name).log", "first of \(name)\n") }
        let first = try Collecting(scratch, once: true)
        #expect(first.finish() && first.sources.count == 3)
        for (source, content) in first.sources {
            first.checkpoints.settle(source, at: content.end)
            let entry = try #require(first.checkpoints.entry(of: source))
            first.checkpoints.move(source, to: entry.path, device: entry.device + 1, inode: entry.inode)
        }
        try first.checkpoints.writeIfChanged()
        for name in ["a", "b"] { try scratch.write("\(name).log", "second of \(name)\n") }
        try scratch.move("b.log", to: "b.log.1")
        // The inode and nothing else is that of before.
        scratch.cut("c.log", to: 0)
        try scratch.write("c.log", "another text\n")
        let second = try Collecting(scratch, once: true)
        #expect(second.finish())
        #expect(Set(second.text.split(separator: "\n")) == ["second of a", "second of b", "another text"])
    }

    @Test func `a file that the configuration asks for no more is left alone, and goes on when it asks again`() throws {
        let scratch = try Scratch()
        try scratch.write("a.log", "one\n")
        try scratch.write("b.log", "uno\n")
        let first = try Collecting(scratch, once: true)
        #expect(first.finish() && first.bytes.count == 8)
        for (source, content) in first.sources { first.checkpoints.settle(source, at: content.end) }
        try first.checkpoints.writeIfChanged()
        try scratch.write("a.log", "two\n")
        try scratch.write("b.log", "due\n")
        try scratch.move("b.log", to: "b.log.1")
        let second = try Collecting(scratch, once: true) { $0.exclude = [scratch["a.log"]] }
        #expect(second.finish() && second.text == "due\n")
        for (source, content) in second.sources { second.checkpoints.settle(source, at: content.end) }
        try second.checkpoints.writeIfChanged()
        let third = try Collecting(scratch, once: true)
        #expect(third.finish() && third.text == "two\n")
    }

    @Test func `without inotify, files are found, read, rotated and truncated by looking every second`() throws {
        let scratch = try Scratch()
        try scratch.write("a.log", "one\n")
        let collecting = try Collecting(scratch, watches: false) { $0.paths = [scratch.path + "/*.log"] }
        #expect(collecting.until { collecting.text == "one\n" })
        try scratch.write("a.log", "two\n")
        #expect(collecting.until { collecting.text == "one\ntwo\n" })
        try scratch.move("a.log", to: "a.log.1")
        try scratch.write("a.log.1", "three\n")
        try scratch.write("a.log", "four\n")
        #expect(collecting.until { collecting.bytes.count == 19 })
        scratch.cut("a.log", to: 0)
        #expect(collecting.until { collecting.counters.collectors.filesTruncated.now == 1 })
        try scratch.write("a.log", "five\n")
        #expect(collecting.until { collecting.text.hasSuffix("five\n") })
        #expect(
            Set(collecting.sources.values.map { String(decoding: $0.bytes, as: UTF8.self) }) == [
                "one\ntwo\nthree\n", "four\n", "five\n",
            ]
        )
    }

    @Test func `the rest of a line that was cut stays dropped after a restart`() throws {
        let scratch = try Scratch()
        let long = String(repeating: "x", count: 300_000)
        try scratch.write("a.log", "before\n" + long)
        func change(_ input: inout Configuration.Input) {
            input.maxRecord = 1000
            input.onOversize = .truncate
        }
        let first = try Collecting(scratch, change)
        #expect(first.until { first.counters.collectors.bytesTruncated.now > 100_000 })
        first.stop()
        let source = try #require(first.order.first)
        first.checkpoints.settle(source, at: try #require(first.sources[source]).end)
        try first.checkpoints.writeIfChanged()
        try scratch.write("a.log", "still the long line\nafter\n")
        let second = try Collecting(scratch, once: true, change)
        #expect(second.finish())
        #expect(second.text == "after\n")
        // A line that is merely not finished is not one that was cut.
        try scratch.write("a.log", "half")
        let third = try Collecting(scratch, once: true, change)
        #expect(third.finish() && third.text.hasSuffix("half"))
    }
}
