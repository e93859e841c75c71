public import Bytes
internal import CMD5
internal import COpenSSL
internal import CSHA256

/// MD5 sums, for hash keys.
@safe
public struct MD5: ~Copyable {
    public init() {}

    /// The 16 bytes of the sum of `bytes`.
    public func sum(of bytes: Span<UInt8>) -> InlineArray<16, UInt8> {
        var sum = InlineArray<16, UInt8>(repeating: 0)
        var out = sum.mutableSpan
        unsafe bytes.withUnsafeBytes { input in
            unsafe out.withUnsafeMutableBufferPointer { out in
                var message = unsafe cmd5_message(bytes: input.baseAddress, count: input.count, sum: out.baseAddress)
                unsafe cmd5_sums(&message, 1, cmd5_one)
            }
        }
        return sum
    }
}

// By OpenSSL. Each value keeps one context, so that hashing allocates nothing.

/// SHA-256 over pieces: `update` any number of times, then `finish`, which makes it ready for the next.
@safe
public struct SHA256: ~Copyable {
    private let context: OpaquePointer
    /// OpenSSL takes longer to find it by its name than to hash a request's head.
    private nonisolated(unsafe) static let method: OpaquePointer = unsafe EVP_MD_fetch(nil, "SHA256", nil)

    public init() {
        unsafe context = EVP_MD_CTX_new()
        unsafe EVP_DigestInit_ex2(context, Self.method, nil)
    }

    deinit { unsafe EVP_MD_CTX_free(context) }

    public mutating func update(_ bytes: Span<UInt8>) {
        unsafe bytes.withUnsafeBytes { unsafe _ = EVP_DigestUpdate(context, $0.baseAddress, $0.count) }
    }

    private mutating func update(_ piece: BodyPiece) {
        guard piece.isBase64 else { return unsafe update(Span(_unsafeBytes: piece.bytes)) }
        unsafe withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 16) { room in
            var offset = 0
            while offset < piece.count {
                let size = unsafe piece.write(from: offset, to: room)
                unsafe update(Span(_unsafeBytes: UnsafeRawBufferPointer(rebasing: room[..<size])))
                offset += size
            }
        }
    }

    public mutating func finish() -> InlineArray<32, UInt8> {
        var sum = InlineArray<32, UInt8>(repeating: 0)
        var out = sum.mutableSpan
        unsafe out.withUnsafeMutableBufferPointer { unsafe _ = EVP_DigestFinal_ex(context, $0.baseAddress, nil) }
        unsafe EVP_DigestInit_ex2(context, Self.method, nil)
        return sum
    }

    /// How many messages this machine hashes best side by side, which takes less than one after the other.
    public static let lanes = csha256_best()
    /// How many it can.
    public static let mostLanes = csha256_most()
    private static let leastSideBySide = csha256_least()

    /// The sums of messages in pieces, side by side where that takes less.
    ///
    /// - Parameter lanes: how many side by side: `Self.lanes` or `mostLanes`.
    public mutating func sums(of messages: [[BodyPiece]], lanes: Int = Self.lanes) -> [InlineArray<32, UInt8>] {
        guard messages.count >= Self.leastSideBySide else {
            return messages.indices.map { index in
                for piece in messages[index] { update(piece) }
                return finish()
            }
        }
        var sums = [InlineArray<32, UInt8>](repeating: InlineArray(repeating: 0), count: messages.count)
        let pieces = unsafe messages.flatMap {
            unsafe $0.map {
                unsafe csha256_piece(bytes: $0.bytes.baseAddress, count: $0.bytes.count, is_base64: $0.isBase64)
            }
        }
        unsafe sums.withUnsafeMutableBytes { sums in
            unsafe pieces.withUnsafeBufferPointer { pieces in
                var first = 0
                let whole = unsafe messages.indices.map { index in
                    defer { first += messages[index].count }
                    return unsafe csha256_message(
                        pieces: pieces.baseAddress.map { unsafe $0 + first },
                        count: messages[index].count,
                        sum: sums.baseAddress! + index * 32
                    )
                }
                unsafe csha256_sums(whole, whole.count, lanes)
            }
        }
        return sums
    }

    /// The sum of `text`, in lower-case hexadecimal.
    public static func hexadecimal(of text: [UInt8]) -> String {
        var sha = SHA256()
        sha.update(text.span)
        return hexadecimalText(sha.finish().span)
    }
}

/// HMAC-SHA-256 of `message` under `key`.
func hmacSHA256(key: [UInt8], _ message: [UInt8]) -> [UInt8] {
    var out = [UInt8](repeating: 0, count: 32)
    var count: UInt32 = 32
    unsafe HMAC(EVP_sha256(), key, Int32(key.count), message, message.count, &out, &count)
    return out
}

/// `bytes` in lower-case hexadecimal.
public func hexadecimalText(_ bytes: Span<UInt8>) -> String {
    let digits = Array("0123456789abcdef".utf8)
    return unsafe String(unsafeUninitializedCapacity: bytes.count * 2) { out in
        for index in bytes.indices {
            unsafe out[index * 2] = digits[Int(bytes[index] >> 4)]
            unsafe out[index * 2 + 1] = digits[Int(bytes[index] & 15)]
        }
        return bytes.count * 2
    }
}
