import Bytes
import Kinesis
import Logging
import Platform

// Concurrency: belongs to its lane's thread; only the spool behind it is shared.

/// What a lane has on its disk: gives aggregates away, takes them back, and keeps the books about it.
final class Backlog {
    private let spool: Spool
    private let settlement: Settlement
    private let counters: Counters
    private let log: Logger
    private var isSpooling: Bool
    private var isFull = false
    /// Aggregates whose copies are being written: their memory must stay.
    private var writing: [Int: (aggregate: SealedAggregate, isHeld: Bool)] = [:]
    private var burying: [Int: (burial: Burial, size: Int)] = [:]
    /// Bytes of dead letters that are on their way to the disk.
    private(set) var bytesBuried = 0
    private var nextToken = 0
    private var delivered: [SpoolLocation] = []
    /// Bytes of aggregates that came back and are not settled.
    private(set) var bytesInMemory = 0

    private enum Burial {
        case run(Run)
        case aggregate(SealedAggregate)
    }

    init(_ spool: Spool, _ settlement: Settlement, _ counters: Counters, _ log: Logger) {
        (self.spool, self.settlement, self.counters, self.log) = (spool, settlement, counters, log)
        isSpooling = spool.isEmpty == false
    }

    /// Whether nothing is owed; nil while the disk has not heard of everything.
    var isEmpty: Bool? { delivered.isEmpty ? spool.isEmpty : nil }

    /// Whether anything can be moved to the disk.
    var isOn: Bool { spool.isOn }

    /// Whether nothing is on its way to the disk.
    var isIdle: Bool { writing.isEmpty && burying.isEmpty }

    /// Copies aggregates, as far as the disk has room; they are sent nevertheless.
    func copy(_ aggregates: [SealedAggregate]) {
        guard !aggregates.isEmpty else { return }
        var room = spool.room
        let copied = aggregates.filter { aggregate in
            room -= Self.footprint(aggregate)
            return room > 0
        }
        write(copied, isHeld: true)
    }

    /// Bytes that a copy takes on the disk, at most.
    private static func footprint(_ aggregate: SealedAggregate) -> Int {
        aggregate.size + SpoolRecord.overhead(origins: aggregate.origin.runs.count)
    }

    /// What of a batcher's aggregates goes to the spool.
    enum Part {
        /// All but some bytes to probe the endpoint with: the newest, so that positions move.
        case all(but: Int)
        /// What its shards do not take soon, as far as more bytes wait than that.
        case excess(above: Int, now: Instant)
    }

    /// Moves what waits to the spool.
    ///
    /// - Parameter isLast: none of it will be sent any more: pieces are given up as well where the whole has a copy, and what of
    ///   it was delivered is sent again.
    func spill(_ part: Part, of batcher: inout Batcher, isLast: Bool = false) {
        guard spool.isOn else { return }
        var (room, isFull) = (spool.room, false)
        func mayGo(_ aggregate: SealedAggregate) -> Bool {
            // One that is being written is waited for; of a piece the whole has a copy, or none.
            if aggregate.isPiece { return isLast && aggregate.origin.copy != nil }
            if aggregate.origin.hasCopy { return aggregate.origin.copy != nil }
            guard room > Self.footprint(aggregate) else {
                isFull = true
                return false
            }
            room -= Self.footprint(aggregate)
            return true
        }
        let going =
            switch part {
            case .all(let kept): batcher.takeOldest(above: kept, where: mayGo)
            case .excess(let most, let now): batcher.takeExcess(above: most, now: now, where: mayGo)
            }
        if isFull, !self.isFull { log.error("the spool is full: inputs wait") }
        self.isFull = isFull
        guard !going.isEmpty else { return }
        if !isSpooling { log.notice("what cannot be delivered goes to the spool") }
        isSpooling = true
        letGo(going.filter(\.origin.hasCopy))
        write(going.filter { !$0.origin.hasCopy }, isHeld: false)
        counters.lane.aggregatesSpooled.add(going.count)
    }

    /// Says so when nothing is owed any more.
    func tellWhenDelivered() {
        guard isSpooling, isEmpty == true else { return }
        isSpooling = false
        log.notice("everything that was spooled is delivered")
    }

    /// Writes copies of aggregates.
    ///
    /// - Parameter isHeld: they are sent from memory as well; otherwise the spool has them from now on.
    private func write(_ aggregates: [SealedAggregate], isHeld: Bool) {
        let milliseconds = Machine.wallMilliseconds()
        SealedAggregate.writeChecksums(of: aggregates)
        spool.write(
            aggregates.map { aggregate in
                nextToken += 1
                writing[nextToken] = (aggregate, isHeld)
                aggregate.origin.hasCopy = true
                let origins = settlement.origins(of: aggregate)
                return unsafe Spool.Write(
                    token: nextToken,
                    record: SpoolRecord(aggregate, origins: origins, milliseconds: milliseconds),
                    data: aggregate.unsafeData,
                    isHeld: isHeld
                )
            }
        )
    }

    /// Gives up aggregates whose copies are written: they come back when there is time for them.
    private func letGo(_ aggregates: [SealedAggregate]) {
        var copies = Set<SpoolLocation>()
        // Pieces share one.
        let given = aggregates.filter { aggregate in aggregate.origin.copy.map { copies.insert($0).inserted } ?? false }
        for aggregate in given { settlement.handOver(aggregate) }
        spool.letGo(given.compactMap(\.origin.copy))
    }

