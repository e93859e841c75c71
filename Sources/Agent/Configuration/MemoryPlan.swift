import Kinesis

/// What of `memory_limit` is left for aggregates, once rings and long records have their part.
struct MemoryPlan {
    private let limit: Int
    /// Bytes that are taken whatever is being sent.
    let fixed: Int

    /// What the process takes beside rings and aggregates: its code, libcurl's buffers, the state.
    static let base = 32 << 20
    /// Aggregates never have less.
    private static let leastAggregates = 16 << 20

    /// - Parameter inputs: those that are read.
    init(limit: Int, inputs: [Configuration.Input]) {
        self.limit = limit
        let long = inputs.filter(\.hasLongRecords)
        // A record out of a .gz, or of several lines, is gathered in memory that grows by doubling; the latter with the line
        // behind it, which may begin the next.
        let gathering = long.reduce(0) { $0 + ($1.multilineStart.isEmpty ? 2 : 6) * $1.maxRecord }
        // Of the longest, one above what aggregates may have, two on their way from or to the disk, and one as base64 or gzip.
        let longest = 4 * (long.map(\.maxRecord).max() ?? 0)
        fixed = Self.base + inputs.reduce(0) { $0 + $1.bufferBytes } + gathering + longest
    }

    /// Bytes of aggregates, open, waiting and in flight.
    var aggregates: Int { max(Self.leastAggregates, limit - fixed) }

    /// The least `memory_limit` with which all of it fits, in whole MiB.
    var leastLimit: Int {
        let bytes = fixed + Self.leastAggregates
        return (bytes + (1 << 20) - 1) / (1 << 20) * (1 << 20)
    }
}

extension Configuration.Input {
    /// Whether it may have records that only a stream takes that was told to.
    package var hasLongRecords: Bool { maxRecord > Limits.longestRecord() }

    /// Bytes of its rings, one for its files or for each thread that reads its sockets, and of what connections hold.
    var bufferBytes: Int {
        guard let socket else { return ringBytes }
        return socket.parts.reduce(0) {
            $0 + $1.ringBytes(for: self) + ($1 == .streams ? StreamCollector.mostUnfinished : 0)
        }
    }

    /// Bytes of a ring of its lines: it holds the longest record with its line end twice, as its entries must.
    package var ringBytes: Int {
        var bytes = 2 << 20
        while bytes / 2 < maxRecord + 64 { bytes *= 2 }
        return bytes
    }
}
