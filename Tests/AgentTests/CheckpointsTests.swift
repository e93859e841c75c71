import Agent
import Glibc
import Kinesis
import Platform
import Seeded
import Testing

@Suite struct CheckpointsTests {
    static func entry(_ inode: UInt64, at position: UInt64 = 0, input: String = "app") -> Checkpoints.Entry {
        var entry = Checkpoints.Entry(
            input: input,
            path: "/var/log/\"ä\n\(inode)",
            device: .max,
            inode: inode,
            position: position
        )
        (entry.headSize, entry.head) = (3, Fingerprint(of: Array("abc".utf8).span))
        return entry
    }

    static func end(_ position: UInt64) -> Checkpoints.Entry.End {
        .init(position: position, size: 2, hash: Fingerprint(of: Array("\(position)".utf8).span))
    }

    /// What a later run finds of an input, in order.
    static func found(_ folder: String, _ input: String = "app") throws -> [Checkpoints.Entry] {
        try Checkpoints(folder: folder).unclaimed(of: input).map(\.entry).sorted { $0.id < $1.id }
    }

    @Test func `what is written is read again, with its positions`() throws {
        let scratch = try Scratch()
        let first = try Checkpoints(folder: scratch.path)
        #expect(!first.hasSeen("app"))
        first.markSeen("app")
        let (a, b) = (first.open(Self.entry(1)), first.open(Self.entry(2, at: 7)))
        #expect(a != b)
        first.passed(a, Self.end(1 << 40))
        #expect(first.settle(a, at: 1 << 40))
        first.update(b, path: "/new", headSize: 9, head: .none)
        try first.writeIfChanged()
        #expect(first.settle(b, at: 100))
        // Not written: lost with the process.
        let second = try Checkpoints(folder: scratch.path)
        #expect(second.setAside == nil && second.torn == 0 && second.hasSeen("app") && !second.hasSeen("other"))
        let entries = try Self.found(scratch.path)
        var whole = Self.entry(1, at: 1 << 40)
        (whole.id, whole.end) = (a, Self.end(1 << 40))
        #expect(entries.first == whole)
        #expect(entries.last?.path == "/new" && entries.last?.headSize == 9 && entries.last?.position == 7)
        // The name under which it was met stays.
        #expect(entries.last?.name == Self.entry(2).path)
        #expect(try Self.found(scratch.path, "other") == [])
        // A number is never given again.
        #expect(second.open(Self.entry(3)) > b)
    }

    @Test func `a position only moves forward, and a closed source does not move`() throws {
        let checkpoints = try Checkpoints(folder: try Scratch().path)
        let source = checkpoints.open(Self.entry(1))
        #expect(checkpoints.settle(source, at: 9))
        #expect(checkpoints.settle(source, at: 5))
        #expect(checkpoints.entry(of: source)?.position == 9)
        checkpoints.close(source)
        #expect(!checkpoints.settle(source, at: 10))
        #expect(checkpoints.entry(of: source) == nil)
    }

