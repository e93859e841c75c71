internal import CZlib

// Concurrency: belongs to its lane's thread.

/// What of a record is compressed.
public enum Compression: String, CaseIterable, Sendable {
    case none
    /// A block of lines, which becomes one Kinesis record.
    case gzip
    /// Each record by itself.
    case gzipRecord = "gzip_record"
}

/// Writes gzip, one piece at a time, and knows how well the last blocks were compressed.
@safe
public final class GzipWriter {
    /// The knee of the curve.
    ///
    /// Blocks of 256 KiB, access logs and JSON lines: level 1 does 390 and 188 MB/s down to 10.8 and 24.9 %, level 4 201 and
    /// 131 MB/s down to 9.7 and 20.4 %, level 6 137 and 52 MB/s down to 9.3 and 18.5 %.
    private static let level: Int32 = 4

    /// Made when it is needed: it takes 256 KiB.
    private var opened: UnsafeMutablePointer<z_stream>?
    private var room = unsafe UnsafeMutableRawBufferPointer(start: nil, count: 0)

    /// What a block's size becomes, as a part of it; begins with what logs do at worst.
    public private(set) var ratio = 0.25

    /// Bytes of a block at most: compressed by nothing at all, it is still a record that every stream takes.
    public static let largestBlock = 900 << 10
    /// Bytes of a block from which on it says something about others.
    private static let leastTelling = 16 << 10

    public init() {}

    deinit {
        unsafe room.deallocate()
        guard let stream = unsafe opened else { return }
        unsafe deflateEnd(stream)
        unsafe stream.deallocate()
    }

    /// The compressor, ready for another piece.
    private func stream() -> UnsafeMutablePointer<z_stream> {
        if let stream = unsafe opened {
            unsafe deflateReset(stream)
            return unsafe stream
        }
        let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
        unsafe stream.initialize(to: z_stream())
        // 15 bits of window, and 16 for gzip's head and checksum.
        let result = unsafe czlib_deflate_init(stream, Self.level, 15 + 16)
        precondition(result == Z_OK, "zlib has no memory")
        unsafe opened = stream
        return unsafe stream
    }

    /// Bytes of lines that become about `size` bytes.
    func blockSize(packedTo size: Int) -> Int { min(Self.largestBlock, Int(Double(size) / ratio)) }

    /// Lends `bytes` as one gzip member.
    func packed<Result>(_ bytes: Span<UInt8>, _ body: (Span<UInt8>) -> Result) -> Result {
        let stream = unsafe stream()
        let bound = unsafe Int(deflateBound(stream, UInt(bytes.count)))
        if unsafe room.count < bound {
            unsafe room.deallocate()
            unsafe room = .allocate(byteCount: bound, alignment: 16)
        }
        let result = unsafe bytes.withUnsafeBufferPointer { input in
            // zlib takes what it only reads as mutable.
            unsafe stream.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
            unsafe stream.pointee.avail_in = UInt32(input.count)
            unsafe stream.pointee.next_out = room.baseAddress!.assumingMemoryBound(to: UInt8.self)
            unsafe stream.pointee.avail_out = UInt32(room.count)
            return unsafe deflate(stream, Z_FINISH)
        }
        precondition(result == Z_STREAM_END, "deflateBound is a bound")
        let count = unsafe room.count - Int(stream.pointee.avail_out)
        return unsafe body(Span(_unsafeBytes: UnsafeRawBufferPointer(rebasing: room[..<count])))
    }

    /// The same for a block, from whose size that of the next ones is learned.
    func packed<Result>(block bytes: Span<UInt8>, _ body: (Span<UInt8>) -> Result) -> Result {
        packed(bytes) { packed in
            if bytes.count >= Self.leastTelling {
                let found = Double(packed.count) / Double(bytes.count)
                // What compresses worse than thought is believed at once: its records would be too large.
                ratio = max(found, ratio + (found - ratio) / 4)
            }
            return body(packed)
        }
    }
}
