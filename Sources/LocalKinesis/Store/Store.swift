internal import Kinesis

/// Everything the embedded Kinesis knows: streams, shards, records, and the rules by which they change.
///
/// A value without locks, clocks and IO: the time is an argument of every call that depends on it.
struct Store: Sendable {
    /// What holds for all streams.
    struct Rules: Sendable {
        var account = "000000000000"
        var region = "us-east-1"
        var enforceShardLimits = false
        /// Bytes of memory for records.
        var memoryLimit = 512 << 20
        var retention: Duration = .seconds(86_400)
        /// How long a new stream is CREATING.
        var creationDelay: Duration = .zero
        /// How long a stream is UPDATING.
        var updateDelay: Duration = .zero
    }

    let rules: Rules
    private(set) var figures = Figures()
    private var streams: [String: StoredStream] = [:]
    private var bodies: Bodies
    private var callPace = CallPace()
    /// What fails on purpose.
    var faults: FaultInjector
    /// When records were last looked through for old ones.
    private var swept: Int64 = 0

    /// Shards of an account at most: the largest quota the service gives.
    static let accountShards = 10_000
    /// Shards of a stream in on-demand mode, at first.
    static let onDemandShards = 4
    /// Streams that may be CREATING at a time.
    static let creatingStreams = 5

    init(_ rules: Rules, faults: FaultInjector = FaultInjector()) {
        (self.rules, self.faults) = (rules, faults)
        bodies = Bodies(mostSpare: min(32 << 20, rules.memoryLimit / 16))
    }
}

// MARK: Streams

extension Store {
    mutating func create(_ plan: StreamPlan, now: Moment) throws(Refusal) {
        if streams[plan.name] != nil {
            throw Refusal(
                "ResourceInUseException",
                "Stream \(plan.name) under account \(rules.account) already exists."
            )
        }
        let creating = streams.values.count { $0.status(at: now) == .creating }
        if rules.enforceShardLimits, creating >= Self.creatingStreams {
            throw Refusal(
                "LimitExceededException",
                "\(creating) streams of account \(rules.account) are CREATING, which is the limit."
            )
        }
        try checkRoom(for: plan.shards)
        streams[plan.name] = StoredStream(
            plan,
            limited: rules.enforceShardLimits,
            activeAfter: rules.creationDelay,
            now: now
        )
    }

    mutating func delete(_ name: String) throws(Refusal) {
        guard var stream = streams.removeValue(forKey: name) else { throw notFound(name) }
        for place in stream.shards.indices {
            while let record = stream.shards[place].removeOldest() { bodies.release(record) }
        }
        figures.bytesHeld = bodies.held
    }

    /// The place of a stream in `streams`, with what it was UPDATING for done when its time has come.
    private mutating func place(
        of name: String,
        now: Moment
    ) throws(Refusal) -> Dictionary<String, StoredStream>.Index {
        guard let place = streams.index(forKey: name) else { throw notFound(name) }
        streams.values[place].settle(now: now)
        return place
    }

    mutating func stream(_ name: String, now: Moment) throws(Refusal) -> StoredStream {
        try streams.values[place(of: name, now: now)]
    }

    /// The streams whose names come after `name`, in the order of their names.
    mutating func streams(after name: String?, now: Moment) -> [StoredStream] {
        let names = streams.keys.filter { name == nil || $0 > name! }.sorted()
        for name in names { streams[name]!.settle(now: now) }
        return names.map { streams[$0]! }
    }

    /// The milliseconds since 1970 before which records are too old.
    func horizon(at now: Moment) -> Int64 { now.milliseconds - rules.retention.milliseconds }

    func arn(of name: String) -> String { "arn:aws:kinesis:\(rules.region):\(rules.account):stream/\(name)" }

    private func notFound(_ name: String) -> Refusal {
        Refusal("ResourceNotFoundException", "Stream \(name) under account \(rules.account) not found.")
    }

    /// Throws if `more` open shards would be too many for the account.
    private func checkRoom(for more: Int) throws(Refusal) {
        let current = streams.values.reduce(0) { $0 + $1.openShards }
        if more > Self.accountShards - current {
            throw Refusal(
                "LimitExceededException",
                "This request would exceed the shard limit for the account \(rules.account) in \(rules.region). "
                    + "Current shard count for the account: \(current). Limit: \(Self.accountShards). "
                    + "Number of additional shards that would have resulted from this request: \(more)."
            )
        }
    }