    /// Puts a record among the dead letters; its position settles when it is safe there.
    func bury(_ data: [UInt8], _ run: Run, reason: String, input: String) {
        nextToken += 1
        burying[nextToken] = (.run(run), data.count)
        bytesBuried += data.count
        let letter = DeadLetters.Letter(
            reason: reason,
            input: input,
            source: settlement.path(of: run.source),
            first: run.first,
            end: run.end,
            data: data
        )
        spool.bury(letter, token: nextToken)
    }

    /// Puts an aggregate among the dead letters that Kinesis will never take.
    func bury(_ aggregate: SealedAggregate, reason: String) {
        nextToken += 1
        burying[nextToken] = (.aggregate(aggregate), aggregate.size)
        bytesBuried += aggregate.size
        let (input, path, first, end) = settlement.place(of: aggregate)
        let data = aggregate.withData { data in unsafe data.withUnsafeBytes { unsafe Array($0) } }
        var letter = DeadLetters.Letter(reason: reason, input: input, source: path, first: first, end: end, data: data)
        letter.sent = .init(records: aggregate.recordCount, key: aggregate.key)
        spool.bury(letter, token: nextToken)
    }

    /// Keeps the shard map on the disk.
    func keep(_ map: ShardMap, of stream: String, recordBytes: Int?, at path: String) {
        spool.keep(shardMap: ShardMapFile.encode(map, of: stream, recordBytes: recordBytes), at: path)
    }

    /// Asks for so many bytes of what is owed.
    func want(_ bytes: Int) { if spool.owedBytes > 0 || bytes == 0 { spool.want(bytes) } }

    /// Settles aggregates that Kinesis has, or another place.
    func settle(_ aggregates: [SealedAggregate], in place: Ledger.Place = .delivered) {
        for aggregate in aggregates where aggregate.isBacklog {
            bytesInMemory -= SpoolRecord.memory(for: aggregate.dataCount)
        }
        delivered += settlement.settle(aggregates, in: place)
    }

    /// Says that `piece` took the place of what came back.
    func regrouped(_ aggregate: SealedAggregate, into pieces: [SealedAggregate]) {
        // A single record stays what it is.
        guard aggregate.isBacklog, pieces.first !== aggregate else { return }
        bytesInMemory += pieces.reduce(-SpoolRecord.memory(for: aggregate.dataCount)) {
            $0 + SpoolRecord.memory(for: $1.dataCount)
        }
    }

    /// Tells the spool which copies nobody needs any more.
    func tellDelivered() {
        spool.delivered(delivered)
        delivered.removeAll(keepingCapacity: true)
    }

    /// Whether the spool has records, or gets or gives some, that are older than what is live.
    var hasOlder: Bool {
        bytesInMemory > 0 || spool.hasOlder || writing.values.contains { !$0.isHeld }
    }

    /// Takes the spool's events.
    ///
    /// - Returns: aggregates that came back to be sent, and those that found no place there.
    func exchange(
        _ pool: BufferPool,
        now: Instant
    ) -> (owed: [SealedAggregate], refused: [SealedAggregate]) {
        var (back, refused): ([SealedAggregate], [SealedAggregate]) = ([], [])
        for event in spool.takeEvents() {
            switch event {
            case .written(let token, let location, let isSafe):
                guard let (aggregate, isHeld) = writing.removeValue(forKey: token) else { continue }
                if aggregate.origin.unsettled == 0 {
                    // Kinesis was faster than the disk.
                    delivered.append(location)
                    continue
                }
                settlement.copied(aggregate, at: location, isSafe: isSafe)
                if !isHeld { settlement.handOver(aggregate) }
            case .refused(let token):
                guard let (aggregate, isHeld) = writing.removeValue(forKey: token) else { continue }
                aggregate.origin.hasCopy = false
                // What is held is on its way nevertheless.
                if !isHeld { refused.append(aggregate) }
            case .owed(let owed):
                let aggregate = SealedAggregate(
                    restored: owed.bytes.span.extracting(owed.data),
                    recordCount: owed.record.recordCount,
                    userBytes: owed.record.userBytes,
                    key: owed.record.key,
                    hashes: owed.record.hashes,
                    copy: owed.location,
                    receipt: now,
                    pool: pool
                )
                settlement.cameBack(owed.location, owed.record.origins)
                bytesInMemory += SpoolRecord.memory(for: aggregate.dataCount)
                back.append(aggregate)
            case .buried(let token, let isKept):
                guard let (burial, size) = burying.removeValue(forKey: token) else { continue }
                bytesBuried -= size
                switch burial {
                case .run(let run): settlement.bury(run, isKept: isKept)
                case .aggregate(let aggregate): settle([aggregate], in: isKept ? .deadLettered : .dropped)
                }
            }
        }
        return (back, refused)
    }

    /// Ends the spool's thread; what it could write is settled.
    func stop(_ pool: BufferPool) {
        tellDelivered()
        // Nobody will send what is being copied: it is the spool's.
        for token in writing.keys { writing[token]?.isHeld = false }
        spool.stop()
        _ = exchange(pool, now: .now)
    }
}
