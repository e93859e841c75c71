import Agent
import Glibc

/// Syslog messages of many senders, and what to do with them.
@safe
struct SyslogWorks: ~Copyable {
    private var senders: [Sender] = []
    /// The messages, and the addresses that they come from.
    private var text: [UInt8] = []
    private let out = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)

    /// What of a sender is where in the text.
    private struct Sender {
        var message: Range<Int>
        /// The seconds of its time of day.
        var seconds: Int
        /// Four digits.
        var process: Int
        var peer: Range<Int>
    }

    /// Messages of a second, which is what a round is.
    private static let rate = 1024

    /// Takes a message of each sender.
    ///
    /// - Parameter lines: each is the place of the seconds in a message, that of the process, and the message, parted by spaces.
    init(_ lines: [String]) {
        for line in lines {
            let parts = line.split(separator: " ", maxSplits: 2)
            let start = text.count
            text += parts[2].utf8
            let end = text.count
            text += "192.0.2.\(10 + senders.count)".utf8
            senders.append(
                Sender(
                    message: start..<end,
                    seconds: start + Int(parts[0])!,
                    process: start + Int(parts[1])!,
                    peer: end..<text.count
                )
            )
        }
    }

    deinit { unsafe out.deallocate() }

    /// Those that stand in standard input.
    static func read() -> SyslogWorks {
        var lines: [String] = []
        while let line = readLine() { lines.append(line) }
        return SyslogWorks(lines)
    }

    /// Messages of RFC 5424 and 200 bytes, of 64 senders.
    static func made() -> SyslogWorks {
        let text = String(repeating: "disk sda is at 91 percent of its capacity, ", count: 4)
        return SyslogWorks(
            (0..<64).map { sender in
                let before = "<\(133 + sender % 8 * 8)>1 2026-10-11T22:14:"
                let start = before + "15.0\(10_000 + sender * 973)Z machine\(sender).example.com evntslog "
                let message = start + "\(1000 + sender * 37) ID\(sender) - " + text
                return "\(before.utf8.count) \(start.utf8.count) \(message.prefix(200))"
            }
        )
    }

    /// Looks for a byte that no message has.
    func search(rounds: Int) -> Int {
        // Another each time, or the compiler would search once.
        let needles: [Int32] = [10, 13]
        return each(rounds) { message, index in
            let needle = needles[index & 1]
            return unsafe message.withUnsafeBytes { unsafe memchr($0.baseAddress!, needle, $0.count) == nil ? 1 : 0 }
        }
    }

    func copy(rounds: Int) -> Int {
        each(rounds) { message, _ in
            unsafe message.withUnsafeBytes { unsafe _ = memcpy(out.baseAddress!, $0.baseAddress!, $0.count) }
            return 1
        }
    }

    func raw(rounds: Int) -> Int {
        var reader = SyslogReader()
        return each(rounds) { message, _ in reader.isParsed(message) ? 1 : 0 }
    }

    func host(rounds: Int) -> Int {
        var reader = SyslogReader()
        return each(rounds) { message, _ in reader.host(message).host.range.count }
    }

    @inline(__always)
    private func each(_ rounds: Int, _ body: (Span<UInt8>, Int) -> Int) -> Int {
        let all = text.span
        let message = all.extracting(senders[0].message)
        var sum = 0
        for index in 0..<rounds * Self.rate { sum &+= body(message, index) }
        return sum == .min ? 0 : rounds * Self.rate
    }

    /// Objects of messages of all senders in turn, 1,024 a second; the clock of every eighth sender is a second behind.
    ///
    /// - Parameter isNew: whether each message is of another process, so that no sender is met twice.
    mutating func object(rounds: Int, isNew: Bool) -> Int {
        var writer = SyslogObjectWriter()
        let turns = Self.rate / senders.count
        var sum = 0
        for round in 0..<rounds {
            setClocks(round)
            for turn in 0..<turns {
                if isNew { setProcesses(round * turns + turn) }
                let all = text.span
                // What the messages say, in a zone an hour east.
                var received = 1_791_749_660_000_000_000 + Int64(round * turns + turn) * 1_000_000_000 / Int64(turns)
                for sender in senders {
                    sum &+= unsafe writer.write(
                        all.extracting(unchecked: sender.message),
                        peer: all.extracting(unchecked: sender.peer),
                        received: received,
                        zone: 3600,
                        into: out
                    ).count
                    received += 10_000
                }
            }
        }
        return sum == .min ? 0 : rounds * turns * senders.count
    }

    private mutating func setClocks(_ round: Int) {
        for (index, sender) in senders.enumerated() {
            put(20 + round % 40 - (index % 8 == 0 ? 1 : 0), 2, sender.seconds)
        }
    }

    /// Other processes: none comes again within 10,000 turns.
    private mutating func setProcesses(_ turn: Int) {
        for sender in senders { put(turn % 10_000, 4, sender.process) }
    }

    private mutating func put(_ value: Int, _ digits: Int, _ place: Int) {
        var rest = value
        for digit in (0..<digits).reversed() {
            text[place + digit] = UInt8(48 + rest % 10)
            rest /= 10
        }
    }
}
