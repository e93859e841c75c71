import Bytes
import Kinesis
import Platform
import Synchronization

/// Writes a log as a busy service would: numbered lines, at a rate, into a file that it rotates by renaming once.
final class LogGenerator: DemoSource {
    private let path: String
    private let linesPerSecond: Int
    private let duration: Duration
    private let written = Atomic<Int>(0)
    private let finished = Atomic<Bool>(false)
    private let stopping = Atomic<Bool>(false)

    init(path: String, linesPerSecond: Int, duration: Duration) {
        (self.path, self.linesPerSecond, self.duration) = (path, linesPerSecond, duration)
    }

    /// Lines written so far.
    var lines: Int { written.load(ordering: .acquiring) }
    var isFinished: Bool { finished.load(ordering: .acquiring) }

    func stop() { stopping.store(true, ordering: .relaxed) }

    func run() {
        defer { finished.store(true, ordering: .releasing) }
        var random = SplitMix64(seed: 7)
        var buffer = ByteWriter(capacity: 1 << 20)
        var number = 0
        var isRotated = false
        guard var file = try? AppendedFile(path) else { return }
        let start = Instant.now
        var elapsed = Duration.zero
        while elapsed < duration, !stopping.load(ordering: .relaxed) {
            let due = Int(Double(linesPerSecond) * min(elapsed, duration).inSeconds)
            buffer.clear()
            let count = min(due - number, 5000)
            for _ in 0..<max(0, count) {
                Self.append(number, to: &buffer, &random)
                number += 1
            }
            guard file.append(buffer) else { return }
            written.store(number, ordering: .releasing)
            if !isRotated, elapsed > duration / 2 {
                isRotated = true
                try? Folder.move(path, to: path + ".1")
                guard let next = try? AppendedFile(path) else { return }
                file = next
            }
            if count < 5000 { Machine.sleep(.milliseconds(5)) }
            elapsed = .now - start
        }
    }

    /// A line like a web server's, with its number in front.
    private static func append(_ number: Int, to out: inout ByteWriter, _ random: inout SplitMix64) {
        let chance = random.next()
        let digits = String(number)
        out.append(text: String(repeating: "0", count: max(0, 10 - digits.count)))
        out.append(text: digits)
        out.append(text: " 10.\(chance & 255).\(chance >> 8 & 255).\(chance >> 16 & 255)")
        out.append(" - - [21/Nov/2026:08:00:00 +0000] \"GET /api/v2/orders/")
        out.append(text: String(chance >> 40 & 0xffff))
        out.append("/items HTTP/1.1\" 200 ")
        out.append(text: String(chance >> 24 & 0x3fff))
        out.append(" \"https://shop.example.com/checkout\" \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\"\n")
    }
}

/// Counts the numbered lines that came back.
struct LogTally {
    private var seen: [UInt64]
    private let expected: Int
    private var arrived = 0
    private var duplicated = 0
    private var corrupted = 0
    /// Records outside the range of their shard.
    var misplaced = 0

    init(expected: Int) {
        self.expected = expected
        seen = [UInt64](repeating: 0, count: expected / 64 + 1)
    }

    mutating func count(_ line: [UInt8]) {
        arrived += 1
        guard let number = Int(String(decoding: line.prefix(10), as: UTF8.self)), number < expected, line.last == 0x22
        else {
            corrupted += 1
            return
        }
        let bit = UInt64(1) << UInt64(number & 63)
        if seen[number >> 6] & bit != 0 { duplicated += 1 }
        seen[number >> 6] |= bit
    }

    var lost: Int { expected - seen.reduce(0) { $0 + $1.nonzeroBitCount } }

    var isExact: Bool { isExact(but: 0) }

    /// Whether every line arrived once, but for so many that are known to be lost.
    func isExact(but dropped: Int) -> Bool {
        expected > 0 && lost == dropped && duplicated == 0 && corrupted == 0 && misplaced == 0
            && arrived == expected - dropped
    }

    var summary: String {
        "\(expected) lines went in, \(arrived) came out: lost \(lost), duplicated \(duplicated), corrupted \(corrupted), "
            + "misplaced \(misplaced)" + (isExact ? ". Every line arrived once." : ".")
    }
}
