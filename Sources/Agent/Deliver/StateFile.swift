import Bytes
import Kinesis
import Platform

// Concurrency: belongs to whoever writes the state; reading needs nobody.

/// The state file: a header, a snapshot of all entries, then batches of those that have changed since.
///
///     penstock-checkpoints 2 5f0c…
///     {"inputs":["app"]}
///     {"id":1,"input":"app","path":"/var/log/app.log",…,"position":4096,…}
///     {"batch":0,"sha256":"…"}
///     {"id":1,"position":8192,…}
///     {"batch":1,"sha256":"…"}
///
/// A line sets what it names of one entry. A batch counts from its first line to the one that closes it with its number
/// and its checksum, or not at all; it is on disk before the next is written. Header and snapshot are the first batch.
final class StateFile {
    static let version = 2
    private static let magic = "penstock-checkpoints"
    /// Bytes appended before the file is written anew, however small its snapshot is.
    private static let leastGrowth = 256 << 10

    private let path: String
    private let generation: String
    private let file: AppendedFile
    private let identity: FileStatus
    private var nextBatch = 0
    private let snapshotBytes: Int
    private var bytes: Int
    private var sha = SHA256()

    // MARK: writing

    /// Writes a new file in place of the one at `path`: first beside it, then renamed.
    ///
    /// - Parameter fill: appends the next piece of the snapshot's lines; false when there are no more.
    init(_ path: String, _ fill: (inout ByteWriter) -> Bool) throws(SystemError) {
        let temporary = path + ".new"
        try? Folder.remove(temporary)
        let file = try AppendedFile(temporary)
        let generation = String(UInt64.random(in: .min ... .max), radix: 16)
        var sha = SHA256()
        var room = ByteWriter(capacity: 64 << 10)
        room.append(text: "\(Self.magic) \(Self.version) \(generation)\n")
        let bytes = try Self.write(batch: 0, of: generation, &sha, file, temporary, &room, fill)
        try Folder.move(temporary, to: path)
        try Folder.sync(Folder.parent(of: path))
        identity = try file.status(path)
        (self.path, self.generation) = (path, generation)
        self.file = file
        (self.snapshotBytes, self.bytes, nextBatch) = (bytes, bytes, 1)
    }

    /// Whether what was appended takes more room than writing everything anew would.
    var isOutgrown: Bool { bytes - snapshotBytes > max(snapshotBytes, Self.leastGrowth) }

    /// Whether the file is where it was, and as long: somebody may have moved it or its folder, and what is appended then
    /// would be found by nobody.
    var isInPlace: Bool {
        guard let now = try? FileStatus(of: path) else { return false }
        return now.device == identity.device && now.inode == identity.inode && now.size == UInt64(bytes)
    }

    /// Appends one batch; when this fails, the file must be written anew before anything else is appended.
    ///
    /// - Parameter fill: appends the next piece of its lines; false when there are no more.
    func append(_ fill: (inout ByteWriter) -> Bool) throws(SystemError) {
        var room = ByteWriter(capacity: 64 << 10)
        bytes += try Self.write(batch: nextBatch, of: generation, &sha, file, path, &room, fill)
        nextBatch += 1
    }

    /// Writes one batch, behind what is in `room` already, and returns its size once it is on disk.
    private static func write(
        batch: Int,
        of generation: String,
        _ sha: inout SHA256,
        _ file: borrowing AppendedFile,
        _ path: String,
        _ room: inout ByteWriter,
        _ fill: (inout ByteWriter) -> Bool
    ) throws(SystemError) -> Int {
        begin(batch: batch, of: generation, &sha)
        var bytes = 0
        var goesOn = true
        while goesOn {
            goesOn = fill(&room)
            if goesOn, room.count < 32 << 10 { continue }
            room.withBytes { sha.update($0) }
            if !goesOn { close(batch: batch, &sha, &room) }
            try file.appendAll(room, path)
            bytes += room.count
            room.clear()
        }
        try file.sync(path)
        return bytes
    }

    /// A batch's sum covers its file and its number too, so that it counts nowhere else.
    private static func begin(batch: Int, of generation: String, _ sha: inout SHA256) {
        sha.update(Array("\(generation) \(batch)\n".utf8).span)
    }

    private static func close(batch: Int, _ sha: inout SHA256, _ out: inout ByteWriter) {
        out.append(text: "{\"batch\":\(batch),\"sha256\":\"\(hexadecimalText(sha.finish().span))\"}\n")
    }

    /// Appends the line that names the inputs which have looked at their files.
    static func write(inputs: Set<String>, to out: inout ByteWriter) {
        let names = inputs.sorted().map { WireValue.text($0) }
        WireFormat.json.write(.object(["inputs": .list(names)]), to: &out)
        out.append("\n")
    }

