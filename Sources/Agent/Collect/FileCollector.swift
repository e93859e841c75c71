import Bytes
import Kinesis
package import Logging
import Platform
import Synchronization

// Concurrency: a collector belongs to one thread. It shares its feed, the checkpoints and the counters.

/// Reads an input's files into its ring: each in its turn, in blocks, until it is told to stop.
package struct FileCollector: ~Copyable {
    private let feed: Feed
    private let input: Configuration.Input
    private let once: Bool
    private let checkpoints: Checkpoints
    private let counters: Counters

    private var writer: RingWriter
    private var finder: FileFinder
    private var oversize = TailedFile.Oversize()
    private var sha = SHA256()
    /// What begins a record, if records may be of several lines.
    private let start: Expression?
    private var lastRead = Instant.now
    /// The room that the last step did not find.
    private var neededRoom = 0

    /// Blocks read from one file before the next has its turn.
    private static let turn = 8
    /// How long reading goes on, and how long looking for files does, before the other has its turn.
    private static let readingTurn: Duration = .milliseconds(50)
    /// How long it rests when it has read everything, so that what comes next gathers.
    ///
    /// A file that is written line by line would cost a look, and a wake-up of the lane, for each.
    private static let gather: Duration = .milliseconds(2)
    private static let findingTurn: Duration = .milliseconds(20)

    /// - Parameters:
    ///   - once: read every file to its end, and end.
    ///   - watches: learn from inotify what changes; else look at everything every second.
    package init(
        _ feed: Feed,
        once: Bool,
        checkpoints: Checkpoints,
        counters: Counters,
        log: Logger,
        watches: Bool = true
    ) {
        (self.feed, input, self.once) = (feed, feed.input, once)
        (self.checkpoints, self.counters) = (checkpoints, counters)
        writer = RingWriter(feed.ring)
        // The configuration has been found to hold one.
        start = feed.input.multilineStart.isEmpty ? nil : try? Expression(feed.input.multilineStart)
        finder = FileFinder(
            feed.input,
            once: once,
            watches: watches,
            checkpoints: checkpoints,
            counters: counters,
            log: log
        )
    }

    /// Reads until asked to stop; with `once`, until every file is read to its end.
    package mutating func run() {
        reading: while !isStopping {
            let step = readReady()
            if step == .full { waitForRoom() }
            finder.work(until: .now + Self.findingTurn)
            feed.inquiry.answer { finder.files.furthestBehind() }
            guard step == .end, finder.files.ready.isEmpty, !finder.isBusy else { continue }
            if once {
                if finishLines({ _ in true }) == .end { break reading }
            } else {
                let timeout = input.multilineTimeout
                if finishLines({ Self.isDue($0, timeout) }) == .end { sleep() }
            }
        }
        publish()
        finder.files.releaseAll()
        feed.isFinished.store(true, ordering: .releasing)
        feed.laneBell.ring()
    }

    private var isStopping: Bool { feed.isStopping.load(ordering: .acquiring) }

    private mutating func publish() {
        writer.publish()
        feed.announce()
    }

    // MARK: reading

    /// Gives the files with something to read their turns, until all had one or a while has passed.
    private mutating func readReady() -> TailedFile.Step {
        var bytes = 0
        var result = TailedFile.Step.end
        var rest = finder.files.ready.count
        let end = Instant.now + Self.readingTurn
        files: while rest > 0, let file = finder.files.ready.next() {
            rest -= 1
            guard finder.files.prepare(file) else { continue }
            turn: for block in 0..<Self.turn {
                let step = step(file)
                switch step {
                case .read(let count):
                    bytes += count
                    result = step
                    // Before the lane sees the block, and settles it.
                    finder.files.noteRead(file, &sha)
                    publish()
                case .end: break turn
                case .full:
                    neededRoom = file.needed
                    // A busy file must not keep the room from those behind it.
                    if block == 0 { finder.files.ready.putBack(file) } else { finder.files.ready.add(file) }
                    result = step
                    break files
                }
                if block == Self.turn - 1 { finder.files.ready.add(file) }
            }
            if rest > 0, .now > end {
                // The others wait for their turn: it is not the end.
                if result == .end { result = .read(0) }
                break
            }
        }
        if result != .full {
            for file in finder.files.packed.files where .now <= end {
                let step = inflate(file, &bytes)
                if step != .end { result = step }
                if step == .full { break }
            }
        }
        if bytes > 0 {
            counters.collectors.bytesRead.add(bytes)
            lastRead = .now
        }
        if oversize.lines > 0 || oversize.bytesDropped > 0 {
            counters.collectors.linesOversize.add(oversize.lines)
            counters.collectors.bytesTruncated.add(oversize.bytesDropped)
            oversize = .init()
        }
        return result
    }

    /// Gives a packed file its turn.
    private mutating func inflate(_ file: CompressedFile, _ bytes: inout Int) -> TailedFile.Step {
        do {
            for _ in 0..<Self.turn {
                let step = try block(of: file)
                switch step {
                case .read(0): return step
                case .read(let count):
                    bytes += count
                    checkpoints.passed(file.source, file.lastEnd)
                    publish()
                case .full:
                    neededRoom = file.needed
                    return step
                case .end:
                    finder.files.packed.ended(file, nil)
                    return .read(0)
                }
            }
        } catch { finder.files.packed.ended(file, error) }
        return .read(0)
    }

    private mutating func block(of file: CompressedFile) throws(CompressedFile.Fault) -> TailedFile.Step {
        guard let start else {
            return try file.step(into: &writer, longest: input.maxRecord, input.onOversize, &oversize)
        }
        return try file.step(
            records: { start.find(in: $0) == .matches },
            into: &writer,
            longest: input.maxRecord,
            input.onOversize,
            &oversize
        )
    }

    /// Reads one block of a file; at its end, sees whether it has shrunk, or more has come meanwhile.
    private mutating func step(_ file: TailedFile) -> TailedFile.Step {
        do {
            let step = try block(of: file)
            guard step == .end else { return step }
            return try finder.files.lookAgain(file) ? again(file) : .end
        } catch {
            finder.files.faults.tell(file.path, "\(error)")
            return .end
        }
    }

    /// Reads a block into the ring, as lines or as records.
    private mutating func block(of file: TailedFile) throws(SystemError) -> TailedFile.Step {
        guard let start else {
            return try file.step(into: &writer, longest: input.maxRecord, input.onOversize, &oversize)
        }
        var gaveUp = false
        let isStart = { (line: Span<UInt8>) -> Bool in
            let verdict = start.find(in: line)
            gaveUp = gaveUp || verdict == .gaveUp
            return verdict == .matches
        }
        let step = try file.step(
            records: isStart,
            into: &writer,
            longest: input.maxRecord,
            input.onOversize,
            &oversize
        )
        if gaveUp {
            finder.files.faults.tell(
                file.path,
                "multiline_start takes too long on a line, which counts as not matching"
            )
        }
        return step
    }

    /// Once more, for what came while we looked; never a third time, so that one busy file cannot hold the turn.
    private mutating func again(_ file: TailedFile) -> TailedFile.Step {
        do { return try block(of: file) } catch {
            finder.files.faults.tell(file.path, "\(error)")
            return .end
        }
    }

    /// Whether what waits at a file's end has waited long enough.
    private static func isDue(_ file: TailedFile, _ timeout: Duration) -> Bool {
        if file.isRotated, file.isQuiet(for: TailedFiles.rotatedQuiet) { return true }
        return file.hasPendingLines && file.isQuiet(for: timeout)
    }

    /// Makes records of the unfinished last lines of the files that `isDue` says.
    private mutating func finishLines(_ isDue: (TailedFile) -> Bool) -> TailedFile.Step {
        var result = TailedFile.Step.end
        for file in finder.files.unfinished(all: once) where file.partial > 0 && isDue(file) {
            guard finder.files.prepare(file) else { continue }
            do {
                let step = try finish(file)
                switch step {
                case .read(let count):
                    finder.files.noteRead(file, &sha)
                    counters.collectors.bytesRead.add(count)
                    result = step
                case .end:
                    finder.files.ready.add(file)
                    result = .read(0)
                case .full:
                    neededRoom = file.needed
                    waitForRoom()
                    return step
                }
            } catch {
                finder.files.faults.tell(file.path, "\(error)")
                file.giveUpPartial()
            }
        }
        if result != .end { publish() }
        return result
    }

    private mutating func finish(_ file: TailedFile) throws(SystemError) -> TailedFile.Step {
        guard start != nil else { return try file.finishPartial(into: &writer, longest: input.maxRecord) }
        // What was read of it may have been let go.
        let step = try block(of: file)
        guard step == .end else { return step }
        let isLast = once || file.isRotated && file.isQuiet(for: TailedFiles.rotatedQuiet)
        return file.finishRecord(into: &writer, longest: input.maxRecord, all: isLast)
    }

    // MARK: waiting

    /// Sleeps until the lane has freed half of the ring, or more if that is what the next entry needs.
    private mutating func waitForRoom() {
        publish()
        feed.isWaitingForRoom.store(true, ordering: .relaxed)
        feed.bell.prepareToSleep()
        let mayGoOn = writer.isHalfFree && writer.hasRoom(for: neededRoom)
        // Not for long: what is renamed twice before anybody looks is not known to have been ours.
        if !mayGoOn, !isStopping, !feed.inquiry.isOpen { feed.bell.wait(atMost: .milliseconds(100)) }
        feed.bell.wake()
        feed.isWaitingForRoom.store(false, ordering: .relaxed)
    }

    /// Sleeps until something changes in a watched folder, or it is time to look.
    private mutating func sleep() {
        let rest = Self.gather - (Instant.now - lastRead)
        feed.bell.prepareToSleep()
        if !isStopping, rest > .zero { feed.bell.wait(atMost: rest) }
        if !isStopping, !feed.inquiry.isOpen {
            feed.bell.wait(or: finder.watchNumber, atMost: finder.nextLook - .now)
        }
        feed.bell.wake()
    }
}
