internal import Bytes
internal import Kinesis

/// Writes when messages were received and when they were sent; keeps the text of the last times.
struct SyslogTimeWriter: ~Copyable {
    /// What is written when a message's time was met before.
    private(set) var stamps = StampCache()

    /// The receipts' second, in nanoseconds since 1970, and the text of it.
    private var second: Int64 = 0
    private var frame = StampCache.Frame(second: 0, zone: 0)
    private var receivedText = PreparedText()

    private var time = SyslogTime()
    private var timeText = PreparedText()
    /// Whether it does for every receipt in this frame.
    private var holds = false

    init() { _ = begin(0) }

    /// Begins the object of a message that was received at `received`, in nanoseconds since 1970.
    ///
    /// - Parameter zone: the receiver's seconds east of UTC.
    @inline(__always)
    mutating func putReceived(_ received: Int64, _ zone: Int, _ text: inout ObjectText) {
        var nanosecond = received &- second
        // As an unsigned number a negative one is very large.
        if UInt64(bitPattern: nanosecond) >= 1_000_000_000 { nanosecond = begin(received) }
        if zone != frame.zone { setFrame(zone) }
        text.put(receivedText)
        text.put(sixDigits: UInt64(bitPattern: nanosecond) / 1000)
        text.put("Z\"")
    }

    /// - Returns: nanoseconds since the second's start.
    @inline(never)
    private mutating func begin(_ received: Int64) -> Int64 {
        var (now, nanosecond) = received.quotientAndRemainder(dividingBy: 1_000_000_000)
        if nanosecond < 0 { (now, nanosecond) = (now - 1, nanosecond + 1_000_000_000) }
        second = received &- nanosecond
        setFrame(frame.zone)
        let civil = CivilTime(unixSeconds: now)
        let time = SyslogTime(
            year: civil.year,
            month: civil.month,
            day: civil.day,
            hour: civil.hour,
            minute: civil.minute,
            second: civil.second
        )!
        var out = ByteWriter()
        out.append("{\"received\":\"")
        // Without its Z.
        out.append(time, received: 0, zone: 0, without: 1)
        out.append(".")
        receivedText = out.withBytes { PreparedText($0) }
        return nanosecond
    }

    /// Forgets what does not hold for this second in this zone.
    @inline(never)
    private mutating func setFrame(_ zone: Int) {
        let now = StampCache.Frame(second: second / 1_000_000_000, zone: zone)
        guard now != frame else { return }
        frame = now
        stamps.forgetSeconds()
        holds = false
    }

    /// The time of a message, if it has one.
    mutating func put(_ message: SyslogMessage, _ bytes: Span<UInt8>, _ received: Int64, _ text: inout ObjectText) {
        if !message.timeText.isEmpty {
            text.put(",\"timestamp\":\"", message.timeText, of: bytes)
        } else if message.time.isThere {
            if message.time != time || !holds { prepare(message.time, received) }
            text.put(",\"timestamp\":\"")
            text.put(timeText)
        }
    }

    private mutating func prepare(_ new: SyslogTime, _ received: Int64) {
        func written(_ received: Int64) -> PreparedText {
            var out = ByteWriter()
            out.append(new, received: received, zone: frame.zone, without: 0)
            out.append("\"")
            return out.withBytes { PreparedText($0) }
        }
        (time, timeText) = (new, written(received))
        // Another fraction comes with the next message.
        guard new.fractionDigits == 0 else { return holds = false }
        // Within a frame the year that is guessed may change, once in a year's half.
        holds =
            new.hasYear
            || frame.received.map { written($0.first) == timeText && written($0.last) == timeText } ?? false
    }

    /// Learns how the time that was `put` is written.
    ///
    /// - Parameter start: where its sixteen bytes are in the message, if it is one of RFC 3164.
    mutating func learn(_ message: SyslogMessage, _ opening: Span<UInt8>, _ start: Int?) {
        if !message.timeText.isEmpty {
            if message.timeText.range.upperBound <= StampCache.window { stamps.learnExact(opening, message.timeText) }
        } else if let start, start <= StampCache.window, holds, message.time == time {
            var out = ByteWriter()
            out.append(",\"timestamp\":\"")
            timeText.withBytes { out.append($0) }
            stamps.learnBSD(opening, start, out.withBytes { PreparedText($0) })
        }
    }
}

extension ByteWriter {
    fileprivate mutating func append(_ time: SyslogTime, received: Int64, zone: Int, without last: Int) {
        unsafe append(upTo: SyslogTime.mostBytes) { room in
            var span = unsafe MutableSpan<UInt8>(_unsafeElements: room.bindMemory(to: UInt8.self))
            return time.write(received: received, zone: zone, to: &span) - last
        }
    }
}