    private func shardNotFound(_ shard: ShardID, _ stream: String) -> Refusal {
        Refusal(
            "ResourceNotFoundException",
            "Shard \(shard) in stream \(stream) under account \(rules.account) does not exist"
        )
    }

    private func rateExceeded(_ shard: ShardID, _ stream: String) -> Refusal {
        Refusal(
            "ProvisionedThroughputExceededException",
            "Rate exceeded for shard \(shard) in stream \(stream) under account \(rules.account)."
        )
    }

    /// What the service says of a record that is refused with `code`.
    private func refusal(_ code: String, _ shard: ShardID, _ stream: String) -> Refusal {
        switch code {
        case "ProvisionedThroughputExceededException": rateExceeded(shard, stream)
        case "InternalFailure": Refusal(code, "Internal Service Failure")
        default: Refusal(code)
        }
    }
}

// MARK: Limits

extension Store {
    /// Throws if the account's calls come faster than the service takes them; only where limits are enforced.
    mutating func admit(_ operation: Operation, now: Moment) throws(Refusal) {
        guard rules.enforceShardLimits, !callPace.admits(operation, of: "", now: now.instant) else { return }
        throw Refusal("LimitExceededException", "Rate exceeded for \(operation.rawValue) of account \(rules.account).")
    }

    /// Throws if calls of ListShards for `stream` come faster than the service takes them.
    mutating func admitListing(of stream: String, now: Moment) throws(Refusal) {
        guard rules.enforceShardLimits, !callPace.admits(.listShards, of: stream, now: now.instant) else { return }
        throw Refusal("LimitExceededException", "Rate exceeded for \(described(stream)).")
    }

    /// Lets a shard take `percent` of what the service's shards take: 0 throttles it to nothing.
    mutating func limit(_ id: ShardID, of name: String, to percent: Double, now: Moment) throws(Refusal) {
        let stream = try place(of: name, now: now)
        guard let place = streams.values[stream].place(of: id) else { throw shardNotFound(id, name) }
        streams.values[stream].shards[place].limit(to: percent, now: now)
    }
}

// MARK: Changing streams

extension Store {
    /// Begins what a call asks for, if the service would.
    ///
    /// - Returns: how many shards are open before.
    mutating func change(_ name: String, _ change: StreamChange, now: Moment) throws(Refusal) -> Int {
        let place = try place(of: name, now: now)
        let open = streams.values[place].openShards
        switch change {
        case .split: try checkRoom(for: 1)
        // More than the account may have is refused with the stream's limits.
        case .count(let count) where count <= open * 2: try checkRoom(for: count - open)
        case .merge, .count, .mode, .recordBytes: break
        }
        let account = (rules.account, rules.enforceShardLimits)
        try streams.values[place].begin(change, for: rules.updateDelay, of: account, now: now)
        return open
    }

    private func described(_ name: String) -> String { "stream \(name) under account \(rules.account)" }
}

// MARK: Writing

extension Store {
    /// Memory for a body of `count` bytes that is about to come: that of one that is gone, or new.
    mutating func memory(for count: Int) -> [UInt8] {
        if let spare = bodies.takeSpare(atLeast: count) { return spare }
        var memory: [UInt8] = []
        memory.reserveCapacity(count)
        return memory
    }

    /// A record to store: already hashed, its data still in the call's body.
    struct NewRecord: Sendable {
        var partitionKey: String
        var hash: HashKey
        var data: Range<Int>

        var size: Int { data.count + partitionKey.utf8.count }
    }

    /// What became of one record.
    enum PutResult: Equatable, Sendable {
        case stored(ShardID, SequenceNumber)
        case refused(Refusal)
    }

    /// Stores `records`, whose data are ranges of `body`, and keeps the body as long as one of them.
    ///
    /// Refused records take no room, and their siblings are stored.
    /// - Returns: a result for each, in their order.
    mutating func put(
        _ records: [NewRecord],
        of body: [UInt8],
        into name: String,
        now: Moment
    ) throws(Refusal) -> [PutResult] {
        // An index, so that the stream is changed where it lies.
        let stream = try place(of: name, now: now)
        if streams.values[stream].status(at: now) == .creating { throw notFound(name) }
        let limit = streams.values[stream].recordBytes
        if let place = records.firstIndex(where: { $0.size > limit }) {
            throw .validation([
                "Value at 'records.\(place + 1).member.data' failed to satisfy constraint: "
                    + "Member must have length less than or equal to \(limit)"
            ])
        }
        expire(now: now)
        makeRoom(for: Bodies.cost(of: body, records: records.count), now: now)
        let id = bodies.add(body)
        var results: [PutResult] = []
        results.reserveCapacity(records.count)
        for record in records {
            results.append(store(record, of: id, in: stream, now: now))
        }
        bodies.endAdding(id)
        figures.bytesHeld = bodies.held
        return results
    }

