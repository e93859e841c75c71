internal import Bytes
internal import Kinesis
internal import Synchronization

/// The two names that every answer gets, to be found again in logs.
///
/// Counted and mixed rather than drawn, for drawing costs a system call each.
final class RequestIDs: Sendable {
    private let seed: UInt64
    private let count = Atomic<UInt64>(0)

    /// - Parameter seed: makes two servers' names differ.
    init(seed: UInt64) { self.seed = seed }

    /// `x-amzn-RequestId`, a UUID, and `x-amz-id-2`, base64.
    func next() -> (requestID: String, secondID: String) {
        let number = count.add(1, ordering: .relaxed).newValue
        var bytes: [UInt8] = []
        bytes.reserveCapacity(72)
        for word in 0..<9 as Range<UInt64> {
            var mixed = SplitMix.mix(seed &+ number &* 16 &+ word)
            for _ in 0..<8 {
                bytes.append(UInt8(truncatingIfNeeded: mixed))
                mixed >>= 8
            }
        }
        var second = ByteWriter(capacity: 128)
        Base64.encode(bytes.span, to: &second)
        // Version 4 and variant 1, as RFC 4122 marks random ones.
        bytes[6] = bytes[6] & 0x0f | 0x40
        bytes[8] = bytes[8] & 0x3f | 0x80
        let hex = hexadecimalText(bytes.span.extracting(0..<16))
        var id = ""
        for (place, digit) in hex.enumerated() {
            if [8, 12, 16, 20].contains(place) { id.append("-") }
            id.append(digit)
        }
        return (id, String(decoding: second.array, as: UTF8.self))
    }
}
