// Blocks of lines packed by the product and by zlib's level 1, in turn: `gzip-benchmark FILE BLOCK PAIRS` prints the
// CPU seconds of each round and what the blocks became, as JSON. benchmarks/Gzip/run.py compares.

import Glibc
import Kinesis

func contents(of path: String) -> [UInt8] {
    guard let file = unsafe fopen(path, "r") else { fatalError("\(path) cannot be read") }
    defer { unsafe fclose(file) }
    unsafe fseek(file, 0, SEEK_END)
    let count = unsafe ftell(file)
    unsafe rewind(file)
    return unsafe [UInt8](unsafeUninitializedCapacity: count) { room, used in
        used = unsafe fread(room.baseAddress, 1, count, file)
    }
}

func cpuSeconds() -> Double {
    var time = timespec()
    unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// What one round took, and bytes that the blocks became.
struct Round {
    var seconds: Double
    var packed: Int

    /// - Parameter pack: packs a block and returns its size.
    init(_ text: [UInt8], _ blocks: [Range<Int>], _ pack: (Span<UInt8>) -> Int) {
        let began = cpuSeconds()
        packed = blocks.reduce(0) { $0 + pack(text.span.extracting($1)) }
        seconds = cpuSeconds() - began
    }
}

/// Whole lines, `size` bytes at most.
func blocks(of text: [UInt8], _ size: Int) -> [Range<Int>] {
    var blocks: [Range<Int>] = []
    var at = 0
    while text.count - at >= size {
        let end = text[at..<at + size].lastIndex(of: 10)! + 1
        blocks.append(at..<end)
        at = end
    }
    return blocks
}

func compare(_ text: [UInt8], block: Int, pairs: Int) {
    let blocks = blocks(of: text, block)
    let (gzip, zlib) = (GzipWriter(), ZlibWriter(largest: block))
    var rows: [String] = []
    // The first pair is to warm up.
    for pair in 0...pairs {
        let other = Round(text, blocks) { zlib.packedCount($0) }
        let own = Round(text, blocks) { gzip.packed(block: $0) { $0.count } }
        if pair > 0 { rows.append("[\(own.seconds), \(own.packed), \(other.seconds), \(other.packed)]") }
    }
    print("{\"bytes\": \(blocks.last?.upperBound ?? 0), \"pairs\": [\(rows.joined(separator: ", "))]}")
}

let arguments = CommandLine.arguments
guard arguments.count == 4, let block = Int(arguments[2]), let pairs = Int(arguments[3]) else {
    fatalError("usage: gzip-benchmark FILE BLOCK PAIRS")
}
compare(contents(of: arguments[1]), block: block, pairs: pairs)