    private mutating func store(
        _ record: NewRecord,
        of body: UInt64,
        in stream: Dictionary<String, StoredStream>.Index,
        now: Moment
    ) -> PutResult {
        let place = streams.values[stream].place(of: record.hash)
        let shard = streams.values[stream].shards[place].id
        if faults.disturbsRecords {
            let name = streams.values[stream].name
            if let code = faults.refusal(ofRecordFor: shard, of: name) { return .refused(refusal(code, shard, name)) }
        }
        guard streams.values[stream].shards[place].admits(record.size, now: now) else {
            figures.recordsThrottled += 1
            return .refused(rateExceeded(shard, streams.values[stream].name))
        }
        let stored = StoredRecord(
            arrival: now.milliseconds,
            partitionKey: record.partitionKey,
            body: body,
            data: record.data
        )
        bodies.retain(stored)
        figures.recordsStored += 1
        figures.bytesStored += record.size
        return .stored(shard, streams.values[stream].shards[place].append(stored))
    }
}

// MARK: Reading

extension Store {
    /// Where a reader wants to begin.
    enum Start: Equatable, Sendable {
        case trimHorizon
        case latest
        case at(SequenceNumber, text: String)
        case after(SequenceNumber, text: String)
        /// Milliseconds since 1970.
        case time(Int64)
    }

    mutating func iterator(
        _ start: Start,
        shard id: ShardID,
        stream name: String,
        now: Moment
    ) throws(Refusal) -> ShardIterator {
        let stream = try place(of: name, now: now)
        guard let place = streams.values[stream].place(of: id) else { throw shardNotFound(id, name) }
        let shard = streams.values[stream].shards[place]
        if shard.isExpired(horizon: horizon(at: now)) { throw shardNotFound(id, name) }
        if rules.enforceShardLimits, !callPace.admits(.getShardIterator, of: "\(name) \(id)", now: now.instant) {
            throw rateExceeded(id, name)
        }
        let position: UInt64
        switch start {
        case .trimHorizon: position = shard.horizon
        case .latest: position = shard.next
        case .at(let number, let text):
            try check(number, text, of: shard, stream: name)
            position = number.index
        case .after(let number, let text):
            try check(number, text, of: shard, stream: name)
            position = number.index &+ 1
        case .time(let time):
            if time > now.milliseconds {
                throw .invalidArgument(
                    "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
                        + "timestampInMillis: \(time), currentTimestampInMillis: \(now.milliseconds)"
                )
            }
            position = shard.position(at: time)
        }
        return ShardIterator(
            stream: name,
            shard: id,
            created: shard.created,
            position: position,
            issued: now.milliseconds
        )
    }

    private func check(
        _ number: SequenceNumber,
        _ text: String,
        of shard: StoredShard,
        stream name: String
    ) throws(Refusal) {
        if UInt64(number.shard) != shard.id.number {
            throw .invalidArgument(
                "Invalid StartingSequenceNumber. It encodes \(ShardID(number: UInt64(number.shard))), "
                    + "while it was used in a call to a shard with \(shard.id)"
            )
        }
        if number.created != shard.created {
            throw .invalidArgument(
                "StartingSequenceNumber \(text) used in GetShardIterator on shard \(shard.id) in stream \(name) "
                    + "under account \(rules.account) is invalid because it did not come from this stream."
            )
        }
    }

    /// A record as a reader gets it.
    struct ReadRecord: Sendable {
        var sequenceNumber: SequenceNumber
        var arrival: Int64
        var partitionKey: String
        /// The bytes that hold its data, shared with its siblings, and where in them.
        var body: [UInt8]
        var data: Range<Int>
    }

    struct ReadResult: Sendable {
        var records: [ReadRecord]
        /// nil behind the last record of a closed shard.
        var next: ShardIterator?
        /// Where to read on then.
        var children: [StoredShard] = []
        /// How old the next record is; 0 when the reader has seen all.
        var millisecondsBehind: Int64
    }

