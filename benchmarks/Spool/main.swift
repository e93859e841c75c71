// The spool's disk work alone, as its thread does it: `spool-benchmark FOLDER MIB` writes so much in aggregates of 50 KiB,
// reads it back, and prints the seconds of each as JSON. benchmarks/Spool/run.py compares with dd.

import Agent
import Bytes
import Kinesis
import Platform

let arguments = CommandLine.arguments
guard arguments.count == 3, let mebibytes = Int(arguments[2]) else {
    fatalError("usage: spool-benchmark FOLDER MIB")
}

let pool = BufferPool(mostKept: 1 << 20)
var writer = AggregateWriter(maxSize: 50 << 10, pool: pool)
let key = RecordKey(partitionKey: [97], explicit: .lowest)
var random = SplitMix64(seed: 1)
var number: UInt64 = 0
while true {
    let line = (0..<200).map { _ in UInt8(truncatingIfNeeded: random.next()) & 0x7f }
    let run = Run(source: 1, first: number, end: number + 1)
    guard writer.append(line.span, under: key, from: run, receipt: .now) else { break }
    number += 1
}
let aggregate = writer.seal()!
let origin = SpoolRecord.Origin(input: "app", source: 1, first: 0, end: number, records: Int(number))
let record = SpoolRecord(aggregate, origins: [origin], milliseconds: Machine.wallMilliseconds())
let count = (mebibytes << 20) / aggregate.dataCount

let store = try SpoolStore(arguments[1], .init(maxSize: 1 << 40, keepFree: 0))
let clock = ContinuousClock()
let written = try clock.measure {
    for _ in 0..<count {
        _ = try unsafe store.append(record, aggregate.unsafeData, isHeld: false, milliseconds: 0)
        // As the spool's thread does.
        if store.unsyncedBytes >= 8 << 20 { try store.sync() }
    }
    try store.sync()
}
var (records, bytes) = (0, 0)
let read = try clock.measure {
    while let owed = try store.takeOwed() {
        records += 1
        bytes += owed.data.count
        store.deliver(owed.location)
        if records % 1000 == 0 { _ = try store.settle() }
    }
    try store.closeActive()
    _ = try store.settle()
}
precondition(records == count && bytes == count * aggregate.dataCount, "every record came back")
print(
    "{\"bytes\": \(bytes), \"records\": \(records), \"write_seconds\": \(written.inSeconds),"
        + " \"read_seconds\": \(read.inSeconds)}"
)
