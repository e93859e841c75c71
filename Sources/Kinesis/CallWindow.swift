public import Bytes

/// How many calls may be in flight, and how large one may be: as many as make delivery faster, and no more.
///
/// A region that is near answers in the same time whatever is in flight; a thin line makes every further call slower, and
/// what is in flight there holds memory and ends in time-outs. So the window grows while calls take what they took when
/// there were few, and shrinks when even the fastest of a round takes twice that (as TCP Vegas does, by rounds). A single
/// slow answer changes nothing. Where one call alone takes too long, calls get smaller.
public struct CallWindow: Sendable {
    /// Calls at most, whatever their answers take.
    public let most: Int
    /// Bytes of a call at most.
    public let mostBytes: Int
    private let timeout: Duration
    private var size: Double
    private var bytes: Double
    /// Grows with every answer until the first sign that it is enough.
    private var isStarting = true
    /// What a call takes when it waits for no other, as last seen, and the part of `callBytes` that it carried: what a small
    /// one takes says nothing of a large one.
    private var usual: (latency: Duration, share: Double)?
    /// Now and then calls go out one at a time, to see whether that has changed: until so many are answered.
    private var probing = 0
    private var probeAt: Instant
    /// The fastest answer of this round, and how many it still waits for.
    private var round: (fastest: Duration, left: Int)?
    /// Time-outs before are of one and the same jam.
    private var jamEnds: Instant

    private static let first = 4.0
    private static let period: Duration = .seconds(30)
    /// What answers may differ by without a meaning.
    private static let noise: Duration = .milliseconds(30)
    /// A call is never made smaller: less than that carries too little of a signature's and a round trip's cost.
    private static let leastBytes = 32 << 10

    /// - Parameter timeout: how long an answer is waited for.
    public init(most: Int, mostBytes: Int, timeout: Duration, now: Instant) {
        (self.most, self.mostBytes, self.timeout) = (max(1, most), mostBytes, timeout)
        size = min(Self.first, Double(max(1, most)))
        bytes = Double(mostBytes)
        probeAt = now + Self.period
        jamEnds = now
    }

    /// Calls that may be in flight.
    public var calls: Int { probing > 0 ? 1 : min(most, max(1, Int(size))) }

    /// Bytes of the next call.
    public var callBytes: Int { Int(bytes) }

    /// Notes a call's answer.
    ///
    /// - Parameters:
    ///   - latency: from the call's start to its answer.
    ///   - share: the part of `callBytes` that it carried.
    ///   - isLimited: whether there was more to send than the window let through.
    public mutating func answered(after latency: Duration, share: Double, isLimited: Bool, now: Instant) {
        if probing > 0 {
            probing -= 1
            // The last one was alone.
            if probing == 0 { (usual, round) = ((latency, share), nil) }
            return
        }
        if let known = usual, share <= known.share * 2 {
            if share * 2 >= known.share { usual = (min(known.latency, latency), known.share) }
        } else {
            (usual, round) = ((latency, share), nil)
        }
        let fastest = min(round?.fastest ?? latency, latency)
        round = (fastest, (round?.left ?? calls) - 1)
        if isLimited, isStarting, fastest < timeout / 4 { size = min(Double(most), size + 1) }
        guard round!.left <= 0 else { return }
        round = nil
        // With one in flight, too: it may be all that the window lets through since calls take longer than they did.
        if isLimited, now >= probeAt {
            probing = calls + 1
            probeAt = now + Self.period
        }
        if let usual, fastest > usual.latency * 2 + Self.noise {
            isStarting = false
            size = max(1, size * 0.8)
        } else if isLimited, !isStarting, fastest < timeout / 4 {
            size = min(Double(most), size + 1)
        }
        // A small call says little about a large one.
        if bytes < Double(mostBytes), share > 0.5, fastest < timeout / 8 {
            bytes = min(Double(mostBytes), bytes * 1.25)
        }
    }

    /// Notes a call that was not answered in time.
    public mutating func timedOut(now: Instant) {
        guard now >= jamEnds else { return }
        jamEnds = now + timeout
        isStarting = false
        (round, probing) = (nil, 0)
        if size < 2 { bytes = max(Double(min(Self.leastBytes, mostBytes)), bytes / 2) }
        size = max(1, size / 2)
    }
}
