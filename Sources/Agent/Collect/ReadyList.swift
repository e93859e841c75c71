// Concurrency: belongs to its collector's thread.

/// The files that may have something to read, in turn.
struct ReadyList {
    private var files: [TailedFile] = []
    /// Those before it have been taken.
    private var first = 0

    var count: Int { files.count - first }
    var isEmpty: Bool { count == 0 }

    /// Puts a file at the end, unless it waits already.
    mutating func add(_ file: TailedFile) {
        guard !file.isReady else { return }
        file.isReady = true
        files.append(file)
    }

    /// Takes the file whose turn it is.
    mutating func next() -> TailedFile? {
        guard first < files.count else { return nil }
        let file = files[first]
        file.isReady = false
        first += 1
        // What was taken is let go when it is the larger part.
        if first > 64, first * 2 > files.count {
            files.removeFirst(first)
            first = 0
        } else if first == files.count {
            files.removeAll(keepingCapacity: files.count < 1024)
            first = 0
        }
        return file
    }

    /// Gives a file that had its turn, and could not use it, the next one too.
    mutating func putBack(_ file: TailedFile) {
        guard !file.isReady else { return }
        file.isReady = true
        if first > 0 {
            first -= 1
            files[first] = file
        } else {
            files.insert(file, at: 0)
        }
    }
}
