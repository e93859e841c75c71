package import Bytes
package import Kinesis

/// Reads the shard map page by page: says what to ask next, and keeps what was answered.
package struct ShardMapLoader {
    private enum State {
        case idle
        /// Ask, not before the time if there is one.
        case wanted(after: Instant?)
        /// A call is out; another map is wanted behind it.
        case asking(again: Bool)
    }

    private let stream: StreamName
    private var state = State.wanted(after: nil)
    private var shards: [Shard] = []
    private var nextToken: String?
    /// Whether the next list, and the one that is being read, has closed shards too.
    private var wantsClosed = false
    private var asksForClosed = false
    /// When the last whole map came: shards that no map explains must not turn asking into a loop.
    private var lastMap: Instant?
    private let period: Duration
    private var backoff = Backoff(first: .milliseconds(200), longest: .seconds(30))
    private static let pause: Duration = .seconds(1)
    /// A shard that was split takes no records and no evidence comes of its children where nothing is sent to it.
    private static let period: Duration = .seconds(600)

    package enum Taken {
        /// There are further pages.
        case more
        /// The map of the open shards, and the closed ones, if they were asked for.
        ///
        /// It is stale if something came up, while it was read, that it may not explain.
        case map(ShardMap, closed: [Shard], isStale: Bool)
        case unusable(String)
    }

    /// - Parameter chance: evenly drawn from 0 to 1: agents that started together do not ask together.
    package init(stream: StreamName, chance: Double) {
        self.stream = stream
        period = Self.period * (0.75 + chance / 2)
    }

    /// Asks for a new map: something does not fit the one we have.
    ///
    /// - Parameter closed: whether closed shards shall be told too: one that opened and closed since the last map was
    ///   read is in no map.
    package mutating func refresh(closed: Bool = false) {
        wantsClosed = wantsClosed || closed
        switch state {
        case .idle: state = .wanted(after: lastMap.map { $0 + Self.pause })
        case .wanted: break
        case .asking: state = .asking(again: true)
        }
    }

    /// The parameters of the ListShards call to make now, if one is to be made.
    package mutating func nextCall(now: Instant) -> WireValue? {
        guard let due = nextDue(now: now), now >= due else { return nil }
        state = .asking(again: false)
        if let nextToken { return .object(["NextToken": .text(nextToken)]) }
        shards = []
        (asksForClosed, wantsClosed) = (wantsClosed, false)
        if asksForClosed { return .object([stream.member: .text(stream.text)]) }
        return .object([
            stream.member: .text(stream.text), "ShardFilter": .object(["Type": .text("AT_LATEST")]),
        ])
    }

    /// When `nextCall` will have something; nil while a call is out.
    package func nextDue(now: Instant) -> Instant? {
        switch state {
        case .idle: lastMap.map { $0 + period }
        case .wanted(let after): after ?? now
        case .asking: nil
        }
    }

    /// Notes that a call brought no answer, while records go on by the map that there is.
    package mutating func failed(chance: Double, now: Instant) { failed(until: now + backoff.next(chance: chance)) }

    /// The same where nothing goes on before `until`.
    package mutating func failed(until: Instant) {
        nextToken = nil
        wantsClosed = wantsClosed || asksForClosed
        state = .wanted(after: until)
    }

    /// Takes one answer.
    package mutating func take(_ value: WireValue, _ input: Span<UInt8>, now: Instant) -> Taken {
        var isWantedAgain = false
        if case .asking(let again) = state { isWantedAgain = again }
        for shard in value["Shards"]?.list ?? [] {
            guard let name = shard["ShardId"]?.text(in: input), let id = ShardID(name),
                let range = shard["HashKeyRange"],
                let start = range["StartingHashKey"]?.text(in: input).flatMap(HashKey.init(decimal:)),
                let end = range["EndingHashKey"]?.text(in: input).flatMap(HashKey.init(decimal:)), start <= end
            else {
                failed(until: now + .seconds(1))
                return .unusable("a shard cannot be read")
            }
            let isOpen = shard["SequenceNumberRange"]?["EndingSequenceNumber"] == nil
            shards.append(Shard(id: id, range: start...end, isOpen: isOpen))
        }
        if let token = value["NextToken"]?.text(in: input) {
            nextToken = token
            state = .wanted(after: nil)
            return .more
        }
        nextToken = nil
        do {
            let map = try ShardMap(shards)
            lastMap = now
            backoff.reset()
            state = isWantedAgain ? .wanted(after: now + Self.pause) : .idle
            return .map(map, closed: shards.filter { !$0.isOpen }, isStale: isWantedAgain)
        } catch {
            // In the middle of a reshard the list may have a gap for a moment.
            failed(until: now + .seconds(1))
            return .unusable("\(error)")
        }
    }
}
