internal import Bytes

/// How a block of many records is cut into them.
protocol RecordCut {
    /// Bytes in front of each record that do not come from its source.
    static var head: Int { get }

    /// Where the data of the record at `offset` lies, and where the next record begins.
    static func next(in block: Span<UInt8>, at offset: Int) -> (data: Range<Int>, end: Int)
}

/// Whole lines: each ends with LF; a CR before it belongs to the end.
///
/// A line end behind the last may be missing, as at the end of a file.
enum LineCut: RecordCut {
    static var head: Int { 0 }

    @inline(__always)
    static func next(in block: Span<UInt8>, at offset: Int) -> (data: Range<Int>, end: Int) {
        let lineEnd = block.firstOffset(of: 10, from: offset)
        let end = lineEnd ?? block.count
        let stop = end > offset && block[end - 1] == 13 ? end - 1 : end
        return (unsafe Range(uncheckedBounds: (offset, stop)), lineEnd == nil ? end : end &+ 1)
    }
}

/// Records with their length in front: four bytes, as this machine orders them.
enum CountedCut: RecordCut {
    static var head: Int { RecordHead.counted }

    @inline(__always)
    static func next(in block: Span<UInt8>, at offset: Int) -> (data: Range<Int>, end: Int) {
        let start = offset &+ head
        let count = unsafe block.withUnsafeBytes {
            unsafe Int($0.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
        }
        precondition(count <= block.count &- start, "a record lies within its block")
        return (unsafe Range(uncheckedBounds: (start, start &+ count)), start &+ count)
    }
}

/// What stands in front of a record in a block of records.
public enum RecordHead {
    /// Bytes of a record's length.
    public static let counted = 4
    /// Bytes of a record's length and its partition key's, where each has its key behind that.
    public static let keyed = 8

    /// Where the partition key and the data of such a record lie whose head is at `offset`.
    @inline(__always)
    static func keyed(in block: Span<UInt8>, at offset: Int) -> (key: Range<Int>, data: Range<Int>) {
        let (count, keyCount) = unsafe block.withUnsafeBytes {
            (
                unsafe Int(truncatingIfNeeded: $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self)),
                unsafe Int(truncatingIfNeeded: $0.loadUnaligned(fromByteOffset: offset &+ 4, as: UInt32.self))
            )
        }
        let start = offset &+ keyed
        let (middle, end) = (start &+ keyCount, start &+ keyCount &+ count)
        precondition(end <= block.count, "a record lies within its block")
        return unsafe (Range(uncheckedBounds: (start, middle)), Range(uncheckedBounds: (middle, end)))
    }
}
