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

    public mutating func finish() -> InlineArray<32, UInt8> {
        var sum = InlineArray<32, UInt8>(repeating: 0)
        var out = sum.mutableSpan
        unsafe out.withUnsafeMutableBufferPointer { unsafe _ = EVP_DigestFinal_ex(context, $0.baseAddress, nil) }
        unsafe EVP_DigestInit_ex2(context, Self.method, nil)
        return sum
    }

    /// Whether this machine hashes two messages side by side, which takes less than one after the other.
    public static let canPair = csha256_can_pair()

    /// The sums of two messages in pieces, hashed side by side; only where `canPair` says so.
    @unsafe
    public static func pair(
        _ one: [UnsafeRawBufferPointer],
        _ other: [UnsafeRawBufferPointer]
    ) -> (InlineArray<32, UInt8>, InlineArray<32, UInt8>) {
        precondition(canPair)
        var sums = InlineArray<64, UInt8>(repeating: 0)
        var out = sums.mutableSpan
        let pieces = unsafe (one + other).map { unsafe csha256_piece(bytes: $0.baseAddress, count: $0.count) }
        unsafe out.withUnsafeMutableBufferPointer { out in
            unsafe pieces.withUnsafeBufferPointer { pieces in
                let (base, sum) = (pieces.baseAddress, out.baseAddress!)
                var first = unsafe csha256_message(pieces: base, count: one.count, sum: sum)
                var second = unsafe csha256_message(
                    pieces: base.map { unsafe $0 + one.count },
                    count: other.count,
                    sum: sum + 32
                )
                unsafe csha256_pair(&first, &second)
            }
        }
        return (InlineArray { sums[$0] }, InlineArray { sums[32 + $0] })
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
