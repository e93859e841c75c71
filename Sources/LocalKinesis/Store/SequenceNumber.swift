/// A record's place in its shard, in the layout that the service's own numbers have.
///
/// 47 hexadecimal digits, written in decimal, which makes 56 digits that begin with 49:
///
///     2 | shard created, s: 9 | shard & 15: 1 | index: 16 | 00 | record arrived, s: 9 | shard: 8 | 2
///
/// The index counts a shard's records, so numbers of one shard grow strictly, and with time. Index 0 is the shard's own
/// starting number, which no record has.
///
/// Source: sequence numbers of the service, as kinesalite takes them apart.
struct SequenceNumber: Equatable, Sendable {
    /// Seconds since 1970 at which the shard was created.
    var created: Int64
    var shard: UInt32
    var index: UInt64
    /// Seconds since 1970 at which the record arrived.
    var time: Int64

    init(created: Int64, shard: UInt32, index: UInt64, time: Int64) {
        (self.created, self.shard, self.index, self.time) = (created, shard, index, time)
    }

    /// Reads the decimal form; nil for a number that no shard can have given.
    init?(_ text: String) {
        guard text.utf8.count == 56 else { return nil }
        var limbs: (UInt64, UInt64, UInt64) = (0, 0, 0)
        for digit in text.utf8 {
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
            var carry = UInt128(digit - UInt8(ascii: "0"))
            carry += UInt128(limbs.0) * 10
            limbs.0 = UInt64(truncatingIfNeeded: carry)
            carry = carry >> 64 + UInt128(limbs.1) * 10
            limbs.1 = UInt64(truncatingIfNeeded: carry)
            carry = carry >> 64 + UInt128(limbs.2) * 10
            limbs.2 = UInt64(truncatingIfNeeded: carry)
            if carry >> 64 != 0 { return nil }
        }
        shard = UInt32(truncatingIfNeeded: limbs.0 >> 4)
        time = Int64(limbs.0 >> 36 | (limbs.1 & 0xff) << 28)
        index = limbs.1 >> 16 | limbs.2 << 48
        created = Int64(limbs.2 >> 20 & Self.times)
        guard self.limbs == limbs else { return nil }
    }

    /// A time's 36 bits.
    private static let times: UInt64 = 1 << 36 - 1

    /// The number in 64-bit limbs, lowest first.
    private var limbs: (UInt64, UInt64, UInt64) {
        let (created, time) = (UInt64(max(0, created)) & Self.times, UInt64(max(0, time)) & Self.times)
        return (
            2 | UInt64(shard) << 4 | time << 36,
            time >> 28 | index << 16,
            index >> 48 | UInt64(shard & 15) << 16 | created << 20 | 2 << 56
        )
    }
}

extension SequenceNumber: CustomStringConvertible {
    /// The decimal form of the API.
    var description: String {
        // Nineteen digits at a time: the most that fit a limb. The rest after two divisions has 18.
        let chunk: UInt64 = 10_000_000_000_000_000_000
        var (low, middle, high) = limbs
        func divide() -> UInt64 {
            var remainder: UInt64 = 0
            (high, remainder) = chunk.dividingFullWidth((0, high))
            (middle, remainder) = chunk.dividingFullWidth((remainder, middle))
            (low, remainder) = chunk.dividingFullWidth((remainder, low))
            return remainder
        }
        let last = divide()
        let second = divide()
        var (digits, chunks) = (56, (last, second, low))
        return unsafe String(unsafeUninitializedCapacity: 56) { out in
            while digits > 0 {
                digits -= 1
                unsafe out[digits] = UInt8(ascii: "0") + UInt8(chunks.0 % 10)
                chunks.0 /= 10
                if digits == 37 { chunks.0 = chunks.1 }
                if digits == 18 { chunks.0 = chunks.2 }
            }
            return 56
        }
    }
}
