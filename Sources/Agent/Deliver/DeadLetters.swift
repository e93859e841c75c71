import Bytes
package import Kinesis
package import Platform

// Concurrency: belongs to the spool's thread.

/// Records that could not be delivered as they are: a file a day, a JSON object a line.
///
///     {"time":"2026-11-21T01:40:00.123Z","reason":"…","input":"app","source":"/var/log/a.log","first":0,"end":17,"text":"…"}
///
/// `text` where the record is UTF-8 and no longer than usual, else `data` in base64. What Kinesis refused is there as it was
/// sent, an aggregate or gzip maybe, with its `records`, `partitionKey` and `explicitHashKey`. All files together stay below a
/// limit: what finds no room any more is dropped and counted.
package struct DeadLetters: ~Copyable {
    /// One record, and why it is here.
    package struct Letter: Equatable, Sendable {
        package var reason: String
        package var input: String
        /// The file, or whatever else it came from.
        package var source: String
        package var first: UInt64
        package var end: UInt64
        package var data: [UInt8]
        /// If it is what was sent, and no record as it was read.
        package var sent: Sent?

        /// A Kinesis record.
        package struct Sent: Equatable, Sendable {
            /// User records in it.
            package var records: Int
            package var key: SealedAggregate.Key

            package init(records: Int, key: SealedAggregate.Key) { (self.records, self.key) = (records, key) }
        }

        package init(reason: String, input: String, source: String, first: UInt64, end: UInt64, data: [UInt8]) {
            (self.reason, self.input, self.source) = (reason, input, source)
            (self.first, self.end, self.data) = (first, end, data)
        }
    }

    package let folder: String
    private let maxSize: Int
    private var size: Int
    private var current: (day: String, file: Box)?
    private var hasNewName = false
    /// When the files were looked at last because they seemed to be full, by the wall clock in milliseconds.
    private var looked: Int64 = 0
    /// How long it is believed that they are.
    private static let fullPeriod: Int64 = 1000

    private final class Box {
        let file: WrittenFile
        private let path: String
        private let (device, inode): (UInt64, UInt64)
        var end: UInt64
        /// Everything before it is safe.
        var safeEnd: UInt64

        init(_ path: String) throws(SystemError) {
            self.path = path
            file = try WrittenFile(path)
            let status = try FileStatus(of: path)
            (device, inode) = (status.device, status.inode)
            (end, safeEnd) = (status.size, status.size)
        }

        /// Whether its name still leads to it, and nobody has truncated it.
        var isInPlace: Bool {
            guard let status = try? FileStatus(of: path) else { return false }
            return status.inode == inode && status.device == device && status.size >= end
        }
    }

    /// - Parameters:
    ///   - folder: made with the first letter.
    ///   - maxSize: bytes of all files.
    package init(_ folder: String, maxSize: Int) {
        (self.folder, self.maxSize) = (folder, maxSize)
        size = Self.size(of: folder)
    }

    private static func size(of folder: String) -> Int {
        files(in: folder).reduce(0) { $0 + Int(clamping: (try? FileStatus(of: $1))?.size ?? 0) }
    }

    /// The files of a folder, the oldest first.
    package static func files(in folder: String) -> [String] {
        ((try? Folder.entries(of: folder)) ?? []).map(\.name).filter { $0.hasSuffix(".jsonl") }.sorted()
            .map { folder + "/" + $0 }
    }

    /// Adds a letter; it is safe after the next `sync`.
    ///
    /// - Returns: false when there is no room for it.
    package mutating func append(_ letter: Letter, milliseconds: Int64) throws(SystemError) -> Bool {
        let line = Self.line(letter, milliseconds: milliseconds)
        let count = line.count
        leaveMoved()
        guard hasRoom(for: count, milliseconds) else { return false }
        let day = String(LogLine.timestamp(milliseconds).prefix(10))
        if current?.day != day {
            try sync()
            try Folder.create(folder)
            current = (day, try Box("\(folder)/\(day).jsonl"))
            hasNewName = true
        }
        guard let box = current?.file else { return false }
        // What a crash left of a line does not make the next one unreadable.
        if box.end > 0, hasNewName, try Folder.lastByte(of: "\(folder)/\(day).jsonl") != 10 {
            try box.file.write([10], at: box.end)
            box.end += 1
            size += 1
        }
        unsafe try box.file.write(line.bytes, at: box.end)
        box.end += UInt64(count)
        size += count
        return true
    }

    /// Lets go of a file that somebody has moved or deleted: what came into it from now on would not be found.
    private mutating func leaveMoved() {
        // What is not safe yet may have to be taken back.
        guard let box = current?.file, box.end == box.safeEnd, !box.isInPlace else { return }
        (current, hasNewName) = (nil, false)
        size = Self.size(of: folder)
    }

    /// Whether so many bytes find room; where they seem to find none, files may have been taken away since.
    private mutating func hasRoom(for count: Int, _ milliseconds: Int64) -> Bool {
        if size + count <= maxSize { return true }
        guard abs(milliseconds - looked) >= Self.fullPeriod else { return false }
        looked = milliseconds
        size = Self.size(of: folder)
        return size + count <= maxSize
    }

    /// Makes every letter safe.
    package mutating func sync() throws(SystemError) {
        guard let current else { return }
        try current.file.file.sync()
        if hasNewName {
            try Folder.sync(folder)
            hasNewName = false
        }
        current.file.safeEnd = current.file.end
    }

    /// Gives up what was added since the last sync, after a failure: it will be added again, in the same place.
    package mutating func takeBack() {
        guard let box = current?.file else { return }
        size = max(0, size - Int(box.end - box.safeEnd))
        box.end = box.safeEnd
    }

    /// Bytes of a record that is written as text: what is longer must not take six times its memory.
    private static let longestText = 1 << 20

    private static func line(_ letter: Letter, milliseconds: Int64) -> ByteWriter {
        let isShort = letter.data.count <= longestText
        let text = isShort ? String(validating: letter.data, as: UTF8.self) : nil
        let hash = letter.sent?.key.explicitHashKey
        let value = WireValue.object([
            "time": .text(LogLine.timestamp(milliseconds)), "reason": .text(letter.reason),
            "input": .text(letter.input),
            "source": .text(letter.source), "first": .integer(Int64(clamping: letter.first)),
            "end": .integer(Int64(clamping: letter.end)),
            "records": letter.sent.map { .integer(Int64($0.records)) },
            "partitionKey": letter.sent.map { .text(String(decoding: $0.key.partitionKey, as: UTF8.self)) },
            "explicitHashKey": hash.map { .text($0.description) },
            "text": text.map { .text($0) }, "data": text == nil ? .data(letter.data) : nil,
        ])
        var line = ByteWriter()
        line.reserve(1024 + (text == nil ? Base64.size(of: letter.data.count) : letter.data.count))
        WireFormat.json.write(value, to: &line)
        line.append(10)
        return line
    }

    /// Reads a line back; nil when it is none.
    package static func read(_ line: [UInt8]) -> (time: String, letter: Letter)? {
        guard let value = try? WireFormat.json.read(line.span) else { return nil }
        func text(_ name: String) -> String? { value[name]?.text(in: line.span) }
        guard let time = text("time"), let reason = text("reason"), let input = text("input") else { return nil }
        let data: [UInt8]
        if let text = text("text") {
            data = Array(text.utf8)
        } else if let decoded = value["data"]?.data(in: line.span, as: .json) {
            data = decoded
        } else {
            return nil
        }
        var letter = Letter(
            reason: reason,
            input: input,
            source: text("source") ?? "",
            first: UInt64(clamping: value["first"]?.integer ?? 0),
            end: UInt64(clamping: value["end"]?.integer ?? 0),
            data: data
        )
        if let records = value["records"]?.integer {
            let key = Array((text("partitionKey") ?? "").utf8)
            let hash = text("explicitHashKey").flatMap(HashKey.init(decimal:))
            letter.sent = .init(records: Int(records), key: .init(partitionKey: key, explicitHashKey: hash))
        }
        return (time, letter)
    }
}

/// The dead letters of a state directory, for a command to read.
public struct DeadLetterFolder {
    public let path: String

    public init(stateDirectory: String) { path = stateDirectory + "/dead-letters" }

    /// Hands out every line, the oldest first, with the letter in it; nil when the line is not one of ours.
    ///
    /// - Parameter body: returns false to stop.
    package func lines(
        _ body: (_ line: [UInt8], (time: String, letter: DeadLetters.Letter)?) -> Bool
    ) throws(SystemError) {
        for file in DeadLetters.files(in: path) {
            let reading = try ReadableFile(file)
            var (at, rest): (UInt64, [UInt8]) = (0, [])
            while true {
                let bytes = try reading.bytes(at: at, count: 1 << 20)
                at += UInt64(bytes.count)
                rest += bytes
                var start = 0
                while let end = rest.span.firstOffset(of: 10, from: start) {
                    let line = Array(rest[start..<end])
                    start = end + 1
                    guard body(line, DeadLetters.read(line)) else { return }
                }
                rest.removeFirst(start)
                if bytes.isEmpty {
                    if !rest.isEmpty { _ = body(rest, DeadLetters.read(rest)) }
                    break
                }
            }
        }
    }
}