    /// Appends an entry's line; without what tells its file from others if only its position has changed.
    static func write(_ entry: Checkpoints.Entry, whole: Bool, to out: inout ByteWriter) {
        out.append(text: "{\"id\":\(entry.id)")
        if whole {
            out.append(",\"input\":")
            WireFormat.json.write(.text(entry.input), to: &out)
            out.append(",\"path\":")
            WireFormat.json.write(.text(entry.path), to: &out)
            if entry.name != entry.path {
                out.append(",\"name\":")
                WireFormat.json.write(.text(entry.name), to: &out)
            }
            out.append(text: ",\"device\":\"\(entry.device)\",\"inode\":\"\(entry.inode)\"")
            out.append(text: ",\"head_size\":\(entry.headSize),\"head_sha256\":\"\(entry.head.hexadecimal)\"")
            out.append(text: ",\"missing_since\":\(entry.missingSince)")
        }
        out.append(text: ",\"position\":\(entry.position),\"end\":\(entry.end.position)")
        out.append(text: ",\"end_size\":\(entry.end.size),\"end_sha256\":\"\(entry.end.hash.hexadecimal)\"}\n")
    }

    /// Appends the line that ends an entry.
    static func write(gone id: UInt32, to out: inout ByteWriter) { out.append(text: "{\"id\":\(id),\"gone\":true}\n") }

    // MARK: reading

    /// What a state file holds.
    enum Loaded {
        case none
        /// The entries, and the bytes of a last batch that was never finished.
        case state([UInt32: Checkpoints.Record], inputs: Set<String>, torn: Int)
        /// What stands before the damage, if anything does.
        case damaged([UInt32: Checkpoints.Record], inputs: Set<String>)
    }

    /// Reads a state file and changes nothing.
    static func load(_ path: String) throws(Checkpoints.Fault) -> Loaded {
        let (head, isWhole): ([Substring], Bool)
        let file: ReadableFile
        do { file = try ReadableFile(path) } catch {
            if error.isNotFound { return .none }
            throw .system(error)
        }
        do throws(SystemError) {
            let start = try file.bytes(at: 0, count: 256)
            head = String(decoding: start.prefix { $0 != 10 }, as: UTF8.self).split(separator: " ")
            isWhole = start.contains(10)
        } catch { throw .system(error) }
        guard isWhole, head.count == 3, head[0] == magic, let version = Int(head[1]) else {
            return .damaged([:], inputs: [])
        }
        guard version <= Self.version else { throw .newer(path: path, version: version) }
        do throws(SystemError) {
            return version == 1
                ? try loadFirst(path, checksum: String(head[2])) : try load(file, generation: String(head[2]))
        } catch { throw .system(error) }
    }

    private static func load(_ file: borrowing ReadableFile, generation: String) throws(SystemError) -> Loaded {
        // What counts is known only behind a batch's end: first how far that is, then what it says.
        let (valid, size, isDamaged) = try check(file, generation: generation)
        guard valid > 0 else { return .damaged([:], inputs: []) }
        var records: [UInt32: Checkpoints.Record] = [:]
        var inputs: Set<String> = []
        var at = 0
        var isReadable = true
        try lines(of: file) { line, isWhole in
            guard isWhole, at < valid else { return false }
            defer { at += line.count + 1 }
            if at == 0 { return true }
            guard let value = try? WireFormat.json.read(line) else {
                isReadable = false
                return false
            }
            if let names = value["inputs"]?.list {
                inputs.formUnion(names.compactMap { $0.text(in: line) })
            } else if let id = value["id"]?.integer.flatMap({ UInt32(exactly: $0) }) {
                if value["gone"] != nil {
                    records[id] = nil
                } else if let record = records[id] {
                    record.entry.update(from: value, line)
                } else if let entry = Checkpoints.Entry(first: value, line, id: id) {
                    records[id] = Checkpoints.Record(entry, isHeld: false)
                } else {
                    isReadable = false
                }
            }
            return isReadable
        }
        guard !isDamaged, isReadable else { return .damaged(records, inputs: inputs) }
        return .state(records, inputs: inputs, torn: size - valid)
    }

