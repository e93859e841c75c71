internal import Platform

/// How much of each tailed file is in Kinesis, by the state file: as true while an agent runs as when none does.
///
/// The state file is written at most once a second, so a running agent may be a second further.
public struct FileReport: Sendable {
    public struct File: Sendable {
        public var input: String
        /// Its present name, after rotation too.
        public var path: String
        /// Bytes of it that Kinesis has acknowledged, from its start without a gap.
        public var delivered: UInt64
        /// Its size now; nil when it is gone, or another file has its place.
        public var size: UInt64?

        /// Bytes that are not delivered.
        public var lag: UInt64 { size.map { $0 > delivered ? $0 - delivered : 0 } ?? 0 }

        /// Everything that is in it is in Kinesis: it may be deleted, if nobody writes to it any more.
        public var isAllDelivered: Bool { size == delivered }
    }

    public var files: [File]

    /// Why there is no report.
    public enum Fault: Error, CustomStringConvertible {
        case noState(folder: String)
        case unreadable(String)

        public var description: String {
            switch self {
            case .noState(let folder): "no agent has written a state file in \(folder) yet"
            case .unreadable(let reason): reason
            }
        }
    }

    /// Reads the state file in `folder` and looks at each of its files.
    public init(stateDirectory folder: String) throws(Fault) {
        let path = folder + "/checkpoints"
        let records: [UInt32: Checkpoints.Record]
        do {
            switch try StateFile.load(path) {
            case .none: throw Fault.noState(folder: folder)
            case .state(let found, _, _): records = found
            case .damaged:
                throw Fault.unreadable("\(path) is damaged: an agent will set it aside when it starts")
            }
        } catch let fault as Fault {
            throw fault
        } catch let fault as Checkpoints.Fault {
            switch fault {
            case .newer(let path, let version):
                throw .unreadable("\(path) was written by a newer penstock (version \(version)): use that one")
            case .system(let error): throw .unreadable("\(error)")
            }
        } catch { throw .unreadable("\(error)") }
        // Behind the state file: what that has passed is in Kinesis, or was in the spool by then.
        let owed = try Self.owed(folder)
        files = records.values.map { record in
            let entry = record.entry
            let status = try? FileStatus(of: entry.path)
            // The head too: a file that was rewritten in place is not the one that was delivered.
            let isSame =
                status?.device == entry.device && status?.inode == entry.inode
                && (entry.headSize == 0
                    || (try? FileMark(entry).fits(ReadableFile(entry.path), entry.end)) == true)
            let source = SpoolSegment.Contents.Source(input: entry.input, number: entry.id)
            return File(
                input: entry.input,
                path: entry.path,
                delivered: min(entry.position, owed[source] ?? entry.position),
                size: isSame ? status?.size : nil
            )
        }.sorted { ($0.input, $0.path) < ($1.input, $1.path) }
    }

    /// For each source with something in the spool, the first position of it.
    private static func owed(_ folder: String) throws(Fault) -> [SpoolSegment.Contents.Source: UInt64] {
        let reports: [SpoolReport]
        do { reports = try SpoolReport.all(stateDirectory: folder) } catch { throw .unreadable("\(error)") }
        return reports.flatMap(\.segments).reduce(into: [:]) { owed, segment in
            owed.merge(segment.sources, uniquingKeysWith: min)
        }
    }
}
