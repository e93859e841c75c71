/// The bodies of calls, each kept while one of its records is: records are ranges of them, never copies.
struct Bodies: Sendable {
    private struct Body: Sendable {
        var bytes: [UInt8]
        /// Records that lie in it.
        var records: Int
    }

    private var bodies: [UInt64: Body] = [:]
    private var last: UInt64 = 0
    /// Bytes of memory: bodies as they are allocated, and what is kept for each record.
    private(set) var held = 0
    /// Memory of large bodies that are gone, for the next: fresh pages from the system cost more than their filling.
    private var spares: [[UInt8]] = []
    private var spareBytes = 0
    /// Bytes of spares at most; they come on top of `held`.
    private let mostSpare: Int

    /// Bytes from which a body is worth keeping as a spare.
    static let spared = 64 << 10

    init(mostSpare: Int) { self.mostSpare = mostSpare }

    /// Bytes kept for a record beside its data, with an allowance for its key and half-empty arrays.
    private static let recordCost = 160
    /// Bytes of an array's and the dictionary's own for a body.
    private static let bodyCost = 96

    /// Bytes that a call will hold.
    static func cost(of body: [UInt8], records: Int) -> Int { body.capacity + bodyCost + records * recordCost }

    subscript(id: UInt64) -> [UInt8] { bodies[id]?.bytes ?? [] }

    /// Keeps `bytes` until `endAdding`, and further if records are retained by then.
    mutating func add(_ bytes: [UInt8]) -> UInt64 {
        last += 1
        bodies[last] = Body(bytes: bytes, records: 1)
        held += Self.cost(of: bytes, records: 0)
        return last
    }

    mutating func endAdding(_ id: UInt64) { letGo(id) }

    mutating func retain(_ record: StoredRecord) {
        bodies[record.body]?.records += 1
        held += Self.recordCost
    }

    mutating func release(_ record: StoredRecord) {
        held -= Self.recordCost
        letGo(record.body)
    }

    private mutating func letGo(_ id: UInt64) {
        guard let place = bodies.index(forKey: id) else { return }
        bodies.values[place].records -= 1
        guard bodies.values[place].records == 0 else { return }
        let bytes = bodies.remove(at: place).value.bytes
        held -= Self.cost(of: bytes, records: 0)
        if bytes.capacity >= Self.spared, spareBytes + bytes.capacity <= mostSpare {
            spareBytes += bytes.capacity
            spares.append(bytes)
        }
    }

    /// Empty memory for a body of `count` bytes, if there is some that is not much too large.
    mutating func takeSpare(atLeast count: Int) -> [UInt8]? {
        let place = spares.lastIndex { (count...count * 2).contains($0.capacity) }
        guard let place else { return nil }
        var bytes = spares.remove(at: place)
        spareBytes -= bytes.capacity
        bytes.removeAll(keepingCapacity: true)
        return bytes
    }
}
