import Agent
import Bytes
import Kinesis
import Logging
import Platform
import Seeded
import Testing

/// The spool's thread, and the lane's books about it.
@Suite struct SpoolTests {
    static let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    static func spool(_ scratch: Scratch, _ bell: Doorbell) throws -> Spool {
        var options = Spool.Options()
        options.limits = SpoolStoreTests.limits
        return try Spool(
            stateDirectory: scratch.path,
            name: "stream",
            options,
            bell: bell,
            ledger: Ledger(inputs: ["app"]),
            log: log
        )
    }

    /// Waits for something, some seconds at most.
    static func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
        let begin = Instant.now
        while Instant.now - begin < .seconds(5) {
            if try condition() { return true }
            Machine.sleep(.milliseconds(5))
        }
        return false
    }

    @Test func `while a dead letter cannot be written the spool has room, and then the letter is there once`() throws {
        let scratch = try Scratch()
        try scratch.write("dead-letters", "not a folder")
        let spool = try Self.spool(scratch, Doorbell())
        let letter = DeadLetters.Letter(reason: "r", input: "app", source: "s", first: 0, end: 1, data: [65])
        spool.bury(letter, token: 1)
        for _ in 0..<60 {
            Machine.sleep(.milliseconds(5))
            #expect(spool.room > 1 << 20 && spool.isEmpty != true && spool.takeEvents().isEmpty)
        }
        scratch.remove("dead-letters")
        #expect(
            Self.eventually {
                spool.takeEvents().contains { if case .buried(1, true) = $0 { true } else { false } }
            }
        )
        spool.stop()
        let files = DeadLetters.files(in: scratch["dead-letters"])
        #expect(try files.map { try Folder.read($0).filter { $0 == 10 }.count } == [1])
    }

    @Test func `letters that could not be synced are written again in their place`() throws {
        let scratch = try Scratch()
        var letters = DeadLetters(scratch["letters"], maxSize: 1000)
        for number in 0..<20 {
            let letter = DeadLetters.Letter(reason: "r", input: "a", source: "s", first: 0, end: 1, data: [65])
            check(try letters.append(letter, milliseconds: 0))
            if number < 19 { letters.takeBack() }
        }
        try letters.sync()
        #expect(try Folder.read(DeadLetters.files(in: scratch["letters"])[0]).filter { $0 == 10 }.count == 1)
    }

    @Test func `a segment that could not be read is read a little later`() throws {
        let scratch = try Scratch()
        do {
            let store = try SpoolStore(scratch["spool/stream"], SpoolStoreTests.limits)
            try SpoolStoreTests.append(store, 1)
            try store.closeActive()
        }
        let spool = try Self.spool(scratch, Doorbell())
        // Once the position is written nothing else wakes the thread.
        Machine.sleep(.milliseconds(1300))
        try scratch.move("spool/stream/0000000000000001.spool", to: "away")
        spool.want(1 << 20)
        Machine.sleep(.milliseconds(300))
        #expect(spool.takeEvents().isEmpty)
        try scratch.move("away", to: "spool/stream/0000000000000001.spool")
        #expect(Self.eventually { spool.takeEvents().contains { if case .owed = $0 { true } else { false } } })
        spool.stop()
    }

    @Test func `the lane hears when damage was the last that the spool had`() throws {
        let scratch = try Scratch()
        do {
            let store = try SpoolStore(scratch["spool/stream"], SpoolStoreTests.limits)
            try SpoolStoreTests.append(store, 1)
            try store.closeActive()
        }
        var bytes = try Folder.read(scratch["spool/stream/0000000000000001.spool"])
        bytes[64 + 110] ^= 1
        try Folder.replace(scratch["spool/stream/0000000000000001.spool"], with: bytes)
        let bell = try Doorbell()
        let spool = try Self.spool(scratch, bell)
        #expect(Self.eventually { spool.isEmpty == false })
        bell.prepareToSleep()
        spool.want(1 << 20)
        #expect(bell.wait(atMost: .seconds(5)))
        bell.wake()
        #expect(Self.eventually { spool.isEmpty == true })
        spool.stop()
    }

    @Test func `records that are sent though a copy is safe stay in the ledger, however many sources there are`() throws
    {
        let scratch = try Scratch()
        let checkpoints = try Checkpoints(folder: scratch.path)
        let ledger = Ledger(inputs: ["app"])
        let settlement = Settlement(checkpoints, ledger)
        var aggregates: [SealedAggregate] = []
        for number in 0..<2500 {
            let source = checkpoints.open(CheckpointsTests.entry(UInt64(number)))
            settlement.drained(source, first: 0, end: 9, input: 0)
            ledger.read(.init(records: 1, bytes: 9), of: 0)
            var writer = AggregateWriter(maxSize: 1000, pool: BufferPool(mostKept: 0))
            let key = RecordKey(partitionKey: [97], explicit: .lowest)
            let run = Run(source: source, first: 0, end: 9)
            check(writer.append([1, 2, 3].span, under: key, from: run, receipt: .now))
            let aggregate = writer.seal()!
            let location = SpoolLocation(segment: 1, offset: UInt64(64 + 8 * number))
            settlement.copied(aggregate, at: location, isSafe: true)
            aggregates.append(aggregate)
        }
        for (number, aggregate) in aggregates.enumerated() {
            if number % 2 == 0 { _ = settlement.settle([aggregate]) } else { settlement.handOver(aggregate) }
        }
        #expect(ledger.total(.inFlight) == .init())
        #expect(ledger.total(.delivered).records == 1250 && ledger.total(.spooled).records == 1250)
        #expect(settlement.isComplete)
    }
}
