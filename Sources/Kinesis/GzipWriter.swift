internal import CISAL

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
    /// Several times as fast as zlib's level 1, and smaller.
    ///
    /// Blocks of 256 KiB, access logs and JSON lines, on Sapphire Rapids: it does 1,100 and 815 MB/s down to 13.8 and 23.4 %. zlib's
    /// level 1 does 295 and 190 MB/s down to 14.8 and 25.5 %, its level 4 186 and 115 MB/s down to 12.5 and 23.0 %.
    /// libdeflate's level 1 does 460 and 300 MB/s down to 13.0 and 22.8 %, its level 6 200 and 155 MB/s down to 10.4 and
    /// 19.5 %. isa-l's level 1 is a twentieth faster and 0.8 % larger, its level 3 takes twice as long and more for 1 to
    /// 2 % less.
    private static let level: UInt32 = 2
    /// isa-l on arm64 loads eight bytes where fewer are left: the last ones are compressed out of memory that goes on.
    private static let tailSize = 8

    /// Made when it is needed: with the level's memory, behind which the tail lies, it takes 280 KiB.
    private var opened: UnsafeMutablePointer<isal_zstream>?
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
        unsafe stream.pointee.level_buf.deallocate()
        unsafe stream.deallocate()
    }

    /// The compressor, ready for another piece.
    private func stream() -> UnsafeMutablePointer<isal_zstream> {
        if let stream = unsafe opened {
            unsafe isal_deflate_reset(stream)
            // The last piece's head has changed it.
            unsafe stream.pointee.gzip_flag = UInt16(IGZIP_GZIP)
            return unsafe stream
        }
        let stream = UnsafeMutablePointer<isal_zstream>.allocate(capacity: 1)
        unsafe isal_deflate_init(stream)
        let size = Int(cisal_level_2_bytes)
        let memory = UnsafeMutablePointer<UInt8>.allocate(capacity: size + 2 * Self.tailSize)
        unsafe (memory + size).initialize(repeating: 0, count: 2 * Self.tailSize)
        unsafe stream.pointee.level = Self.level
        unsafe stream.pointee.level_buf = memory
        unsafe stream.pointee.level_buf_size = UInt32(size)
        unsafe stream.pointee.gzip_flag = UInt16(IGZIP_GZIP)
        unsafe opened = stream
        return unsafe stream
    }

    /// Bytes of lines that become about `size` bytes.
    func blockSize(packedTo size: Int) -> Int { min(Self.largestBlock, Int(Double(size) / ratio)) }

    /// Bytes that so many become at most.
    ///
    /// A literal takes 9 bits where no code is better, and a match less than what it stands for; gzip's head and those
    /// of deflate's blocks come on top.
    private static func bound(_ count: Int) -> Int { count + count / 8 + 1024 }

    /// Lends `bytes` as one gzip member.
    package func packed<Result>(_ bytes: Span<UInt8>, _ body: (Span<UInt8>) -> Result) -> Result {
        let bound = Self.bound(bytes.count)
        if unsafe room.count < bound {
            unsafe room.deallocate()
            unsafe room = .allocate(byteCount: bound, alignment: 16)
        }
        let stream = unsafe stream()
        unsafe stream.pointee.next_out = room.baseAddress!.assumingMemoryBound(to: UInt8.self)
        unsafe stream.pointee.avail_out = UInt32(room.count)
        unsafe bytes.withUnsafeBufferPointer { input in
            let rest = max(0, input.count - Self.tailSize)
            if rest > 0 { unsafe take(UnsafeBufferPointer(rebasing: input[..<rest]), isLast: false, stream) }
            let tail = unsafe stream.pointee.level_buf + Int(stream.pointee.level_buf_size)
            let last = unsafe UnsafeMutableBufferPointer(start: tail, count: input.count - rest)
            _ = unsafe last.update(fromContentsOf: input[rest...])
            unsafe take(UnsafeBufferPointer(last), isLast: true, stream)
        }
        let isEnded = unsafe stream.pointee.internal_state.state == ZSTATE_END
        precondition(isEnded, "what is packed fits its bound")
        let count = unsafe room.count - Int(stream.pointee.avail_out)
        return unsafe body(Span(_unsafeBytes: UnsafeRawBufferPointer(rebasing: room[..<count])))
    }

    private func take(_ input: UnsafeBufferPointer<UInt8>, isLast: Bool, _ stream: UnsafeMutablePointer<isal_zstream>) {
        // isa-l takes what it only reads as mutable.
        unsafe stream.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
        unsafe stream.pointee.avail_in = UInt32(input.count)
        unsafe stream.pointee.end_of_stream = isLast ? 1 : 0
        let result = unsafe isal_deflate(stream)
        let left = unsafe stream.pointee.avail_in
        precondition(result == COMP_OK && left == 0, "isa-l takes all that it has room for")
    }

    /// The same for a block, from whose size that of the next ones is learned.
    package func packed<Result>(block bytes: Span<UInt8>, _ body: (Span<UInt8>) -> Result) -> Result {
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
