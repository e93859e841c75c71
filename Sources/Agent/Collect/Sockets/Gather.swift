package import Bytes

/// How long a collector waits before it looks at its sockets, so that one call brings many datagrams.
///
/// Where few come it does not wait at all: each is read when it comes. Where many do, it waits longer and longer, as far as
/// the settings and the kernel's queue allow, because a look costs as much as some ten datagrams.
package struct Gather {
    private let most: Duration
    /// Bytes of a socket's queue.
    private let queue: Int
    private var pause: Duration
    private var lastLook: Instant?
    /// Datagrams since the last sleep.
    private var burst = 0
    /// Whether they go on coming, so that it pays to wait for more after many.
    private var isSteady = true
    /// Whether the last look ended with a pause.
    private var hasWaited = false

    /// What is waited as long as it is not known how fast they come.
    package static let first: Duration = .microseconds(200)
    /// Datagrams that came together which make it likely that more will, soon.
    private static let crowd = 8
    /// Bytes that a datagram takes of the queue beside its own, at most.
    private static let overhead = 1024

    package init(most: Duration, queue: Int) {
        (self.most, self.queue) = (most, queue)
        pause = min(Self.first, most)
    }

    /// After a look: how long to wait before the next; nil: until something comes.
    ///
    /// - Parameters:
    ///   - count: datagrams that came.
    ///   - bytes: of all of them.
    ///   - isBehind: whether more were there.
    package mutating func next(after count: Int, bytes: Int, isBehind: Bool, now: Instant) -> Duration? {
        lastLook = now
        burst += count
        if hasWaited, count == 0 { isSteady = false }
        hasWaited = false
        let filled = bytes + count * Self.overhead
        if filled > queue / 4 {
            pause = max(pause / 2, min(Self.first / 4, most))
        } else if count < 2 {
            pause = min(Self.first, most)
        } else if filled < queue / 8 {
            pause = min(pause * 2, most)
        }
        if isBehind { return .zero }
        guard count >= Self.crowd, isSteady else { return nil }
        hasWaited = true
        return pause
    }

    /// After a sleep that something has ended: how long to wait for more.
    package mutating func nextAfterSleep(now: Instant) -> Duration {
        defer { burst = 0 }
        if let lastLook, now - lastLook < pause {
            isSteady = true
            return pause
        }
        pause = min(Self.first, most)
        // They come in bursts, perhaps.
        return burst < Self.crowd ? .zero : pause
    }
}
