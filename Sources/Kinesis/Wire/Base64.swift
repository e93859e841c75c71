internal import CBase64
public import Bytes

/// Base64 with padding (RFC 4648), as JSON carries record data.
public enum Base64 {
    /// Characters that `count` bytes become.
    public static func size(of count: Int) -> Int { cbase64_size(count) }

    /// Appends `bytes` in base64.
    public static func encode(_ bytes: Span<UInt8>, to out: inout ByteWriter) {
        let size = size(of: bytes.count)
        unsafe out.append(upTo: size) { room in
            unsafe bytes.withUnsafeBytes { unsafe cbase64_encode($0.baseAddress, $0.count, room.baseAddress) }
            return size
        }
    }

    /// The bytes that `text` stands for; nil when it is not base64.
    ///
    /// Not base64: a strange character, a length that is no multiple of four, padding in the middle.
    public static func decode(_ text: Span<UInt8>) -> [UInt8]? {
        guard text.count % 4 == 0 else { return nil }
        guard text.count > 0 else { return [] }
        let padding = text[text.count - 1] == pad ? (text[text.count - 2] == pad ? 2 : 1) : 0
        let count = text.count / 4 * 3 - padding
        var seen: UInt32 = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { out, used in
            unsafe text.withUnsafeBufferPointer { text in
                unsafe digits.withUnsafeBufferPointer { digits in
                    let whole = text.count / 4 - (padding > 0 ? 1 : 0)
                    for group in 0..<whole {
                        let at = group * 4
                        let bits =
                            unsafe digits[Int(text[at])] << 18 | digits[Int(text[at + 1])] << 12
                            | digits[Int(text[at + 2])] << 6 | digits[Int(text[at + 3])]
                        seen |= bits
                        let to = group * 3
                        unsafe out[to] = UInt8(truncatingIfNeeded: bits >> 16)
                        unsafe out[to + 1] = UInt8(truncatingIfNeeded: bits >> 8)
                        unsafe out[to + 2] = UInt8(truncatingIfNeeded: bits)
                    }
                    guard padding > 0 else { return }
                    var bits: UInt32 = 0
                    for offset in 0..<4 - padding {
                        unsafe bits |= digits[Int(text[whole * 4 + offset])] << UInt32(18 - 6 * offset)
                    }
                    seen |= bits
                    unsafe out[whole * 3] = UInt8(truncatingIfNeeded: bits >> 16)
                    if padding == 1 { unsafe out[whole * 3 + 1] = UInt8(truncatingIfNeeded: bits >> 8) }
                }
            }
            used = count
        }
        return seen < strange ? bytes : nil
    }

    private static let pad = UInt8(ascii: "=")

    /// Marks a character that is none of the alphabet, wherever it stands in its group: each shift leaves a bit of it above
    /// the 24 that count.
    private static let strange: UInt32 = 1 << 24

    /// A character's six bits; for one that is none, bits that end up above the 24th by every shift.
    private static let digits: [UInt32] = {
        var digits = [UInt32](repeating: 1 << 24 | 1 << 18 | 1 << 12 | 1 << 6, count: 256)
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        for (value, character) in alphabet.utf8.enumerated() { digits[Int(character)] = UInt32(value) }
        return digits
    }()
}
