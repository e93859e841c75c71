import Agent

/// Whatever comes in whatever pieces, the records are the same, none is too long, and no byte of a line is lost or made up.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard count > 2 else { return 0 }
    let input = unsafe Array(UnsafeBufferPointer(start: data, count: count))
    let framings = Framer.Framing.allCases
    let framing = framings[Int(input[0] & 0x0f) % framings.count]
    let policy = Configuration.Oversize.allCases[Int(input[0] >> 4) % 3]
    let longest = 1 + Int(input[1])
    let stream = Array(input[2...])
    let whole = records(stream, framing, longest, policy, read: stream.count)
    for read in [1, 7, Int(input[1] & 0x1f) + 1] {
        precondition(
            records(stream, framing, longest, policy, read: read) == whole,
            "other records by reads of \(read)"
        )
    }
    precondition(whole.allSatisfy { $0.count <= longest }, "a record that is too long")
    if policy == .split, framing == .nul {
        precondition(whole.joined().elementsEqual(stream.filter { $0 != 0 }), "bytes were lost or made up")
    }
    return 0
}

func records(
    _ stream: [UInt8],
    _ framing: Framer.Framing,
    _ longest: Int,
    _ policy: Configuration.Oversize,
    read: Int
) -> [[UInt8]] {
    var framer = Framer(framing, longest: longest, policy)
    var records: [[UInt8]] = []
    var waiting: [UInt8] = []
    var (at, isBroken) = (0, false)
    func take(isLast: Bool) {
        var start = 0
        steps: while true {
            let step = isLast ? framer.last(in: waiting.span, from: start) : framer.next(in: waiting.span, from: start)
            switch step {
            case .record(let content, let next), .oversize(let content, let next):
                precondition(start <= content.lowerBound && content.upperBound <= next && next > start)
                records.append(Array(waiting[content]))
                start = next
            case .skipped(let next):
                precondition(next > start)
                start = next
            case .more: break steps
            case .broken:
                isBroken = true
                break steps
            }
        }
        waiting.removeFirst(start)
    }
    while at < stream.count, !isBroken {
        let more = stream[at..<min(at + read, stream.count)]
        waiting += more
        at += more.count
        take(isLast: false)
        precondition(isBroken || waiting.count <= longest + 24, "more waits than a record may have")
    }
    if !isBroken { take(isLast: true) }
    return records
}
