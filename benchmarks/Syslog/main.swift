// What a syslog message costs, for callgrind to count: `syslog-benchmark WORK ROUNDS` reads a message from standard input and
// does the work to it ROUNDS times. benchmarks/Syslog/run.py compares.

import Agent
import Bytes
import Glibc

func measure(_ work: String, _ message: Span<UInt8>, rounds: Int) -> Int {
    let out = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
    defer { unsafe out.deallocate() }
    var sum = 0
    switch work {
    case "nothing": break
    case "memchr":
        for _ in 0..<rounds {
            sum &+= unsafe message.withUnsafeBytes { unsafe memchr($0.baseAddress!, 10, $0.count) == nil ? 1 : 0 }
        }
    case "memcpy":
        for _ in 0..<rounds {
            unsafe message.withUnsafeBytes { unsafe _ = memcpy(out.baseAddress!, $0.baseAddress!, $0.count) }
        }
    case "classify":
        var reader = SyslogReader()
        for _ in 0..<rounds { sum &+= reader.isParsed(message) ? 1 : 0 }
    case "host":
        var reader = SyslogReader()
        for _ in 0..<rounds { sum &+= reader.host(message).host.range.count }
    case "json":
        var writer = SyslogObjectWriter()
        let peer = Array("192.0.2.17".utf8)
        for round in 0..<rounds {
            // As at 100,000 messages a second.
            let received = 1_791_762_855_000_000_000 + Int64(round) * 10_000
            sum &+= unsafe writer.write(message, peer: peer.span, received: received, zone: 3600, into: out).count
        }
    default: fatalError("unknown work: \(work)")
    }
    return sum
}

let arguments = CommandLine.arguments
guard arguments.count == 3, let rounds = Int(arguments[2]), let line = readLine() else {
    fatalError("usage: syslog-benchmark WORK ROUNDS")
}
print(measure(arguments[1], Array(line.utf8).span, rounds: rounds))
