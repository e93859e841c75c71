import Bytes
import Foundation
import Testing

// The thread sanitizer finds races in release builds alone:
// swift test -c release --sanitize=thread --filter RingThreads
@Suite struct RingThreadsTests {
    @Test(.timeLimit(.minutes(1)))
    func `two threads pass every entry once, in order`() async {
        let ring = Ring(capacity: 4096)
        let count = 400_000
        Thread.detachNewThread {
            var writer = RingWriter(ring)
            for index in 0..<count {
                let size = 1 + index % 131
                while true {
                    let accepted = unsafe writer.write(upTo: 150) { room in
                        for offset in 0..<size { unsafe room[offset] = UInt8(truncatingIfNeeded: index &+ offset) }
                        let position = UInt64(index)
                        return (size, RingEntry(kind: 1, source: 2, first: position, end: position + 1))
                    }
                    if accepted { break }
                    writer.publish()
                    while !writer.isHalfFree { sched_yield() }
                }
                if index % 7 == 0 { writer.publish() }
            }
            writer.publish()
        }
        let wrong = await withCheckedContinuation { done in
            Thread.detachNewThread {
                var reader = RingReader(ring)
                var (next, wrong) = (0, 0)
                while next < count {
                    let freed = reader.drain(1 + next % 3000) { payload, entry in
                        var same = payload.count == 1 + next % 131 && entry.first == UInt64(next)
                        for offset in payload.indices
                        where payload[offset] != UInt8(truncatingIfNeeded: next &+ offset) { same = false }
                        if !same { wrong += 1 }
                        next += 1
                        return true
                    }
                    if freed == 0 { sched_yield() }
                }
                done.resume(returning: reader.isEmpty ? wrong : -1)
            }
        }
        #expect(wrong == 0)
    }

    @Test(.timeLimit(.minutes(1)))
    func `a third thread never sees less waiting than nothing, nor more than the ring holds`() async {
        let ring = Ring(capacity: 256)
        let count = 200_000
        Thread.detachNewThread {
            var writer = RingWriter(ring)
            for _ in 0..<count {
                while !writer.write([1].span, as: RingEntry(kind: 0, source: 0, first: 0, end: 0)) { sched_yield() }
                writer.publish()
            }
        }
        async let drained: Bool = withCheckedContinuation { done in
            Thread.detachNewThread {
                var reader = RingReader(ring)
                var left = count
                while left > 0 {
                    _ = reader.drain(.max) { _, _ in
                        left -= 1
                        return true
                    }
                }
                done.resume(returning: true)
            }
        }
        let outside = await withCheckedContinuation { done in
            Thread.detachNewThread {
                var outside = 0
                for _ in 0..<2_000_000 where !(0...256).contains(ring.waiting) { outside += 1 }
                done.resume(returning: outside)
            }
        }
        #expect(await drained)
        #expect(outside == 0)
    }
}
