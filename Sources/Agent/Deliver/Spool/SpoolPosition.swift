import Bytes
import Kinesis
import Platform

// Concurrency: belongs to its store's thread.

/// Up to where everything is delivered: two places in a file, written in turn, so that a torn write leaves the other.
final class SpoolPosition {
    private let file: WrittenFile
    private(set) var value: SpoolLocation
    /// Something stands in both places, and neither can be read.
    let isDamaged: Bool
    private var sequence: UInt64

    private static let slot: UInt64 = 4096
    private static let size = 40

    init(_ path: String) throws(SystemError) {
        file = try WrittenFile(path)
        let bytes = try Folder.read(path, limit: 1 << 20)
        (value, sequence, isDamaged) = Self.value(in: bytes)
        // Before anything is delivered one place is good: a first write that is torn leaves it.
        if bytes.isEmpty || isDamaged { try? write(value, as: 0) }
    }

    /// The position in a file's bytes.
    static func value(in bytes: [UInt8]) -> (value: SpoolLocation, sequence: UInt64, isDamaged: Bool) {
        var (value, latest, found) = (SpoolLocation(segment: 0, offset: SpoolIndex.begin), UInt64(0), false)
        for place in [0, Int(Self.slot)] where bytes.count >= place + Self.size {
            let slot = bytes.span.extracting(place..<place + Self.size)
            guard slot.array(0..<8) == Array("PSPOSIT1".utf8),
                CRC32C(slot.extracting(0..<32)).value == slot.integer(at: 32, as: UInt32.self),
                slot.integer(at: 8, as: UInt64.self) < .max / 2,
                slot.integer(at: 16, as: UInt64.self) < SpoolSegment.mostNumbers
            else { continue }
            let sequence = slot.integer(at: 8, as: UInt64.self)
            if !found || sequence > latest {
                latest = sequence
                value = SpoolLocation(
                    segment: slot.integer(at: 16, as: UInt64.self),
                    offset: slot.integer(at: 24, as: UInt64.self)
                )
            }
            found = true
        }
        // A first write that a crash tore leaves the other place as it was: empty.
        let slots = [bytes.prefix(Int(Self.slot)), bytes.dropFirst(Int(Self.slot))]
        return (value, latest, !found && slots.allSatisfy { $0.contains { $0 != 0 } })
    }

    func write(_ location: SpoolLocation) throws(SystemError) {
        try write(location, as: sequence + 1)
        sequence += 1
        value = location
    }

    private func write(_ location: SpoolLocation, as sequence: UInt64) throws(SystemError) {
        var out = ByteWriter(capacity: Self.size)
        out.append("PSPOSIT1")
        out.append(integer: sequence)
        out.append(integer: location.segment)
        out.append(integer: location.offset)
        out.append(integer: out.withBytes { CRC32C($0).value })
        out.append(integer: UInt32(0))
        try file.write(out.array, at: sequence % 2 * Self.slot)
        try file.sync()
    }
}
