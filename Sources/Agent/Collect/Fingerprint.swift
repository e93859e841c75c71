package import Kinesis

/// The first half of a SHA-256 sum: tells one content from another, in memory and in the state file.
package struct Fingerprint: Hashable, Sendable {
    private let high: UInt64
    private let low: UInt64

    /// Of nothing that was read.
    package static let none = Fingerprint(high: 0, low: 0)

    private init(high: UInt64, low: UInt64) { (self.high, self.low) = (high, low) }

    /// - Parameter sha: any that is between two sums; making one costs more than the sum of a few hundred bytes.
    package init(of bytes: Span<UInt8>, _ sha: inout SHA256) {
        sha.update(bytes)
        let sum = sha.finish()
        var (high, low): (UInt64, UInt64) = (0, 0)
        for index in 0..<8 {
            high = high << 8 | UInt64(sum[index])
            low = low << 8 | UInt64(sum[index + 8])
        }
        self.init(high: high, low: low)
    }

    package init(of bytes: Span<UInt8>) {
        var sha = SHA256()
        self.init(of: bytes, &sha)
    }

    /// Reads hexadecimal digits, 32 at least; those behind belong to the sum's other half.
    package init?(hexadecimal text: String) {
        guard text.utf8.count >= 32, let high = UInt64(text.prefix(16), radix: 16),
            let low = UInt64(text.dropFirst(16).prefix(16), radix: 16)
        else { return nil }
        self.init(high: high, low: low)
    }

    package var hexadecimal: String {
        func padded(_ half: UInt64) -> String {
            let text = String(half, radix: 16)
            return String(repeating: "0", count: 16 - text.count) + text
        }
        return padded(high) + padded(low)
    }
}
