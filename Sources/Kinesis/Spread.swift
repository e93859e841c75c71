import Bytes

/// Which shard a record goes to that may go to any: one after another, but for those without room.
///
/// The order is a stride through the shards that is drawn anew each time round: members of a fleet that kept theirs would
/// meet at one shard after another. Each is held against another, drawn by chance, and the one with more room wins.
struct Spread {
    private let count: Int
    private var random: SplitMix64
    private var stride = 1
    private var at = 0
    private var left = 0

    /// Shards in turn that are looked at while those before cool down.
    private static let tries = 8

    init(count: Int, seed: UInt64) { (self.count, random) = (count, SplitMix64(seed: seed)) }

    mutating func next(_ batcher: borrowing Batcher, now: Instant) -> Int {
        var best = draw()
        var room = batcher.room(of: best, now: now)
        func offer(_ shard: Int) {
            let other = batcher.room(of: shard, now: now)
            if other < room { (best, room) = (shard, other) }
        }
        if count > 1 { offer(random.below(count)) }
        var tries = 1
        while room.heldUntil != nil, tries < Self.tries {
            offer(draw())
            tries += 1
        }
        return best
    }

    private mutating func draw() -> Int {
        if left == 0 {
            left = count
            at = random.below(count)
            repeat { stride = 1 + random.below(count) } while !Self.areCoprime(stride, count)
        }
        left -= 1
        at = (at + stride) % count
        return at
    }

    private static func areCoprime(_ first: Int, _ second: Int) -> Bool {
        var (first, second) = (first, second)
        while second != 0 { (first, second) = (second, first % second) }
        return first == 1
    }
}

extension SplitMix64 {
    /// From 0 up to `bound`.
    fileprivate mutating func below(_ bound: Int) -> Int { Int(next().multipliedFullWidth(by: UInt64(bound)).high) }
}
