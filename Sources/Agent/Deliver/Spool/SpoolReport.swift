import Bytes
public import Kinesis
internal import Platform

/// What lies in the spool, looked at from outside: nothing is changed, and an agent may be running.
///
/// A running agent writes down once a second what was delivered, so it may be further.
public struct SpoolReport: Sendable {
    public struct Segment: Sendable {
        public var path: String
        public var size: Int
        /// Milliseconds since 1970.
        public var created: Int64
        /// Records that are not delivered, each one Kinesis record.
        public var owed = 0
        /// User records in those, and their bytes in the source, by input.
        public var inputs: [String: (records: Int, bytes: Int)] = [:]
        /// Bytes that hold no record and should.
        public var damaged = 0
        /// Bytes behind the last whole record of a segment that is not closed: a write that is under way, or was torn.
        public var torn = 0
        public var isClosed = false
        /// The header cannot be read, or the file was set aside.
        public var isSetAside = false

        /// For each source with something in it, the first position.
        var sources: [SpoolSegment.Contents.Source: UInt64] = [:]
        var firstOwed = SpoolIndex.begin
        /// Stretches behind that which are delivered as well.
        var ahead: [Range<UInt64>] = []
        var end = SpoolIndex.begin
    }

    /// The output's name, as its folder has it.
    public var output: String
    public var folder: String
    public var segments: [Segment] = []
    /// Bytes of damaged segments that were delivered but for the damage.
    public var restBytes = 0

    /// The spools of all outputs in a state directory.
    ///
    /// - Parameter verifying: whether to read every record, and not only the indices.
    public static func all(
        stateDirectory: String,
        verifying: Bool = false
    ) throws(Unreadable) -> [SpoolReport] {
        let folder = stateDirectory + "/spool"
        do throws(SystemError) {
            var reports: [SpoolReport] = []
            for name in try Folder.entries(of: folder).map(\.name).sorted() {
                guard try FileStatus(of: folder + "/" + name).kind == .folder else { continue }
                reports.append(try SpoolReport(folder + "/" + name, name, verifying))
            }
            return reports
        } catch {
            if error.isNotFound { return [] }
            throw Unreadable(description: "\(error)")
        }
    }

    public struct Unreadable: Error, CustomStringConvertible {
        public var description: String
    }

    private init(_ folder: String, _ output: String, _ verifying: Bool) throws(SystemError) {
        (self.folder, self.output) = (folder, output)
        let progress = SpoolPosition.value(in: (try? Folder.read(folder + "/position")) ?? []).value
        for name in try Folder.entries(of: folder).map(\.name).sorted() {
            let path = folder + "/" + name
            do throws(SystemError) {
                if name.hasSuffix(SpoolStore.restSuffix) {
                    restBytes += Int(clamping: try FileStatus(of: path).size)
                } else if let number = SpoolSegment.number(ofFile: name) {
                    let settled = progress.settled
                    guard number >= settled.segment else { continue }
                    let start = number == settled.segment ? settled.offset : SpoolIndex.begin
                    segments.append(try Self.look(path, from: start, without: progress.ahead(in: number), verifying))
                } else if name.hasSuffix(SpoolStore.damagedSuffix) {
                    var segment = try Self.look(path, from: SpoolIndex.begin, without: [], true)
                    segment.isSetAside = true
                    segments.append(segment)
                }
            } catch {
                // Delivered while we looked.
                if !error.isNotFound { throw error }
            }
        }
    }

    private static func look(
        _ path: String,
        from start: UInt64,
        without ahead: [Range<UInt64>],
        _ verifying: Bool
    ) throws(SystemError) -> Segment {
        let file = try ReadableFile(path)
        let size = try file.status().size
        var segment = Segment(path: path, size: Int(clamping: size), created: 0)
        let first = try file.bytes(at: 0, count: SpoolSegment.headerSize)
        if case .good(_, let milliseconds) = SpoolSegment.readHeader(first.span) {
            segment.created = milliseconds
        } else {
            segment.isSetAside = size >= UInt64(SpoolSegment.headerSize)
        }
        let ending = try SpoolSegment.readEnding(of: file, size: size)
        segment.isClosed = ending != nil
        let end = ending?.end ?? size
        segment.firstOwed = min(max(start, SpoolIndex.begin), end)
        let contents: SpoolSegment.Contents
        if let ending, !verifying, segment.firstOwed == SpoolIndex.begin, ahead.isEmpty {
            contents = ending.contents
            segment.end = end
        } else {
            let scanned = try SpoolSegment.scan(
                file,
                size: end,
                from: segment.firstOwed,
                isClosed: segment.isClosed,
                without: ahead
            )
            (contents, segment.end, segment.ahead) = (scanned.contents, scanned.end, scanned.delivered)
            segment.torn = Int(scanned.torn)
        }
        segment.owed = contents.records
        segment.damaged += contents.damaged.reduce(0) { $0 + Int($1.upperBound - $1.lowerBound) }
        for (input, amount) in contents.amounts { segment.inputs[input] = (amount.records, amount.bytes) }
        for (source, range) in contents.sources { segment.sources[source] = range.lowerBound }
        return segment
    }

    /// Hands out every owed record, the oldest first: its key and its data.
    ///
    /// - Parameter body: returns false to stop.
    public func records(
        _ body: (_ key: SealedAggregate.Key, _ data: Span<UInt8>) -> Bool
    ) throws(Unreadable) {
        for segment in segments {
            do throws(SystemError) {
                let file = try ReadableFile(segment.path)
                var at: UInt64? = segment.firstOwed
                while let offset = at {
                    if let delivered = segment.ahead.first(where: { $0.contains(offset) }) {
                        at = delivered.upperBound
                        continue
                    }
                    if let bytes = try SpoolSegment.record(of: file, at: offset, before: segment.end),
                        let (record, data) = SpoolRecord.readChecked(bytes.span)
                    {
                        guard body(record.key, bytes.span.extracting(data)) else { return }
                        at = offset + UInt64(bytes.count)
                    } else {
                        at = try SpoolSegment.nextRecord(of: file, from: offset + 8, before: segment.end)
                    }
                }
            } catch { if !error.isNotFound { throw Unreadable(description: "\(error)") } }
        }
    }

    /// What `repair` did.
    public struct Repaired: Sendable {
        public var path: String
        public var records: Int
        public var lostBytes: Int
    }

    /// Takes the whole records out of the segments that were set aside and gives them back to the spool, which will
    /// deliver them.
    ///
    /// The damaged file stays, under another name.
    /// - Throws: also when an agent uses the state directory.
    public static func repair(stateDirectory: String) throws(Unreadable) -> [Repaired] {
        let lock = try lock(stateDirectory)
        defer { withExtendedLifetime(lock) {} }
        var repaired: [Repaired] = []
        for report in try all(stateDirectory: stateDirectory) {
            do throws(SpoolStore.Fault) {
                let store = try SpoolStore(report.folder, .init(maxSize: .max / 2, keepFree: 0))
                for path in store.setAsidePaths { repaired.append(try store.salvage(path)) }
            } catch { throw Unreadable(description: "\(error)") }
        }
        return repaired
    }

    private static func lock(_ folder: String) throws(Unreadable) -> LockFile {
        do { return try LockFile(folder + "/lock") } catch {
            switch error {
            case .held(let pid):
                let who = pid.map { " (process \($0))" } ?? ""
                throw Unreadable(description: "an agent\(who) uses \(folder): stop it first")
            case .system(let error): throw Unreadable(description: "\(error)")
            }
        }
    }
}
