internal import Bytes

/// The times of the last messages, as they are written: most messages have the same second as one of those before them.
///
/// Sixteen of each form, found by the last digits of their hour and their second: the clocks of senders do not go alike, nor
/// do they all show the time of one zone.
struct StampCache: ~Copyable {
    /// `Oct 11 22:14:15 `, and how it is written.
    struct Second {
        var low: UInt64 = 0
        var high: UInt64
        var text = PreparedText()

        /// What is never found at `index`.
        static func none(_ index: Int) -> Second { Second(high: UInt64(index ^ 1) << 48) }
    }

    /// `2003-10-11T22:14:15`: bytes 0 to 7, 8 to 15 and 11 to 18, of which it is known that they are a time by RFC 3339.
    struct Exact {
        var low: UInt64 = 0
        var middle: UInt64 = 0
        var high: UInt64
        /// The last zone behind it, `+02:00 `; at first what no seven bytes are.
        var zone = UInt64.max

        /// What is never found at `index`.
        static func none(_ index: Int) -> Exact { Exact(high: UInt64(index ^ 1) << 56) }
    }

    private var seconds = FixedArray(count: 16) { Second.none($0) }
    private var exact = FixedArray(count: 16) { Exact.none($0) }

    /// What decides how a time without year and zone is written: the year by the receipt, in steps of 4096 seconds.
    struct Frame: Equatable {
        var hour: Int64
        var zone: Int

        /// - Parameters:
        ///   - second: of the receipt, since 1970.
        ///   - zone: the receiver's seconds east of UTC.
        init(second: Int64, zone: Int) { self.init(hour: second >> 12, zone: zone) }

        init(hour: Int64, zone: Int) { (self.hour, self.zone) = (hour, zone) }

        /// The first and the last moment, in nanoseconds since 1970; nil where they are out of range.
        var received: (first: Int64, last: Int64)? {
            guard (0...(Int64.max >> 43)).contains(hour) else { return nil }
            return ((hour << 12) * 1_000_000_000, ((hour + 1) << 12) * 1_000_000_000 - 1)
        }
    }

    /// Bytes of a message that are read from the time's start on.
    static let window = 50

    /// Forgets the times of RFC 3164: what they mean depends on the frame.
    mutating func forgetSeconds() {
        for index in seconds.indices { seconds[index] = .none(index) }
    }

    /// Writes the time of RFC 3164 that begins at `at`, a member of the object; false if it was not met in this frame.
    @inline(__always)
    func putBSD(_ opening: Span<UInt8>, _ at: Int, _ text: inout ObjectText) -> Bool {
        let (low, high) = unsafe (opening.word(uncheckedAt: at), opening.word(uncheckedAt: at &+ 8))
        let index = Self.index(second: high)
        guard unsafe seconds[unchecked: index].low == low, unsafe seconds[unchecked: index].high == high,
            unsafe !LooseStamp.mayFollow(opening.word(uncheckedAt: at &+ 16))
        else { return false }
        unsafe text.put(seconds[unchecked: index].text)
        return true
    }

    /// Where a time of RFC 3164 is kept, of which the second half is `high`.
    @inline(__always)
    private static func index(second high: UInt64) -> Int { Int(truncatingIfNeeded: (high >> 48 ^ high) & 15) }

    /// Where a time by RFC 3339 is kept, of which the last eight bytes are `high`.
    @inline(__always)
    private static func index(exact high: UInt64) -> Int { Int(truncatingIfNeeded: (high >> 56 ^ high >> 8) & 15) }

    /// Learns how the sixteen bytes at `at` are written in this frame.
    mutating func learnBSD(_ opening: Span<UInt8>, _ at: Int, _ text: PreparedText) {
        let (low, high) = unsafe (opening.word(uncheckedAt: at), opening.word(uncheckedAt: at &+ 8))
        seconds[Self.index(second: high)] = Second(low: low, high: high, text: text)
    }

    /// Writes the time by RFC 3339 that begins at `at`, a member of the object; where what follows the space behind it
    /// begins, or nil if the second was not met before or the rest has another form.
    @inline(__always)
    func putExact(_ opening: Span<UInt8>, _ at: Int, _ text: inout ObjectText) -> Int? {
        let high = unsafe opening.word(uncheckedAt: at &+ 11)
        let index = Self.index(exact: high)
        guard unsafe exact[unchecked: index].low == opening.word(uncheckedAt: at),
            unsafe exact[unchecked: index].middle == opening.word(uncheckedAt: at &+ 8),
            unsafe exact[unchecked: index].high == high
        else { return nil }
        var end = at &+ 19
        var rest = unsafe opening.word(uncheckedAt: end)
        if rest & 0xff == UInt64(UInt8(ascii: ".")) {
            let digits = (rest >> 8) ^ 0x3030_3030_3030_3030
            let others = ((digits &+ 0x7676_7676_7676_7676) | digits) & 0x8080_8080_8080_8080
            // The eighth byte is a zero, and that is none.
            let bits = others.trailingZeroBitCount
            guard bits > 7 else { return nil }
            end &+= 1 &+ bits >> 3
            rest = unsafe opening.word(uncheckedAt: end)
        }
        let space = UInt64(UInt8(ascii: " "))
        if rest & 0xffff == UInt64(UInt8(ascii: "Z")) | space << 8 {
            end &+= 1
        } else {
            guard unsafe rest & 0xff_ffff_ffff_ffff == exact[unchecked: index].zone else { return nil }
            end &+= 6
        }
        text.put(",\"timestamp\":\"")
        unsafe text.put(uncheckedFrom: opening, at, end)
        text.put("\"")
        return end &+ 1
    }

    /// Learns a time that is written as it was sent.
    mutating func learnExact(_ opening: Span<UInt8>, _ time: SyslogMessage.Part) {
        let (at, end) = (time.range.lowerBound, time.range.upperBound)
        let high = unsafe opening.word(uncheckedAt: at + 11)
        let index = Self.index(exact: high)
        var new = unsafe Exact(
            low: opening.word(uncheckedAt: at),
            middle: opening.word(uncheckedAt: at + 8),
            high: high
        )
        let old = exact[index]
        if (old.low, old.middle, old.high) == (new.low, new.middle, new.high) { new.zone = old.zone }
        let tail = unsafe opening.word(uncheckedAt: end - 6)
        if tail >> 40 & 0xff != UInt64(UInt8(ascii: "Z")), tail >> 48 & 0xff == UInt64(UInt8(ascii: " ")) {
            new.zone = tail & 0xff_ffff_ffff_ffff
        }
        exact[index] = new
    }
}

extension Span<UInt8> {
    /// Eight bytes that are there: not asked.
    @unsafe @inline(__always)
    func word(uncheckedAt offset: Int) -> UInt64 {
        unsafe UInt64(littleEndian: bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt64.self))
    }
}
