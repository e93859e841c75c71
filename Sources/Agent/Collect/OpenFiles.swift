import Platform

// Concurrency: belongs to its collector's thread.

/// The tailed files that are held open: at most so many, those read last.
struct OpenFiles {
    private var files: [TailedFile] = []
    private var byPlace: [String: TailedFile] = [:]
    private let most: Int
    private var turn: UInt32 = 0

    /// Descriptors that are left to the rest of the process.
    private static let reserve = 256

    /// - Parameters:
    ///   - most: files to hold open.
    ///   - sharers: how many share the descriptors that the process may open.
    init(most: Int, sharers: Int) {
        self.most = max(4, min(most, (Machine.descriptorLimit - Self.reserve) / sharers))
    }

    var count: Int { files.count }
    var isFull: Bool { files.count >= most }

    /// The open file whose content lies at `path`.
    func file(at path: String) -> TailedFile? { byPlace[path] }

    mutating func add(_ file: TailedFile) {
        files.append(file)
        byPlace[file.place] = file
        used(file)
    }

    /// Notes that a file has its turn.
    mutating func used(_ file: TailedFile) {
        turn &+= 1
        file.lastTurn = turn
    }

    /// Gives a file another name.
    mutating func rename(_ file: TailedFile, to path: String, target: String?) {
        if byPlace[file.place] === file { byPlace[file.place] = nil }
        file.rename(to: path, target: target)
        if file.isOpen { byPlace[file.place] = file }
    }

    mutating func remove(_ file: TailedFile) {
        if byPlace[file.place] === file { byPlace[file.place] = nil }
        files.removeAll { $0 === file }
    }

    /// Whether one more may be opened; files that have been read to their end longest ago are closed for it.
    mutating func hasRoom() -> Bool {
        guard isFull else { return true }
        files.sort { $0.lastTurn > $1.lastTurn }
        var kept: [TailedFile] = []
        let least = most - max(1, most / 8)
        for (index, file) in files.enumerated() {
            if index >= least, file.close() {
                if byPlace[file.place] === file { byPlace[file.place] = nil }
            } else {
                kept.append(file)
            }
        }
        files = kept
        return !isFull
    }
}
