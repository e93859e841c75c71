/// How far a tailed file is read.
package struct FileLag: Sendable {
    package var input: String
    package var path: String
    package var source: UInt32
    package var size: UInt64
    package var read: UInt64
    /// Bytes from its start that Kinesis has acknowledged or the spool holds.
    package var delivered: UInt64 = 0

    package init(input: String, path: String, source: UInt32, size: UInt64, read: UInt64) {
        (self.input, self.path, self.source, self.size, self.read) = (input, path, source, size, read)
    }

    /// Bytes that are not delivered.
    package var lag: UInt64 { size > delivered ? size - delivered : 0 }
    private var unread: UInt64 { size > read ? size - read : 0 }

    /// There may be 100,000 files: so many are told of one by one.
    package static let most = 20

    /// Those with most to read.
    package static func furthest(_ files: some Sequence<FileLag>) -> [FileLag] {
        var furthest: [FileLag] = []
        for file in files where furthest.count < most || file.unread > furthest[most - 1].unread {
            let place = furthest.firstIndex { $0.unread < file.unread } ?? furthest.count
            furthest.insert(file, at: place)
            if furthest.count > most { furthest.removeLast() }
        }
        return furthest
    }
}
