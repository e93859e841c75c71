import Bytes
import CZlib
import Glibc
import Kinesis
import Seeded
import Testing

/// Memory behind which nothing can be read.
@safe
private struct GuardedBytes: ~Copyable {
    private let memory: UnsafeMutableRawBufferPointer
    private static let pages = 64 << 10

    init(_ count: Int) {
        let count = (count + Self.pages - 1) / Self.pages * Self.pages
        let start = unsafe mmap(
            nil,
            count + Self.pages,
            PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS,
            -1,
            0
        )!
        precondition(unsafe start != MAP_FAILED && mprotect(start + count, Self.pages, PROT_NONE) == 0)
        unsafe memory = UnsafeMutableRawBufferPointer(start: start, count: count)
    }

    deinit { unsafe munmap(memory.baseAddress!, memory.count + Self.pages) }

    /// Lends a copy of `bytes` that ends where the memory does.
    func withCopy<Result>(of bytes: [UInt8], _ body: (Span<UInt8>) -> Result) -> Result {
        let copy = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[(memory.count - bytes.count)...])
        unsafe copy.copyBytes(from: bytes)
        return unsafe body(Span(_unsafeBytes: UnsafeRawBufferPointer(copy)))
    }
}

@Suite struct GzipWriterTests {
    /// What zlib reads; nil unless `packed` is one member and nothing else, of `count` bytes.
    private static func inflated(_ packed: [UInt8], count: Int) -> [UInt8]? {
        var packed = packed
        var stream = unsafe z_stream()
        // 15 bits of window, and 16 for gzip's head and checksum.
        guard unsafe czlib_inflate_init(&stream, 15 + 16) == Z_OK else { return nil }
        defer { unsafe inflateEnd(&stream) }
        var result = Z_OK
        // One more than there should be, so that what is too long is told.
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count + 1) { room, used in
            unsafe packed.withUnsafeMutableBufferPointer { packed in
                unsafe (stream.next_in, stream.avail_in) = (packed.baseAddress, UInt32(packed.count))
                unsafe (stream.next_out, stream.avail_out) = (room.baseAddress, UInt32(room.count))
                result = unsafe inflate(&stream, Z_FINISH)
                used = unsafe room.count - Int(stream.avail_out)
            }
        }
        return unsafe result == Z_STREAM_END && stream.avail_in == 0 ? bytes : nil
    }

    /// Bytes that compress well, badly, not at all, or in parts.
    private static func bytes(_ count: Int, _ random: inout Random) -> [UInt8] {
        let letters = 1 + random.below(256)
        let period = 1 + random.below(40_000)
        switch random.below(5) {
        case 0: return random.bytes(count)
        case 1: return (0..<count).map { _ in UInt8(random.below(letters)) }
        case 2: return [UInt8](repeating: UInt8(letters - 1), count: count)
        case 3:
            let noise = random.bytes(period)
            return (0..<count).map { noise[$0 % period] }
        default:
            let noise = random.bytes(count)
            return (0..<count).map { $0 / period % 2 == 0 ? noise[$0] : UInt8(97 + $0 % 20) }
        }
    }

    @Test func `zlib reads what was packed, of any size, and nothing behind a piece is read for it`() {
        var random = Random()
        let memory = GuardedBytes(GzipWriter.largestBlock)
        let writer = GzipWriter()
        var sizes = Array(0...40)
        // isa-l's window and its buffer, and a stored block's end.
        for border in [32 << 10, 64 << 10, 65_535, 96 << 10] {
            sizes += (0..<10).map { _ in border - 400 + random.below(800) }
        }
        sizes += (0..<100).map { _ in random.below(3000) }
        sizes += (0..<60).map { _ in random.below(GzipWriter.largestBlock) } + [GzipWriter.largestBlock]
        for size in sizes.shuffled(using: &random) {
            let plain = Self.bytes(size, &random)
            let packed = memory.withCopy(of: plain) { writer.packed($0) { Array($0) } }
            #expect(Self.inflated(packed, count: size) == plain, random.note)
        }
    }

    @Test func `a piece is packed the same whatever was packed before`() {
        var random = Random()
        let worn = GzipWriter()
        for _ in 0..<200 {
            let plain = Self.bytes(random.below(random.oneIn(10) ? 200_000 : 3000), &random)
            let packed = worn.packed(plain.span) { Array($0) }
            #expect(packed == GzipWriter().packed(plain.span) { Array($0) }, random.note)
        }
    }

    @Test(arguments: [1, 200, 50_000, GzipWriter.largestBlock, Limits.longestRecord(of: 10 << 20, isPacked: true)])
    func `what cannot be compressed still fits the stream`(size: Int) {
        var random = Random()
        let plain = random.bytes(size)
        let packed = GzipWriter().packed(plain.span) { Array($0) }
        #expect(packed.count <= size + 64 + size >> 12, random.note)
        #expect(Self.inflated(packed, count: size) == plain, random.note)
    }
}
