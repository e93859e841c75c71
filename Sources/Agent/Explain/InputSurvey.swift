import Platform

/// What an input would read now.
public struct InputSurvey: Sendable {
    public var name: String
    /// Whether the output takes it.
    public var isActive: Bool
    /// Of sockets: where they listen.
    public var listen: [String] = []
    /// Of files: the patterns.
    public var paths: [String] = []
    public var fileCount = 0
    public var bytes: UInt64 = 0
    /// Bytes that are not delivered, of those that would be read.
    public var undelivered: UInt64 = 0
    /// Those that are furthest behind, then by their names; not more than `mostFiles`.
    public var files: [File] = []
    /// Why a file or a folder cannot be read.
    public var faults: [String] = []

    public struct File: Equatable, Sendable {
        public var path: String
        public var size: UInt64
        public var undelivered: UInt64
    }

    public static let mostFiles = 20

    /// Looks at every file that fits, as the agent would.
    ///
    /// - Parameter state: what the state file knows of all files.
    init(_ input: Configuration.Input, isActive: Bool, state: [FileReport.File]) {
        (name, self.isActive, paths) = (input.name, isActive, input.paths)
        guard input.socket == nil else {
            listen = input.socket!.listen.map(\.description)
            return
        }
        let known = state.filter { $0.input == input.name && $0.size != nil }
        let delivered = Dictionary(known.map { ($0.path, $0.lag) }) { first, _ in first }
        // Only what is there at the very first start is read by start_at.
        let readsNew = state.contains { $0.input == input.name } || input.startAt == .beginning
        let patterns = PathPatterns(input)
        var seen: Set<[UInt64]> = []
        for var walk in patterns.walks().reversed() {
            while let found = walk.next() {
                switch found {
                case .step, .folder: break
                case .fault(let fault): addFault("\(fault)")
                case .file(let path, _):
                    guard !patterns.exclude(path) else { break }
                    let status: FileStatus
                    do {
                        status = try FileStatus(of: path)
                        guard status.kind == .regular, seen.insert([status.device, status.inode]).inserted else {
                            break
                        }
                        _ = try ReadableFile(path)
                    } catch {
                        if !error.isNotFound { addFault("\(error)") }
                        break
                    }
                    // The state knows a file by its own name, not by a link's.
                    let own = Folder.targets(of: path).last ?? path
                    add(
                        File(path: path, size: status.size, undelivered: delivered[own] ?? (readsNew ? status.size : 0))
                    )
                }
            }
        }
        keepFirst()
    }

    private mutating func addFault(_ fault: String) {
        if faults.count < Self.mostFiles, !faults.contains(fault) { faults.append(fault) }
    }

    private mutating func add(_ file: File) {
        fileCount += 1
        bytes += file.size
        undelivered += file.undelivered
        files.append(file)
        // There may be very many.
        if files.count >= 64 * Self.mostFiles { keepFirst() }
    }

    private mutating func keepFirst() {
        files.sort(by: Self.isBefore)
        files.removeLast(max(0, files.count - Self.mostFiles))
    }

    private static func isBefore(_ left: File, _ right: File) -> Bool {
        (right.undelivered, left.path) < (left.undelivered, right.path)
    }
}
