import Bytes
import Kinesis
import Platform

// Concurrency: belongs to its store's thread.

/// What of a spool is delivered: everything before a place, and stretches behind it, because Kinesis need not take records
/// in their order.
struct SpoolProgress: Equatable, Sendable {
    /// A part of a segment, of whole records.
    struct Stretch: Equatable, Sendable {
        var segment: UInt64
        var range: Range<UInt64>
    }

    var settled: SpoolLocation
    var ahead: [Stretch] = []

    /// The stretches of one segment, in order.
    func ahead(in segment: UInt64) -> [Range<UInt64>] {
        ahead.lazy.filter { $0.segment == segment }.map(\.range)
    }
}

/// A spool's progress on the disk: two places in a file, written in turn, so that a torn write leaves the other.
///
///     "PSPOSIT1", sequence, segment, offset, CRC-32C of it all, 0                                 40 bytes
///     number of stretches, CRC-32C of the sequence and them, each: segment, begin, end            8 + 24 bytes each
final class SpoolPosition {
    private let file: WrittenFile
    private(set) var value: SpoolProgress
    /// Something stands in both places, and neither can be read.
    let isDamaged: Bool
    /// The highest number of a segment in either place.
    let lastNumber: UInt64
    private var sequence: UInt64

    private static let slot: UInt64 = 4096
    private static let size = 40
    /// Stretches that find room; what else is delivered is sent again by the next run.
    static let mostAhead = (Int(slot) - size - 8) / 24

    init(_ path: String) throws(SystemError) {
        file = try WrittenFile(path)
        let bytes = try Folder.read(path, limit: 1 << 20)
        (value, sequence, isDamaged) = Self.value(in: bytes)
        let values = Self.places.compactMap { Self.value(in: bytes, at: $0)?.value }
        lastNumber = values.reduce(0) { max($0, $1.settled.segment, $1.ahead.last?.segment ?? 0) }
        // Before anything is delivered one place is good: a first write that is torn leaves it.
        if bytes.isEmpty || isDamaged { try? write(value, as: 0) }
    }

    /// The progress in a file's bytes.
    static func value(in bytes: [UInt8]) -> (value: SpoolProgress, sequence: UInt64, isDamaged: Bool) {
        let found = places.compactMap { value(in: bytes, at: $0) }
        if let last = found.max(by: { $0.sequence < $1.sequence }) { return (last.value, last.sequence, false) }
        // A first write that a crash tore leaves the other place as it was: empty.
        let slots = [bytes.prefix(Int(slot)), bytes.dropFirst(Int(slot))]
        let none = SpoolProgress(settled: SpoolLocation(segment: 0, offset: SpoolIndex.begin))
        return (none, 0, slots.allSatisfy { $0.contains { $0 != 0 } })
    }

    private static let places = [0, Int(slot)]

    /// The progress in one place; nil if it cannot be read.
    private static func value(in bytes: [UInt8], at place: Int) -> (value: SpoolProgress, sequence: UInt64)? {
        guard bytes.count >= place + size else { return nil }
        let slot = bytes.span.extracting(place..<min(bytes.count, place + Int(slot)))
        let sequence = slot.integer(at: 8, as: UInt64.self)
        let (segment, offset) = (slot.integer(at: 16, as: UInt64.self), slot.integer(at: 24, as: UInt64.self))
        guard slot.array(0..<8) == Array("PSPOSIT1".utf8),
            CRC32C(slot.extracting(0..<32)).value == slot.integer(at: 32, as: UInt32.self),
            sequence < .max / 2, segment < SpoolSegment.mostNumbers
        else { return nil }
        let settled = SpoolLocation(segment: segment, offset: offset)
        return (SpoolProgress(settled: settled, ahead: ahead(in: slot, sequence)), sequence)
    }

    /// The stretches in a place; none if they cannot be read, which costs duplicates and no record.
    private static func ahead(in slot: Span<UInt8>, _ sequence: UInt64) -> [SpoolProgress.Stretch] {
        guard slot.count >= size + 8 else { return [] }
        let count = Int(slot.integer(at: size, as: UInt32.self))
        guard count <= mostAhead, slot.count >= size + 8 + 24 * count else { return [] }
        let bytes = slot.extracting(size + 8..<size + 8 + 24 * count)
        guard sum(sequence, bytes) == slot.integer(at: size + 4, as: UInt32.self) else { return [] }
        var (stretches, last) = ([SpoolProgress.Stretch](), (segment: UInt64(0), end: UInt64(0)))
        for at in stride(from: 0, to: bytes.count, by: 24) {
            let segment = bytes.integer(at: at, as: UInt64.self)
            let (begin, end) = (bytes.integer(at: at + 8, as: UInt64.self), bytes.integer(at: at + 16, as: UInt64.self))
            let before = segment == last.segment ? last.end : 0
            guard segment >= last.segment, segment < SpoolSegment.mostNumbers, begin > before, end > begin else {
                return []
            }
            stretches.append(.init(segment: segment, range: begin..<end))
            last = (segment, end)
        }
        return stretches
    }

    private static func sum(_ sequence: UInt64, _ stretches: Span<UInt8>) -> UInt32 {
        var out = ByteWriter(capacity: 8 + stretches.count)
        out.append(integer: sequence)
        out.append(stretches)
        return out.withBytes { CRC32C($0).value }
    }

    func write(_ progress: SpoolProgress) throws(SystemError) {
        try write(progress, as: sequence + 1)
        sequence += 1
        value = progress
    }

    private func write(_ progress: SpoolProgress, as sequence: UInt64) throws(SystemError) {
        var stretches = ByteWriter(capacity: 24 * progress.ahead.count)
        for stretch in progress.ahead {
            stretches.append(integer: stretch.segment)
            stretches.append(integer: stretch.range.lowerBound)
            stretches.append(integer: stretch.range.upperBound)
        }
        var out = ByteWriter(capacity: Int(Self.slot))
        out.append("PSPOSIT1")
        out.append(integer: sequence)
        out.append(integer: progress.settled.segment)
        out.append(integer: progress.settled.offset)
        out.append(integer: out.withBytes { CRC32C($0).value })
        out.append(integer: UInt32(0))
        out.append(integer: UInt32(progress.ahead.count))
        out.append(integer: stretches.withBytes { Self.sum(sequence, $0) })
        stretches.withBytes { out.append($0) }
        try file.write(out.array, at: sequence % 2 * Self.slot)
        try file.sync()
    }
}
