internal import Bytes
internal import CText

/// JSON text that is written into memory of the caller's, which has `slack` bytes behind what may be used.
@safe
struct ObjectText {
    /// Steps of sixteen bytes may write so far behind the end.
    static let slack = 64

    private let memory: UnsafeMutableRawPointer
    /// Text of any length ends here at the latest; what is bounded counts on room behind it.
    private var limit: Int
    private(set) var count = 0

    /// - Parameter reserve: bytes to keep free behind text of any length.
    @unsafe
    init(_ memory: UnsafeMutableRawBufferPointer, reserve: Int) {
        unsafe self.memory = memory.baseAddress!
        limit = memory.count - Self.slack - reserve
    }

    // MARK: what is bounded

    /// Fixed text.
    @inline(__always)
    mutating func put(_ text: StaticString) {
        unsafe (memory + count).copyMemory(from: text.utf8Start, byteCount: text.utf8CodeUnitCount)
        count &+= text.utf8CodeUnitCount
    }

    /// Text that was prepared.
    @inline(__always)
    mutating func put(_ piece: borrowing PreparedText) {
        count &+= unsafe piece.copy(to: memory + count)
    }

    /// Up to 48 bytes of a message that has as many from `start` on.
    @unsafe @inline(__always)
    mutating func put(uncheckedFrom bytes: Span<UInt8>, _ start: Int, _ end: Int) {
        let from = unsafe bytes.withUnsafeBytes { unsafe $0.baseAddress.unsafelyUnwrapped + start }
        for at in [0, 16, 32] {
            unsafe (memory + (count &+ at)).storeBytes(
                of: (from + at).loadUnaligned(as: SIMD16<UInt8>.self),
                as: SIMD16<UInt8>.self
            )
        }
        count &+= end &- start
    }

    /// Where text may be written that is counted afterwards.
    @unsafe @inline(__always) var end: UnsafeMutableRawPointer { unsafe memory + count }

    /// Counts what was written there.
    @inline(__always) mutating func count(_ more: Int) { count &+= more }

    /// Six decimal digits.
    @inline(__always)
    mutating func put(sixDigits value: UInt64) {
        put(pair: value / 10_000, at: count)
        let rest = value % 10_000
        put(pair: rest / 100, at: count &+ 2)
        put(pair: rest % 100, at: count &+ 4)
        count &+= 6
    }

    @inline(__always)
    private func put(pair: UInt64, at place: Int) {
        let digits = unsafe UnsafeRawPointer(Self.pairs.utf8Start).loadUnaligned(
            fromByteOffset: Int(pair) &* 2,
            as: UInt16.self
        )
        unsafe memory.storeBytes(of: digits, toByteOffset: place, as: UInt16.self)
    }

    /// `00` to `99`.
    private static var pairs: StaticString {
        """
        00010203040506070809101112131415161718192021222324\
        25262728293031323334353637383940414243444546474849\
        50515253545556575859606162636465666768697071727374\
        75767778798081828384858687888990919293949596979899
        """
    }

    /// A field of a message's head, escaped; `part` has `SyslogReader.longestField` bytes at most.
    @inline(__always)
    mutating func put(_ part: SyslogMessage.Part, of bytes: Span<UInt8>) {
        let (start, size) = (Int(part.start), Int(part.count))
        var done = 0
        while done < size {
            let block = bytes.block(at: start &+ done)
            unsafe (memory + (count &+ done)).storeBytes(of: block, as: SIMD16<UInt8>.self)
            let rest = size &- done
            let others = ctext_not_plain(block)
            // What stands behind the field does not count.
            if others != 0, others.trailingZeroBitCount < rest {
                count &+= done
                escape(bytes, start + done, start + size, limit: .max)
                return
            }
            done &+= 16
        }
        count &+= size
    }

    /// A member of which the value is a field; nothing if that is empty.
    @inline(__always)
    mutating func put(_ key: StaticString, _ part: SyslogMessage.Part, of bytes: Span<UInt8>) {
        guard !part.isEmpty else { return }
        put(key)
        put(part, of: bytes)
        put("\"")
    }

    // MARK: what has any length

    /// Keeps so many more bytes free.
    mutating func setAside(_ more: Int) { limit -= more }

    func hasRoom(for more: Int) -> Bool { limit - count >= more }

    /// What was written from `start` on.
    func prepared(from start: Int) -> PreparedText { withText(start..<count) { PreparedText($0) } }

