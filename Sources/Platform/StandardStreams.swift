import Glibc

/// File descriptor 0.
public enum StandardInput {
    /// Everything up to its end, at most `limit` bytes.
    public static func read(limit: Int) throws(SystemError) -> [UInt8] {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 256 << 10)
        while bytes.count < limit {
            let count = unsafe Glibc.read(0, &chunk, chunk.count)
            if count == 0 { return bytes }
            if count < 0 {
                if errno == EINTR { continue }
                throw SystemError(call: "read", path: "standard input", code: errno)
            }
            bytes.append(contentsOf: chunk[..<count])
        }
        throw SystemError(call: "read", path: "standard input", code: EFBIG)
    }
}

/// File descriptor 1.
public enum StandardOutput {
    /// Writes all of `bytes`; a reader that has gone ends the process, as it would by SIGPIPE.
    public static func write(_ bytes: Span<UInt8>) {
        unsafe bytes.withUnsafeBytes { bytes in
            var at = 0
            while at < bytes.count {
                let count = unsafe Glibc.write(1, bytes.baseAddress! + at, bytes.count - at)
                if count < 0 {
                    if errno == EINTR { continue }
                    exit(errno == EPIPE ? 0 : 74)
                }
                at += count
            }
        }
    }

    /// Writes `text`.
    public static func write(_ text: String) { write(Array(text.utf8).span) }

    public static var isTerminal: Bool { isatty(1) == 1 }
}

/// File descriptor 2, written a line at a time: lines of several threads do not mix.
public enum StandardError {
    public static func write(_ text: String) {
        var text = text
        text.withUTF8 { bytes in unsafe _ = Glibc.write(2, bytes.baseAddress, bytes.count) }
    }

    /// Whether it goes to systemd's journal, which reads a line's priority off its front (systemd.exec(5), JOURNAL_STREAM).
    public static var isJournal: Bool {
        guard let named = Machine.environment("JOURNAL_STREAM") else { return false }
        var status = stat()
        return unsafe fstat(2, &status) == 0 && named == "\(status.st_dev):\(status.st_ino)"
    }
}