    @Test func `an entry is claimed by its input and file, and kept for whoever has not`() throws {
        let scratch = try Scratch()
        let first = try Checkpoints(folder: scratch.path)
        _ = first.open(Self.entry(1, at: 5))
        _ = first.open(Self.entry(2, at: 6))
        _ = first.open(Self.entry(1, at: 8, input: "other"))
        try first.writeIfChanged()
        let second = try Checkpoints(folder: scratch.path)
        let known = second.unclaimed(of: "app", device: .max, inode: 1)
        #expect(known.map(\.entry.position) == [5] && known.first?.offset == 5)
        #expect(second.unclaimed(of: "app", device: 1, inode: 1) == [])
        second.claim(try #require(known.first).entry.id)
        #expect(second.unclaimed(of: "app", device: .max, inode: 1) == [])
        #expect(second.unclaimed(of: "app").map(\.entry.position) == [6])
        #expect(second.unclaimed(of: "other").map(\.entry.position) == [8])
        second.close(try #require(second.unclaimed(of: "app").first).entry.id)
        #expect(second.unclaimed(of: "app") == [])
        try second.writeIfChanged()
        #expect(try Self.found(scratch.path).map(\.position) == [5])
        #expect(try Self.found(scratch.path, "other").count == 1)
    }

    @Test func `an entry that goes over to another inode hides no other`() throws {
        let scratch = try Scratch()
        let first = try Checkpoints(folder: scratch.path)
        let sources = (1...9).map { first.open(Self.entry(UInt64($0))) }
        try first.writeIfChanged()
        let second = try Checkpoints(folder: scratch.path)
        #expect(second.unclaimed(of: "app", device: .max, inode: 4).map(\.entry.id) == [sources[3]])
        second.claim(sources[4])
        second.move(sources[4], to: "/var/log/copy", device: .max, inode: 100)
        for inode in 1...9 where inode != 5 {
            let found = second.unclaimed(of: "app", device: .max, inode: UInt64(inode))
            #expect(found.map(\.entry.id) == [sources[inode - 1]])
        }
    }

    @Test func `a source that is let go is claimed where its reading ended, while the lane goes on settling it`() throws
    {
        let checkpoints = try Checkpoints(folder: try Scratch().path)
        let sources = (0..<100).map { checkpoints.open(Self.entry(UInt64($0))) }
        var held = Set(sources)
        for round in 1...5 as ClosedRange<UInt64> {
            for source in held {
                checkpoints.passed(source, Self.end(round * 100))
                checkpoints.release(source, readTo: round * 100)
                #expect(checkpoints.settle(source, at: round * 50))
            }
            let released = held
            held = []
            #expect(checkpoints.unclaimed(of: "app").count == 100)
            for (index, source) in sources.enumerated() where index % 3 != 0 || round % 2 == 0 {
                let known = checkpoints.unclaimed(of: "app", device: .max, inode: UInt64(index))
                #expect(known.count == 1 && known.first?.entry.id == source)
                let readTo = (released.contains(source) ? round : round - 1) * 100
                #expect(known.first?.offset == readTo && known.first?.end == Self.end(readTo))
                checkpoints.claim(source)
                held.insert(source)
            }
            #expect(checkpoints.unclaimed(of: "app").count == 100 - held.count)
        }
    }

    @Test func `of what stands before a position the newest that it has passed is kept`() throws {
        var random = Random()
        let checkpoints = try Checkpoints(folder: try Scratch().path)
        let source = checkpoints.open(Self.entry(1))
        var (read, settled): (UInt64, UInt64) = (0, 0)
        for _ in 0..<2000 {
            if random.oneIn(2) {
                read += UInt64(1 + random.below(random.oneIn(10) ? 100_000 : 500))
                checkpoints.passed(source, Self.end(read))
                #expect(checkpoints.lastEnd(of: source) == Self.end(read))
            } else if settled < read {
                settled += UInt64(1 + random.below(Int(read - settled)))
                #expect(checkpoints.settle(source, at: settled))
            }
            let entry = try #require(checkpoints.entry(of: source))
            #expect(entry.end.position <= settled, random.note)
            // Within the largest block and the distance that is kept.
            #expect(settled - entry.end.position <= 100_000 + 64 << 10, random.note)
            if settled == read { #expect(entry.end.position == read, random.note) }
        }
    }

    @Test func `a missing file's entry goes after seven days by a clock that was set, and one found again stays`()
        throws
    {
        let scratch = try Scratch()
        let first = try Checkpoints(folder: scratch.path)
        _ = first.open(Self.entry(1))
        _ = first.open(Self.entry(2))
        try first.writeIfChanged()
        let day: UInt32 = 24 * 3600
        let start: UInt32 = 1_800_000_000
        func look(_ now: UInt32) throws -> Int {
            let checkpoints = try Checkpoints(folder: scratch.path)
            let gone = checkpoints.missing(checkpoints.unclaimed(of: "app").map(\.entry.id), now: now)
            try checkpoints.writeIfChanged()
            return gone
        }
        #expect(try look(7) == 0)
        #expect(try look(start) == 0)
        #expect(try look(start + 7 * day) == 0)
        #expect(try look(7) == 0)
        let found = try Checkpoints(folder: scratch.path)
        found.claim(try #require(found.unclaimed(of: "app", device: .max, inode: 2).first).entry.id)
        try found.writeIfChanged()
        #expect(try look(start + 7 * day + 1) == 1)
        #expect(try Self.found(scratch.path).map(\.inode) == [2])
        #expect(try look(start + 14 * day) == 0)
        #expect(try look(start + 15 * day) == 1)
    }

    @Test func `of missing files' entries only so many are kept, those that went last`() throws {
        let checkpoints = try Checkpoints(folder: try Scratch().path)
        let start: UInt32 = 1_800_000_000
        for inode in 0..<100_010 as Range<UInt64> {
            checkpoints.release(checkpoints.open(Self.entry(inode)), readTo: 0)
        }
        let all = checkpoints.unclaimed(of: "app").sorted { $0.entry.inode < $1.entry.inode }.map(\.entry.id)
        #expect(checkpoints.missing(Array(all[..<20]), now: start) == 0)
        #expect(checkpoints.missing(all, now: start + 1) == 10)
        #expect(checkpoints.unclaimed(of: "app").count == 100_000)
        #expect(checkpoints.unclaimed(of: "app", device: .max, inode: 30).count == 1)
    }

    /// A state file of several batches, what each left, and where each ends.
    static func batches(_ scratch: Scratch, _ count: Int) throws -> (bytes: [UInt8], ends: [Int], states: [[UInt64]]) {
        let checkpoints = try Checkpoints(folder: scratch.path)
        var sources: [UInt32] = []
        var (ends, states): ([Int], [[UInt64]]) = ([], [])
        for batch in 0..<count {
            sources.append(checkpoints.open(Self.entry(UInt64(batch))))
            for source in sources.suffix(3) { _ = checkpoints.settle(source, at: UInt64(batch * 10)) }
            if batch % 4 == 3 { checkpoints.close(sources.removeFirst()) }
            try checkpoints.writeIfChanged()
            ends.append(try Folder.read(scratch.path + "/checkpoints").count)
            states.append(sources.map { checkpoints.entry(of: $0)!.position })
        }
        return (try Folder.read(scratch.path + "/checkpoints"), ends, states)
    }

    @Test func `a torn end is cut at the last whole batch, wherever it is torn`() throws {
        let scratch = try Scratch()
        let (bytes, ends, states) = try Self.batches(scratch, 8)
        for size in ends[0]...bytes.count {
            try Folder.replace(scratch.path + "/checkpoints", with: Array(bytes[..<size]))
            let state = try Checkpoints(folder: scratch.path)
            let whole = ends.lastIndex { $0 <= size }!
            let positions = state.unclaimed(of: "app").map(\.entry).sorted { $0.id < $1.id }.map(\.position)
            #expect(positions == states[whole], "\(size)")
            #expect(state.setAside == nil && state.torn == size - ends[whole], "\(size)")
        }
        // What a crash left in place of the last batch's bytes.
        let zeros = [UInt8](repeating: 0, count: bytes.count - ends[6])
        try Folder.replace(scratch.path + "/checkpoints", with: Array(bytes[..<ends[6]]) + zeros)
        let state = try Checkpoints(folder: scratch.path)
        #expect(state.setAside == nil && state.torn == zeros.count)
        // The first write puts the file in order.
        try state.writeIfChanged()
        #expect(try Checkpoints(folder: scratch.path).torn == 0)
        #expect(try Self.found(scratch.path).map(\.position) == states[6])
    }

    @Test func `a file damaged before its last batch is set aside, and what stands before the damage is used`() throws {
        var random = Random()
        let scratch = try Scratch()
        let (bytes, ends, states) = try Self.batches(scratch, 8)
        for _ in 0..<300 {
            var bad = bytes
            let at = random.below(ends[5])
            // Another version is another case.
            if (20...22).contains(at) { continue }
            bad[at] ^= UInt8(1 << random.below(8))
            try Folder.replace(scratch.path + "/checkpoints", with: bad)
            let state = try Checkpoints(folder: scratch.path)
            let kept = try #require(state.setAside, random.note)
            #expect(try Folder.read(kept) == bad, random.note)
            try Folder.remove(kept)
            let whole = ends.firstIndex { $0 > at }! - 1
            let positions = state.unclaimed(of: "app").map(\.entry).sorted { $0.id < $1.id }.map(\.position)
            #expect(positions == (whole < 0 ? [] : states[whole]), random.note)
        }
    }

    @Test func `a damaged snapshot is set aside, whatever the damage`() throws {
        var random = Random()
        let scratch = try Scratch()
        let (good, _, _) = try Self.batches(scratch, 1)
        let path = scratch.path + "/checkpoints"
        for round in 0..<200 {
            var bad = good
            if round % 2 == 0 {
                bad.removeLast(1 + random.below(bad.count))
            } else {
                let at = random.below(bad.count)
                if (20...22).contains(at) { continue }
                bad[at] ^= UInt8(1 << random.below(8))
            }
            try Folder.replace(path, with: bad)
            let state = try Checkpoints(folder: scratch.path)
            let kept = try #require(state.setAside, random.note)
            #expect(try Folder.read(kept) == bad, random.note)
            #expect(state.unclaimed(of: "app") == [], random.note)
        }
    }

    @Test func `a newer version's file is refused and stays as it is`() throws {
        let scratch = try Scratch()
        let path = scratch.path + "/checkpoints"
        let text = Array("penstock-checkpoints 3 0000\nwhatever\n".utf8)
        try Folder.replace(path, with: text)
        #expect(throws: Checkpoints.Fault.newer(path: path, version: 3)) { try Checkpoints(folder: scratch.path) }
        #expect(try Folder.read(path) == text)
    }

    @Test func `a file of version 1 is read, and written as one of version 2`() throws {
        let scratch = try Scratch()
        let path = scratch.path + "/checkpoints"
        let sum = String(repeating: "0123456789abcdef", count: 4)
        let body =
            #"{"inputs":["app"],"files":[{"input":"app","path":"/a\"b","device":"18446744073709551615","inode":"7","#
            + #""head_size":12,"head_sha256":"\#(sum)","position":4096}]}"#
        let checksum = SHA256.hexadecimal(of: Array(body.utf8))
        try Folder.replace(path, with: Array("penstock-checkpoints 1 \(checksum)\n\(body)\n".utf8))
        let first = try Checkpoints(folder: scratch.path)
        #expect(first.hasSeen("app"))
        let known = try #require(first.unclaimed(of: "app", device: .max, inode: 7).first)
        #expect(known.entry.path == "/a\"b" && known.entry.position == 4096 && known.entry.headSize == 12)
        #expect(known.entry.head == Fingerprint(hexadecimal: sum) && known.entry.end.size == 0)
        first.claim(known.entry.id)
        #expect(first.settle(known.entry.id, at: 5000))
        try first.writeIfChanged()
        #expect(try Folder.read(path).starts(with: Array("penstock-checkpoints 2 ".utf8)))
        #expect(try Self.found(scratch.path).map(\.position) == [5000])
        // Damaged, it is set aside like any other.
        try Folder.replace(path, with: Array("penstock-checkpoints 1 \(checksum)\n\(body)}\n".utf8))
        #expect(try Checkpoints(folder: scratch.path).setAside != nil)
    }

    @Test func `a change costs its own line, until writing everything anew is no more`() throws {
        let scratch = try Scratch()
        let path = scratch.path + "/checkpoints"
        let checkpoints = try Checkpoints(folder: scratch.path)
        let sources = (0..<10_000 as Range<UInt64>).map { checkpoints.open(Self.entry($0)) }
        try checkpoints.writeIfChanged()
        let (snapshot, inode) = try (FileStatus(of: path).size, FileStatus(of: path).inode)
        #expect(checkpoints.settle(sources[4321], at: 5))
        try checkpoints.writeIfChanged()
        #expect(try FileStatus(of: path).size - snapshot < 500 && FileStatus(of: path).inode == inode)
        var (appends, largest) = (0, UInt64(0))
        for round in 0..<120 as Range<UInt64> {
            for source in sources[..<1000] { _ = checkpoints.settle(source, at: 10 + round) }
            try checkpoints.writeIfChanged()
            let size = try FileStatus(of: path).size
            if size > largest { appends += 1 }
            largest = max(largest, size)
        }
        #expect(appends > 5 && largest < 3 * snapshot)
        #expect(
            try Self.found(scratch.path).map(\.position) == (0..<10_000).map { $0 < 1000 ? 129 : $0 == 4321 ? 5 : 0 }
        )
    }

    @Test func `what could not be written is written by the next write, also behind a torn piece`() throws {
        let scratch = try Scratch()
        let first = try Checkpoints(folder: scratch.path)
        let source = first.open(Self.entry(1, at: 5))
        try first.writeIfChanged()
        try scratch.write("checkpoints.new", "penstock-check")
        #expect(try Self.found(scratch.path).map(\.position) == [5])
        // The folder is not where it was.
        try Folder.move(scratch.path, to: scratch.path + "-away")
        _ = first.settle(source, at: 6)
        #expect(throws: SystemError.self) { try first.writeIfChanged() }
        try Folder.move(scratch.path + "-away", to: scratch.path)
        try first.writeIfChanged()
        #expect(try Self.found(scratch.path).map(\.position) == [6])
        // Somebody else's bytes at its end.
        try scratch.write("checkpoints", "{\"id\":1,")
        _ = first.settle(source, at: 7)
        try first.writeIfChanged()
        _ = first.settle(source, at: 8)
        try first.writeIfChanged()
        #expect(try Checkpoints(folder: scratch.path).torn == 0)
        #expect(try Self.found(scratch.path).map(\.position) == [8])
        // Somebody removed it.
        scratch.remove("checkpoints")
        _ = first.settle(source, at: 9)
        try first.writeIfChanged()
        #expect(try Self.found(scratch.path).map(\.position) == [9])
    }
}
