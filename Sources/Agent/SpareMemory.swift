package import Bytes

/// When a lane gives the system back what a burst has needed: as soon as it has done with much less for a while, whatever
/// trickles in meanwhile.
package struct SpareMemory {
    /// The time over which the most that was in use counts.
    package static let period: Duration = .seconds(2)
    /// Bytes that are not worth it.
    package static let least = 4 << 20

    /// The most bytes that were in use since memory was given back, but for those since the last look.
    private var highest = 0
    private var lookedAt: Instant

    package init(now: Instant) { lookedAt = now }

    /// Looks at what was in use since the last look, if that was a period ago.
    ///
    /// - Returns: whether what nobody uses is to be given back.
    package mutating func mustGo(of pool: BufferPool, now: Instant) -> Bool {
        guard now - lookedAt >= Self.period else { return false }
        lookedAt = now
        let most = pool.takeMostUsed()
        highest = max(highest, most)
        guard highest - most > Self.least else { return false }
        highest = most
        return true
    }

    /// When to look next, should nothing come; nil: whenever something does.
    package func nextLook(at pool: BufferPool) -> Instant? {
        max(highest, pool.mostUsed) - pool.used > Self.least ? lookedAt + Self.period : nil
    }
}