    /// How many bytes of the file are whole batches, its size, and whether what follows is more than a torn end.
    private static func check(
        _ file: borrowing ReadableFile,
        generation: String
    ) throws(SystemError) -> (valid: Int, size: Int, isDamaged: Bool) {
        var (valid, at, expected, isBroken, isDamaged) = (0, 0, 0, false, false)
        var sha = SHA256()
        begin(batch: 0, of: generation, &sha)
        let opening = Array("{\"batch\":".utf8)
        try lines(of: file) { line, isWhole in
            at += line.count + (isWhole ? 1 : 0)
            let isEnd = line.count > opening.count && opening.indices.allSatisfy { line[$0] == opening[$0] }
            guard isWhole, isEnd, let value = try? WireFormat.json.read(line), let number = value["batch"]?.integer
            else {
                sha.update(line)
                if isWhole { sha.update([10].span) }
                return true
            }
            let sum = hexadecimalText(sha.finish().span)
            if !isBroken, number == expected, value["sha256"]?.text(in: line) == sum {
                (valid, expected) = (at, expected + 1)
            } else {
                // One that follows was written when this one was on disk: it was whole once.
                isDamaged = isDamaged || isBroken || number != expected
                isBroken = true
            }
            begin(batch: Int(number) &+ 1, of: generation, &sha)
            return true
        }
        return (valid, at, isDamaged)
    }

    /// Lends each line, without its end, and the rest behind the last one, until `body` returns false.
    private static func lines(
        of file: borrowing ReadableFile,
        _ body: (Span<UInt8>, _ isWhole: Bool) -> Bool
    ) throws(SystemError) {
        var held: [UInt8] = []
        var offset: UInt64 = 0
        while true {
            let block = try file.bytes(at: offset, count: 256 << 10)
            guard !block.isEmpty else { break }
            offset += UInt64(block.count)
            let all = held + block
            var start = 0
            while let end = all.span.firstOffset(of: 10, from: start) {
                guard body(all.span.extracting(start..<end), true) else { return }
                start = end + 1
            }
            held = Array(all[start...])
        }
        if !held.isEmpty { _ = body(held.span, false) }
    }

    /// Reads a file of version 1: one JSON object, and its checksum ahead of it.
    private static func loadFirst(_ path: String, checksum: String) throws(SystemError) -> Loaded {
        let bytes = try Folder.read(path)
        let body = Array(bytes[(bytes.firstIndex(of: 10)! + 1)...].dropLast())
        guard SHA256.hexadecimal(of: body) == checksum, let value = try? WireFormat.json.read(body.span) else {
            return .damaged([:], inputs: [])
        }
        let inputs = (value["inputs"]?.list ?? []).compactMap { $0.text(in: body.span) }
        var records: [UInt32: Checkpoints.Record] = [:]
        for file in value["files"]?.list ?? [] {
            let id = UInt32(records.count + 1)
            guard let entry = Checkpoints.Entry(first: file, body.span, id: id) else { continue }
            records[id] = Checkpoints.Record(entry, isHeld: false)
        }
        return .state(records, inputs: Set(inputs), torn: 0)
    }
}

extension Checkpoints.Entry {
    /// Reads a new entry out of `value`, a line of `input`.
    fileprivate init?(first value: WireValue, _ input: Span<UInt8>, id: UInt32) {
        guard let name = value["input"]?.text(in: input), let path = value["path"]?.text(in: input),
            let device = value["device"]?.text(in: input).flatMap(UInt64.init),
            let inode = value["inode"]?.text(in: input).flatMap(UInt64.init)
        else { return nil }
        self.init(input: name, path: path, device: device, inode: inode, position: 0)
        self.id = id
        update(from: value, input)
    }

    /// Sets what `value`, a line of `input`, names.
    fileprivate mutating func update(from value: WireValue, _ input: Span<UInt8>) {
        if let path = value["path"]?.text(in: input) {
            self.path = path
            name = value["name"]?.text(in: input) ?? path
        }
        if let text = value["device"]?.text(in: input), let number = UInt64(text) { device = number }
        if let text = value["inode"]?.text(in: input), let number = UInt64(text) { inode = number }
        if let size = value["head_size"]?.integer, let text = value["head_sha256"]?.text(in: input),
            size == 0 || Fingerprint(hexadecimal: text) != nil
        {
            headSize = UInt16(clamping: size)
            head = Fingerprint(hexadecimal: text) ?? .none
        }
        if let since = value["missing_since"]?.integer { missingSince = UInt32(clamping: since) }
        if let position = value["position"]?.integer { self.position = UInt64(clamping: position) }
        if let position = value["end"]?.integer, let size = value["end_size"]?.integer,
            let hash = value["end_sha256"]?.text(in: input).flatMap(Fingerprint.init),
            (0...Int64(FileMark.endBytes)).contains(size), position >= size
        {
            end = .init(position: UInt64(clamping: position), size: UInt16(clamping: size), hash: hash)
        }
    }
}
