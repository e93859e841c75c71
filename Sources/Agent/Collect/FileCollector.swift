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
    /// Index of the file whose turn is next.
    private var nextTurn = 0
    /// The room that the last step did not find.
    private var neededRoom = 0

    /// Blocks read from one file before the next has its turn.
    private static let turn = 8

    package init(_ feed: Feed, once: Bool, checkpoints: Checkpoints, counters: Counters, log: Logger) {
        (self.feed, input, self.once) = (feed, feed.input, once)
        (self.checkpoints, self.counters) = (checkpoints, counters)
        writer = RingWriter(feed.ring)
        finder = FileFinder(feed.input, once: once, checkpoints: checkpoints, counters: counters, log: log)
    }

    /// Reads until asked to stop; with `once`, until every file is read to its end.
    package mutating func run() {
        finder.scan()
        var nextScan = ContinuousClock.now + finder.poll
        reading: while !isStopping {
            switch readReady() {
            case .read: break
            case .full: waitForRoom()
            case .end:
                if once {
                    if finishLines({ _ in true }) == .end { break reading }
                } else if finishLines({ $0.isRotated && .now - $0.lastChange > FileFinder.rotatedQuiet }) == .end {
                    if sleep(until: nextScan) { nextScan = .now }
                }
            }
            if ContinuousClock.now >= nextScan {
                finder.scan()
                nextScan = .now + finder.poll
            }
        }
        publish()
        feed.isFinished.store(true, ordering: .releasing)
        feed.laneBell.ring()
    }

    private var isStopping: Bool { feed.isStopping.load(ordering: .acquiring) }

    private mutating func publish() {
        writer.publish()
        feed.announce()
    }

    // MARK: reading

    /// Gives every file with something to read its turn.
    private mutating func readReady() -> TailedFile.Step {
        var bytes = 0
        var result = TailedFile.Step.end
        // Where the ring was full the last time, so that a busy file does not keep the room from those behind it.
        let count = finder.files.count
        let start = count == 0 ? 0 : nextTurn % count
        nextTurn = 0
        files: for further in 0..<count {
            let place = (start + further) % count
            let box = finder.files[place]
            guard box.file.isReady else { continue }
            if hasBeenTruncated(box) { finder.restart(box) }
            for block in 0..<Self.turn {
                let step = step(box)
                switch step {
                case .read(let count):
                    bytes += count
                    result = step
                    // Before the lane sees the block, and settles it.
                    checkpoints.passed(box.file.source, box.file.end(&sha))
                    publish()
                    continue
                case .end: break
                case .full:
                    neededRoom = box.file.needed
                    nextTurn = block == 0 ? place : place + 1
                    result = step
                    break files
                }
                break
            }
        }
        if bytes > 0 { counters.collectors.bytesRead.add(bytes) }
        if oversize.lines > 0 || oversize.bytesDropped > 0 {
            counters.collectors.linesOversize.add(oversize.lines)
            counters.collectors.bytesTruncated.add(oversize.bytesDropped)
            oversize = .init()
        }
        // A truncation has added a file behind our back: it has its turn before anything sleeps or ends.
        if result == .end, finder.files.contains(where: { $0.file.isReady }) { return .read(0) }
        return result
    }

    /// Whether other bytes stand where we have read: a turn must not go on in them.
    private mutating func hasBeenTruncated(_ box: FileFinder.Box) -> Bool {
        do { return try !box.file.isUntouched() } catch {
            finder.tell(box.file.path, "\(error)")
            return false
        }
    }

    /// Reads one block of a file; at its end, sees whether it has shrunk.
    private mutating func step(_ box: FileFinder.Box) -> TailedFile.Step {
        do {
            let step = try box.file.step(into: &writer, longest: input.maxRecord, input.onOversize, &oversize)
            guard step == .end else { return step }
            box.file.isReady = false
            if try box.file.look(now: .now) { finder.restart(box) }
            try box.file.describe(in: checkpoints)
            return box.file.isReady ? self.step(again: box) : .end
        } catch {
            box.file.isReady = false
            finder.tell(box.file.path, "\(error)")
            return .end
        }
    }

    /// Once more, for what came while we looked; never a third time, so that one busy file cannot hold the turn.
    private mutating func step(again box: FileFinder.Box) -> TailedFile.Step {
        do {
            let step = try box.file.step(into: &writer, longest: input.maxRecord, input.onOversize, &oversize)
            if step == .end { box.file.isReady = false }
            return step
        } catch {
            box.file.isReady = false
            finder.tell(box.file.path, "\(error)")
            return .end
        }
    }

    /// Makes records of the unfinished last lines of the files that `isDue` says.
    private mutating func finishLines(_ isDue: (borrowing TailedFile) -> Bool) -> TailedFile.Step {
        var result = TailedFile.Step.end
        for box in finder.files where box.file.partial > 0 && isDue(box.file) {
            do {
                let step = try box.file.finishPartial(into: &writer, longest: input.maxRecord)
                switch step {
                case .read(let count):
                    checkpoints.passed(box.file.source, box.file.end(&sha))
                    counters.collectors.bytesRead.add(count)
                    result = step
                case .end: box.file.isReady = true
                case .full:
                    neededRoom = box.file.needed
                    waitForRoom()
                    return step
                }
                if step == .end { result = .read(0) }
            } catch {
                finder.tell(box.file.path, "\(error)")
                box.file.giveUpPartial()
            }
        }
        publish()
        return result
    }

    // MARK: waiting

    /// Sleeps until the lane has freed half of the ring, or more if that is what the next entry needs.
    private mutating func waitForRoom() {
        publish()
        feed.isWaitingForRoom.store(true, ordering: .relaxed)
        feed.bell.prepareToSleep()
        let mayGoOn = writer.isHalfFree && writer.hasRoom(for: neededRoom)
        if !mayGoOn, !isStopping { feed.bell.wait(atMost: .seconds(1)) }
        feed.bell.wake()
        feed.isWaitingForRoom.store(false, ordering: .relaxed)
    }

    /// Sleeps until something changes in a watched folder.
    ///
    /// True when a scan is needed.
    private mutating func sleep(until wake: ContinuousClock.Instant) -> Bool {
        feed.bell.prepareToSleep()
        if !isStopping { feed.bell.wait(or: finder.watchNumber, atMost: wake - .now) }
        feed.bell.wake()
        return finder.takeChanges()
    }
}
