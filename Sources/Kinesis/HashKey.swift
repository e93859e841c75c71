/// A place on the ring of 2^128 hash keys that a stream's shards divide among them.
public struct HashKey: Hashable, Comparable, Sendable {
    public let value: UInt128

    public init(_ value: UInt128) { self.value = value }

    /// The hash key Kinesis gives a partition key: its MD5 read as a big-endian number.
    public init(partitionKey: Span<UInt8>, _ md5: borrowing MD5) {
        self.init(bytes: md5.sum(of: partitionKey).span)
    }

    /// The number that 16 bytes are, the highest first.
    init(bytes: Span<UInt8>) {
        precondition(bytes.count == 16)
        value = unsafe bytes.withUnsafeBytes { unsafe UInt128(bigEndian: $0.loadUnaligned(as: UInt128.self)) }
    }

    /// Reads the decimal form of the API: digits only, no leading zeros, at most 2^128 - 1.
    public init?(decimal text: String) {
        let digits = text.utf8
        guard (1...39).contains(digits.count), digits.count == 1 || digits.first != UInt8(ascii: "0") else {
            return nil
        }
        var value: UInt128 = 0
        for digit in digits {
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
            let (tens, over) = value.multipliedReportingOverflow(by: 10)
            let (sum, past) = tens.addingReportingOverflow(UInt128(digit - UInt8(ascii: "0")))
            if over || past { return nil }
            value = sum
        }
        self.value = value
    }

    public static let lowest = HashKey(0)
    public static let highest = HashKey(.max)

    public static func < (left: Self, right: Self) -> Bool { left.value < right.value }
}

extension HashKey: CustomStringConvertible {
    /// The decimal form of the API.
    public var description: String { String(value) }
}
