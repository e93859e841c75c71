import CZlib

/// zlib's level 1, with its usual memory.
@safe
final class ZlibWriter {
    private let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
    private var room: [UInt8]

    init(largest: Int) {
        unsafe stream.initialize(to: z_stream())
        let size = unsafe Int32(MemoryLayout<z_stream>.size)
        // 15 bits of window, and 16 for gzip's head and checksum.
        let result = unsafe deflateInit2_(stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, size)
        precondition(result == Z_OK, "zlib has no memory")
        room = [UInt8](repeating: 0, count: unsafe Int(deflateBound(stream, UInt(largest))))
    }

    func packedCount(_ bytes: Span<UInt8>) -> Int {
        unsafe deflateReset(stream)
        return unsafe bytes.withUnsafeBufferPointer { input in
            unsafe room.withUnsafeMutableBufferPointer { room in
                unsafe stream.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
                unsafe stream.pointee.avail_in = UInt32(input.count)
                unsafe stream.pointee.next_out = room.baseAddress
                unsafe stream.pointee.avail_out = UInt32(room.count)
                let result = unsafe deflate(stream, Z_FINISH)
                precondition(result == Z_STREAM_END, "deflateBound is a bound")
                return unsafe room.count - Int(stream.pointee.avail_out)
            }
        }
    }
}
