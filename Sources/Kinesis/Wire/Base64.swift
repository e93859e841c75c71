internal import COpenSSL
public import Bytes

/// Base64 with padding (RFC 4648), as JSON carries record data.
public enum Base64 {
    /// Characters that `count` bytes become.
    public static func size(of count: Int) -> Int { (count + 2) / 3 * 4 }

    /// Appends `bytes` in base64.
    public static func encode(_ bytes: Span<UInt8>, to out: inout ByteWriter) {
        // OpenSSL's block call writes a NUL behind its output and takes the count as an Int32.
        var start = 0
        while start < bytes.count {
            let piece = bytes.extracting(start..<min(start + 3 << 20, bytes.count))
            let size = size(of: piece.count)
            unsafe out.append(upTo: size + 1) { room in
                unsafe piece.withUnsafeBytes {
                    _ = unsafe EVP_EncodeBlock(
                        room.baseAddress!.assumingMemoryBound(to: UInt8.self),
                        $0.baseAddress!.assumingMemoryBound(to: UInt8.self),
                        Int32(piece.count)
                    )
                }
                return size
            }
            start += piece.count
        }
    }

    /// The bytes that `text` stands for; nil when it is not base64: a strange character, a length that is no multiple of
    /// four, padding in the middle.
    public static func decode(_ text: Span<UInt8>) -> [UInt8]? {
        guard text.count % 4 == 0 else { return nil }
        guard text.count > 0 else { return [] }
        let padding = text[text.count - 1] == pad ? (text[text.count - 2] == pad ? 2 : 1) : 0
        let count = text.count / 4 * 3 - padding
        var valid = true
        let digits = digits
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count + 2) { out, used in
            var (at, to) = (0, 0)
            var seen: UInt32 = 0
            while at < text.count {
                let last = at + 4 == text.count
                var group: UInt32 = 0
                for offset in 0..<4 {
                    let byte = text[at + offset]
                    let digit = last && offset >= 4 - padding ? 0 : UInt32(digits[Int(byte)])
                    seen |= digit
                    group = group << 6 | digit & 63
                }
                unsafe out[to] = UInt8(truncatingIfNeeded: group >> 16)
                if to + 1 < count + 2 { unsafe out[to + 1] = UInt8(truncatingIfNeeded: group >> 8) }
                if to + 2 < count + 2 { unsafe out[to + 2] = UInt8(truncatingIfNeeded: group) }
                (at, to) = (at + 4, to + 3)
            }
            valid = seen < 64
            used = count
        }
        return valid ? bytes : nil
    }

    private static let pad = UInt8(ascii: "=")

    /// A character's six bits; 64 for one that is none.
    private static let digits: [UInt8] = {
        var digits = [UInt8](repeating: 64, count: 256)
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        for (value, character) in alphabet.utf8.enumerated() { digits[Int(character)] = UInt8(value) }
        return digits
    }()
}