    /// The next records of `iterator`'s shard: at most `limit`, and at most 10 MiB, but one at least.
    mutating func read(_ iterator: ShardIterator, limit: Int, now: Moment) throws(Refusal) -> ReadResult {
        expire(now: now)
        let stream: Dictionary<String, StoredStream>.Index
        do { stream = try place(of: iterator.stream, now: now) } catch {
            throw shardNotFound(iterator.shard, iterator.stream)
        }
        guard let place = streams.values[stream].place(of: iterator.shard) else {
            throw shardNotFound(iterator.shard, iterator.stream)
        }
        guard streams.values[stream].shards[place].admitsRead(now: now) else {
            throw rateExceeded(iterator.shard, iterator.stream)
        }
        let shard = streams.values[stream].shards[place]
        // A stream made anew: all its records come after those that the iterator has seen.
        let position = iterator.created == shard.created ? iterator.position : shard.horizon
        var (records, bytes): ([ReadRecord], Int) = ([], 0)
        let next = shard.read(from: position) { record, number in
            guard records.count < limit, records.isEmpty || bytes + record.size <= Limits.readBytes else {
                return false
            }
            bytes += record.size
            records.append(
                ReadRecord(
                    sequenceNumber: number,
                    arrival: record.arrival,
                    partitionKey: record.partitionKey,
                    body: bodies[record.body],
                    data: record.data
                )
            )
            return true
        }
        let behind = shard.arrival(at: next).map { max(1, now.milliseconds - $0) } ?? 0
        streams.values[stream].shards[place].charge(read: bytes)
        if !shard.isOpen, next >= shard.next {
            let children = shard.children.map { streams.values[stream].shards[Int($0.number)] }
            return ReadResult(records: records, next: nil, children: children, millisecondsBehind: 0)
        }
        return ReadResult(
            records: records,
            next: ShardIterator(
                stream: iterator.stream,
                shard: iterator.shard,
                created: shard.created,
                position: next,
                issued: now.milliseconds
            ),
            millisecondsBehind: behind
        )
    }
}

// MARK: Trimming

extension Store {
    /// Removes what is older than the retention; looks at most once a second.
    private mutating func expire(now: Moment) {
        guard now.milliseconds >= swept + 1000 || now.milliseconds < swept else { return }
        swept = now.milliseconds
        let oldest = horizon(at: now)
        var index = streams.startIndex
        while index < streams.endIndex {
            for place in streams.values[index].shards.indices {
                while let arrival = streams.values[index].shards[place].oldestArrival, arrival < oldest,
                    let record = streams.values[index].shards[place].removeOldest()
                {
                    bodies.release(record)
                    figures.recordsExpired += 1
                }
            }
            streams.formIndex(after: &index)
        }
        figures.bytesHeld = bodies.held
    }

    /// Removes the oldest records until `bytes` more fit the memory limit, as a shorter retention would: who reads behind
    /// what is written loses nothing while it is less far behind than the memory reaches.
    ///
    /// A little more than needed, so that this happens once in many calls. One call's records are kept whatever the limit.
    private mutating func makeRoom(for bytes: Int, now: Moment) {
        guard bodies.held + bytes > rules.memoryLimit else { return }
        let target = max(0, rules.memoryLimit - rules.memoryLimit / 64 - bytes)
        let oldest = streams.values.flatMap { $0.shards.compactMap(\.oldestArrival) }.min() ?? now.milliseconds
        let step = max(1, (now.milliseconds - oldest) / 64)
        var limit = oldest
        while bodies.held > target, limit <= now.milliseconds {
            limit += step
            remove(arrivedBefore: limit, until: target)
        }
        // What came before the clock was set back.
        remove(arrivedBefore: .max, until: target)
    }

    /// Removes a record of each shard in turn.
    ///
    /// Records share bodies: what is gone may free nothing at first.
    private mutating func remove(arrivedBefore limit: Int64, until target: Int) {
        var progress = true
        while progress {
            progress = false
            var index = streams.startIndex
            while index < streams.endIndex {
                for place in streams.values[index].shards.indices {
                    guard bodies.held > target else { return }
                    guard let arrival = streams.values[index].shards[place].oldestArrival, arrival < limit,
                        let record = streams.values[index].shards[place].removeOldest()
                    else { continue }
                    bodies.release(record)
                    figures.recordsTrimmed += 1
                    progress = true
                }
                streams.formIndex(after: &index)
            }
        }
    }
}