    /// What was written.
    func withText<Result>(_ range: Range<Int>, _ body: (Span<UInt8>) -> Result) -> Result {
        unsafe body(Span(_unsafeBytes: UnsafeRawBufferPointer(start: memory + range.lowerBound, count: range.count)))
    }

    /// Takes back everything behind `count`.
    mutating func rewind(to count: Int) { self.count = count }

    /// The bytes from `start` to `end` as the inside of a JSON string, as far as there is room.
    ///
    /// What is no UTF-8 becomes U+FFFD, one for each part that could not go on.
    /// - Returns: false if the text was cut, between characters.
    @inline(__always)
    mutating func escape(_ bytes: Span<UInt8>, _ start: Int, _ end: Int) -> Bool {
        // Most often all of it is plain, and there is room for it.
        precondition(start >= 0 && start <= end && end <= bytes.count)
        var at = start
        if end &- start <= limit &- count {
            let plain = unsafe bytes.withUnsafeBytes {
                unsafe ctext_copy_plain(memory + count, $0.baseAddress.unsafelyUnwrapped + at, end &- start)
            }
            count &+= plain
            at &+= plain
            if at == end { return true }
        }
        return escape(bytes, at, end, limit: limit)
    }

    @discardableResult
    @inline(never)
    private mutating func escape(_ bytes: Span<UInt8>, _ start: Int, _ end: Int, limit: Int) -> Bool {
        precondition(start >= 0 && end <= bytes.count)
        var at = start
        while at < end {
            let room = limit - count
            guard room > 0 else { return false }
            let plain = unsafe bytes.withUnsafeBytes {
                unsafe ctext_copy_plain(memory + count, $0.baseAddress! + at, min(end - at, room))
            }
            at += plain
            count += plain
            // Most often one needs several in a row: other alphabets.
            while at < end, !Self.isPlain(bytes[at]) {
                guard limit - count >= 6 else { return false }
                at = putOne(bytes, at, end)
            }
        }
        return true
    }

    @inline(__always)
    private static func isPlain(_ byte: UInt8) -> Bool {
        byte >= 0x20 && byte < 0x80 && byte != UInt8(ascii: "\"") && byte != UInt8(ascii: "\\")
    }

    /// One character that is not plain: six bytes at most.
    ///
    /// - Returns: where the next one begins.
    private mutating func putOne(_ bytes: Span<UInt8>, _ at: Int, _ end: Int) -> Int {
        let byte = bytes[at]
        switch byte {
        case UInt8(ascii: "\""): put("\\\"")
        case UInt8(ascii: "\\"): put("\\\\")
        case 0x0a: put("\\n")
        case 0x0d: put("\\r")
        case 0x09: put("\\t")
        case 0..<0x20:
            put("\\u00")
            put(byte: UInt8(ascii: "0") + byte >> 4)
            put(byte: byte & 15 < 10 ? UInt8(ascii: "0") + byte & 15 : UInt8(ascii: "a") - 10 + byte & 15)
        default:
            let (size, isWhole) = Self.character(bytes, at, end)
            guard isWhole else {
                put("\u{fffd}")
                return at + size
            }
            for index in at..<at + size { put(byte: bytes[index]) }
            return at + size
        }
        return at + 1
    }

    @inline(__always)
    private mutating func put(byte: UInt8) {
        unsafe memory.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
        count += 1
    }

    /// The length of the UTF-8 character at `at`; or of the part of one that could not go on (Unicode 3.9, table 3-7).
    @inline(__always)
    private static func character(_ bytes: Span<UInt8>, _ at: Int, _ end: Int) -> (size: Int, isWhole: Bool) {
        let first = bytes[at]
        let size: Int
        var second: ClosedRange<UInt8> = 0x80...0xbf
        switch first {
        case 0xc2...0xdf: size = 2
        case 0xe0: (size, second) = (3, 0xa0...0xbf)
        case 0xed: (size, second) = (3, 0x80...0x9f)
        case 0xe1...0xef: size = 3
        case 0xf0: (size, second) = (4, 0x90...0xbf)
        case 0xf4: (size, second) = (4, 0x80...0x8f)
        case 0xf1...0xf3: size = 4
        default: return (1, false)
        }
        guard at + 1 < end, second.contains(bytes[at + 1]) else { return (1, false) }
        for index in 2..<max(size, 2) {
            guard at + index < end, bytes[at + index] & 0xc0 == 0x80 else { return (index, false) }
        }
        return (size, true)
    }
}
