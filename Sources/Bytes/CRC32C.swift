internal import CCRC32C

/// CRC-32C (Castagnoli): what tells bytes on a disk from those that were written there.
///
/// By the processor's own instruction where it has one: some 8 GB/s.
public struct CRC32C: Sendable {
    /// The sum of everything so far.
    public private(set) var value: UInt32 = 0

    public init() {}

    public init(_ bytes: Span<UInt8>) { update(bytes) }

    public mutating func update(_ bytes: Span<UInt8>) {
        unsafe bytes.withUnsafeBytes { unsafe update($0) }
    }

    @unsafe
    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        value = unsafe ccrc32c_update(value, bytes.baseAddress, bytes.count)
    }
}
