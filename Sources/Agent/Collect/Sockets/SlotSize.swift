/// How many bytes to keep ready for a datagram: a power of two that follows the longest of late.
///
/// Too large wastes the ring's room, too small costs a copy for each that does not fit.
struct SlotSize {
    /// With the head in front.
    private(set) var bytes = 512
    private let head: Int
    private var longest = 0
    private var batches = 0

    static let largest = 64 << 10
    private static let smallest = 256
    /// Batches after which the slots may become smaller.
    private static let period = 64

    init(head: Int) { self.head = head }

    /// Notes the longest datagram of a batch.
    mutating func saw(_ length: Int) {
        longest = max(longest, length)
        batches += 1
        let needed = Self.size(holding: longest + head)
        if needed > bytes {
            bytes = needed
        } else if batches >= Self.period {
            bytes = needed
        } else {
            return
        }
        (longest, batches) = (0, 0)
    }

    private static func size(holding count: Int) -> Int {
        var size = smallest
        while size < count, size < largest { size *= 2 }
        return size
    }
}
