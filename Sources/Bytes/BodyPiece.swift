internal import CBase64

/// A stretch of a call's body: bytes that are sent as they lie in memory, or in base64.
///
/// Base64 is made where it is needed, once to be hashed and once to be sent: that takes less than to write a body that is a
/// third larger than its records into memory and to read it twice, and a call needs no memory but its records'.
@safe
public struct BodyPiece {
    /// What it is made of; it must stay where it is.
    @unsafe public let bytes: UnsafeRawBufferPointer
    public let isBase64: Bool
    /// Bytes of the body.
    public let count: Int

    @unsafe
    public init(_ bytes: UnsafeRawBufferPointer) { unsafe (self.bytes, isBase64, count) = (bytes, false, bytes.count) }

    /// `bytes` in base64, with padding.
    @unsafe
    public init(base64Of bytes: UnsafeRawBufferPointer) {
        unsafe (self.bytes, isBase64, count) = (bytes, true, cbase64_size(bytes.count))
    }

    /// Writes the body's bytes from `offset` on, as many as there are and as `room` takes.
    ///
    /// - Returns: how many.
    @unsafe
    public func write(from offset: Int, to room: UnsafeMutableRawBufferPointer) -> Int {
        let size = min(count - offset, room.count)
        guard size > 0 else { return 0 }
        if isBase64 {
            unsafe cbase64_encode_part(cbase64_best(), bytes.baseAddress, bytes.count, offset, room.baseAddress, size)
        } else {
            unsafe room.baseAddress!.copyMemory(from: bytes.baseAddress! + offset, byteCount: size)
        }
        return size
    }
}
