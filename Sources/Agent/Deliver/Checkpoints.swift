import Bytes
import Kinesis
package import Platform
import Synchronization

// Concurrency: collectors open and close sources, the lane settles positions, one thread writes. Each holds the lock for
// a few dictionary operations, once a block that was read or once an acknowledged aggregate.

/// How far each file has been delivered, in memory and in the state file.
package final class Checkpoints: Sendable {
    /// What is known of one file for one input.
    ///
    /// There may be 100,000: the order of its fields leaves no gaps.
    package struct Entry: Equatable, Sendable {
        package var input: String
        /// The path it had when it was met; records keep it as their key.
        package var name: String
        /// Where its content was last; not a link.
        package var path: String
        package var device: UInt64
        package var inode: UInt64
        /// Of the file's first bytes: they tell a file from another that got its inode.
        package var head = Fingerprint.none
        /// Everything before it is delivered.
        package var position: UInt64
        /// What stood right before the position, or not far before it.
        package var end = End()
        /// Bytes that `head` is of.
        package var headSize: UInt16 = 0
        /// The number of its source, the same in every run.
        package var id: UInt32 = 0
        /// When a collector looked for the file and did not find it, in seconds since 1970; 0: it was there.
        package var missingSince: UInt32 = 0

        /// The bytes of a file right before a position: a file that was rewritten has others there.
        package struct End: Equatable, Sendable {
            package var position: UInt64 = 0
            package var hash = Fingerprint.none
            /// How many bytes; 0: nothing is known.
            package var size: UInt16 = 0

            package init() {}
            package init(position: UInt64, size: UInt16, hash: Fingerprint) {
                (self.position, self.size, self.hash) = (position, size, hash)
            }
        }

        package init(input: String, path: String, device: UInt64, inode: UInt64, position: UInt64) {
            (self.input, name, self.path, self.device, self.inode) = (input, path, path, device, inode)
            self.position = position
        }
    }

    /// An entry, and what is known of it beyond the state file.
    final class Record {
        var entry: Entry
        /// A collector reads it.
        var isHeld: Bool
        /// It stands in the list of those that nobody holds, also if somebody does again.
        var isListed: Bool
        var change = Change.none
        /// Ends of what was read and is not settled, in order.
        var ends: [Entry.End] = []

        enum Change { case none, position, all }

        init(_ entry: Entry, isHeld: Bool) { (self.entry, self.isHeld, isListed) = (entry, isHeld, !isHeld) }

        var lastEnd: Entry.End { ends.last ?? entry.end }
    }

    private struct State {
        /// All entries, by source.
        var records: [UInt32: Record] = [:]
        /// Those that no collector holds, and some that one does again; in order of their files when `isSorted`.
        var unheld: [Record] = []
        var isSorted = true
        var heldAgain = 0
        /// How far the collectors that let go of these sources had read.
        var readTo: [UInt32: UInt64] = [:]
        /// Sources whose file is finished, and of which everything before a position is still to be delivered.
        var ending: [UInt32: UInt64] = [:]
        /// Changed since the last write, and gone since.
        var changed: [Record] = []
        var gone: [UInt32] = []
        /// Changes that a batch has yet to take.
        var underWay: ArraySlice<Record> = []
        /// Sources that are sockets, with their names: the state file does not keep them.
        var sockets: [UInt32: String] = [:]
        /// Inputs that have looked at their files before: what is new to them now has come since.
        var seenInputs: Set<String> = []
        var nextSource: UInt32 = 1
        var isDirty = false {
            // The writer sleeps until there is something to write.
            didSet { if isDirty, !oldValue { bell?.ring() } }
        }
        /// A file was opened that the state file does not know, or not by its content: if it were renamed away or packed
        /// now and we died, nobody would find it.
        var hasUnknown = false
        var bell: Doorbell?

        mutating func note(_ record: Record, _ change: Record.Change) {
            if record.change == .none { changed.append(record) }
            if record.change != .all { record.change = change }
            isDirty = true
        }

        mutating func noteUnknown() {
            guard !hasUnknown else { return }
            hasUnknown = true
            bell?.ring()
        }

        func unclaimed(_ record: Record) -> Unclaimed {
            // Beyond what was read nothing can be settled, but for what an earlier process had read.
            let offset = max(readTo[record.entry.id] ?? 0, record.entry.position)
            return Unclaimed(entry: record.entry, offset: offset, end: record.lastEnd)
        }

        mutating func remove(_ id: UInt32) {
            guard let record = records.removeValue(forKey: id) else { return }
            if !record.isHeld { hold(record) }
            (readTo[id], ending[id]) = (nil, nil)
            gone.append(id)
            isDirty = true
        }

        mutating func hold(_ record: Record) {
            record.isHeld = true
            heldAgain += 1
            guard heldAgain * 2 > unheld.count else { return }
            for record in unheld where record.isHeld { record.isListed = false }
            unheld.removeAll { $0.isHeld }
            heldAgain = 0
        }
    }

    /// The state file that this process has written and appends to.
    private final class Slot { var file: StateFile? }

    private let path: String
    private let state: Mutex<State>
    private let file = Mutex(Slot())
    /// A state file that could not be read, or not to its end, and was set aside, to be reported.
    package let setAside: String?
    /// Bytes at the state file's end that were never wholly written, and count for nothing.
    package let torn: Int

    /// Entries of files that are not there, at most: those that have been missing longest go first.
    private static let mostMissing = 100_000
    private static let missingFor: UInt32 = 7 * 24 * 3600
    /// A clock that says less was never set: the year 2020.
    private static let leastTime: UInt32 = 1_577_836_800

    /// Reads the state file of `folder`, if there is one.
    package init(folder: String) throws(Fault) {
        path = folder + "/checkpoints"
        var state = State()
        var (setAside, torn): (String?, Int) = (nil, 0)
        switch try StateFile.load(path) {
        case .none: break
        case .state(let all, let names, let cut): (state.records, state.seenInputs, torn) = (all, names, cut)
        case .damaged(let some, let names):
            (state.records, state.seenInputs) = (some, names)
            setAside = "\(path).damaged-\(Machine.wallMilliseconds() / 1000)"
            do { try Folder.move(path, to: setAside!) } catch { throw .system(error) }
        }
        state.unheld = Array(state.records.values)
        state.isSorted = false
        state.nextSource = (state.records.keys.max() ?? 0) &+ 1
        // What was torn, set aside or of an older version is in order again after the first write.
        state.isDirty = torn > 0 || setAside != nil && !state.records.isEmpty
        self.state = Mutex(state)
        (self.setAside, self.torn) = (setAside, torn)
    }

    package enum Fault: Error, Equatable {
        case newer(path: String, version: Int)
        case system(SystemError)
    }

    // MARK: collectors

    /// Whether the input has looked at all its files before.
    package func hasSeen(_ input: String) -> Bool { state.withLock { $0.seenInputs.contains(input) } }

    /// Notes that the input has looked at all its files.
    package func markSeen(_ input: String) {
        state.withLock { state in
            if state.seenInputs.insert(input).inserted { state.isDirty = true }
        }
    }

    /// An entry that no collector holds, and how far the last one had read.
    package struct Unclaimed: Equatable, Sendable {
        package var entry: Entry
        /// Where reading goes on: what lies between the position and here is under way in this process.
        package var offset: UInt64
        /// What stood before `offset`, or not far before it.
        package var end: Entry.End
    }

    /// The entries of a file that `input` has not claimed; more than one if a crash came between two changes.
    package func unclaimed(of input: String, device: UInt64, inode: UInt64) -> [Unclaimed] {
        unclaimed(inode) { $0.device == device && $0.input == input }
    }

    /// Those that `input` has not claimed of files with this inode on other devices.
    package func unclaimed(of input: String, inode: UInt64, notOn device: UInt64) -> [Unclaimed] {
        unclaimed(inode) { $0.device != device && $0.input == input }
    }

    private func unclaimed(_ inode: UInt64, where fits: (Entry) -> Bool) -> [Unclaimed] {
        state.withLock { state in
            if !state.isSorted {
                state.unheld.sort { ($0.entry.inode, $0.entry.device) < ($1.entry.inode, $1.entry.device) }
                state.isSorted = true
            }
            var (low, high) = (0, state.unheld.count)
            while low < high {
                let middle = (low + high) / 2
                if state.unheld[middle].entry.inode < inode { low = middle + 1 } else { high = middle }
            }
            var found: [Unclaimed] = []
            while low < state.unheld.count, state.unheld[low].entry.inode == inode {
                let record = state.unheld[low]
                if !record.isHeld, fits(record.entry) { found.append(state.unclaimed(record)) }
                low += 1
            }
            return found
        }
    }

    /// All that `input` has not claimed.
    package func unclaimed(of input: String) -> [Unclaimed] {
        state.withLock { state in
            state.unheld.filter { !$0.isHeld && $0.entry.input == input }.map(state.unclaimed)
        }
    }

    /// Whether an entry is there, and nobody holds it.
    func isUnclaimed(_ id: UInt32) -> Bool {
        state.withLock { state in state.records[id].map { !$0.isHeld } ?? false }
    }

    /// Whether there is an entry that `input` has not claimed.
    func hasUnclaimed(of input: String) -> Bool {
        state.withLock { state in state.unheld.contains { !$0.isHeld && $0.entry.input == input } }
    }

    /// Opens a new source at the entry's position.
    package func open(_ entry: Entry) -> UInt32 {
        state.withLock { state in
            var entry = entry
            entry.id = state.nextSource
            state.nextSource &+= 1
            let record = Record(entry, isHeld: true)
            state.records[entry.id] = record
            state.note(record, .all)
            state.noteUnknown()
            return entry.id
        }
    }

    /// Claims an entry that nobody holds: its source goes on.
    package func claim(_ id: UInt32) {
        state.withLock { state in
            guard let record = state.records[id], !record.isHeld else { return }
            state.hold(record)
            state.readTo[id] = nil
            guard record.entry.missingSince != 0 else { return }
            record.entry.missingSince = 0
            state.note(record, .all)
        }
    }

    /// Lets go of a source, for whoever claims its file next.
    ///
    /// - Parameter offset: how far it has been read; the lane settles what is under way.
    package func release(_ source: UInt32, readTo offset: UInt64) {
        state.withLock { state in
            guard let record = state.records[source], record.isHeld else { return }
            record.isHeld = false
            state.readTo[source] = offset
            if record.isListed {
                state.heldAgain -= 1
            } else {
                record.isListed = true
                state.unheld.append(record)
                state.isSorted = false
            }
        }
    }

    /// Notes that a collector looked for the files of these sources, which nobody holds, and did not find them.
    ///
    /// An entry goes when its file has been missing for a week by a clock that was set; and the longest missing ones when
    /// there are too many.
    /// - Returns: how many went.
    package func missing(
        _ ids: [UInt32],
        now: UInt32 = UInt32(clamping: Machine.wallMilliseconds() / 1000)
    ) -> Int {
        guard now >= Self.leastTime else { return 0 }
        return state.withLock { state in
            var expired: [UInt32] = []
            for id in ids {
                guard let record = state.records[id], !record.isHeld else { continue }
                if record.entry.missingSince == 0 {
                    record.entry.missingSince = now
                    state.note(record, .all)
                } else if now > record.entry.missingSince, now - record.entry.missingSince > Self.missingFor {
                    expired.append(id)
                }
            }
            for id in expired { state.remove(id) }
            var count = expired.count
            if ids.count - count > Self.mostMissing {
                let all = state.unheld.filter { !$0.isHeld && $0.entry.missingSince != 0 }
                    .sorted { $0.entry.missingSince < $1.entry.missingSince }
                for record in all.dropLast(Self.mostMissing) {
                    state.remove(record.entry.id)
                    count += 1
                }
            }
            return count
        }
    }

    /// Notes another name of a file, or more of its head.
    package func update(_ source: UInt32, path: String, headSize: UInt16, head: Fingerprint) {
        state.withLock { state in
            guard let record = state.records[source] else { return }
            guard record.entry.path != path || record.entry.headSize != headSize || record.entry.head != head
            else { return }
            // Until now nothing but its inode told which it is, and a packed file has another.
            if record.entry.headSize == 0 { state.noteUnknown() }
            record.entry.path = path
            (record.entry.headSize, record.entry.head) = (headSize, head)
            state.note(record, .all)
        }
    }

    /// Notes what stands before a position up to which a source was read: before the lane can settle anything beyond it.
    package func passed(_ source: UInt32, _ end: Entry.End) {
        state.withLock { state in
            guard let record = state.records[source] else { return }
            if end.position <= record.entry.position, record.ends.isEmpty {
                record.entry.end = end
                return state.note(record, .position)
            }
            // The last one is always there; of those before it some, so that an outage does not gather them.
            let count = record.ends.count
            if count >= 2, end.position - record.ends[count - 2].position < Self.endDistance {
                record.ends[count - 1] = end
            } else {
                record.ends.append(end)
            }
        }
    }

    /// Bytes between the ends that are kept of what was read and is not settled.
    private static let endDistance: UInt64 = 32 << 10

    /// Notes that a source goes on in another file, which holds the same bytes.
    package func move(_ source: UInt32, to path: String, device: UInt64, inode: UInt64) {
        state.withLock { state in
            guard let record = state.records[source] else { return }
            // The list, where it may stand though it is held by now, is in the order of inodes.
            if record.isListed { state.isSorted = false }
            (record.entry.path, record.entry.device, record.entry.inode) = (path, device, inode)
            state.note(record, .all)
        }
    }

    /// Forgets a source: its file is gone, or is another one now.
    package func close(_ source: UInt32) { state.withLock { $0.remove(source) } }

    /// Forgets a source as soon as everything before `end` is delivered: until then another run may need it.
    func close(_ source: UInt32, deliveredTo end: UInt64) {
        state.withLock { state in
            guard let record = state.records[source] else { return }
            if record.entry.position >= end { state.remove(source) } else { state.ending[source] = end }
        }
    }

    package func entry(of source: UInt32) -> Entry? { state.withLock { $0.records[source]?.entry } }

    /// What stood before the offset up to which a source was read.
    package func lastEnd(of source: UInt32) -> Entry.End { state.withLock { $0.records[source]?.lastEnd ?? .init() } }

    // MARK: the lane

    /// The number of a new source that is a socket.
    package func addSocket(_ name: String) -> UInt32 {
        state.withLock { state in
            let number = Self.firstSocket + UInt32(state.sockets.count)
            state.sockets[number] = name
            return number
        }
    }

    /// Beyond the numbers of files.
    private static let firstSocket: UInt32 = 1 << 31

    /// What a source is called: the file's path when it was met, or the socket's name.
    package func name(of source: UInt32) -> String? {
        state.withLock { $0.sockets[source] ?? $0.records[source]?.entry.name }
    }

    /// Moves a source's position: everything before it is settled.
    ///
    /// False when the source is closed.
    @discardableResult
    package func settle(_ source: UInt32, at position: UInt64) -> Bool {
        state.withLock { state in
            guard let record = state.records[source] else { return false }
            guard record.entry.position < position else { return true }
            record.entry.position = position
            let passed = record.ends.prefix { $0.position <= position }
            if let end = passed.last {
                record.entry.end = end
                // An empty array of its own would keep its memory.
                if passed.count == record.ends.count { record.ends = [] } else { record.ends.removeFirst(passed.count) }
            }
            state.note(record, .position)
            if !state.ending.isEmpty, let end = state.ending[source], position >= end { state.remove(source) }
            return true
        }
    }

    // MARK: the file

    /// Whether there is something to write.
    var isDirty: Bool { state.withLock { $0.isDirty } }

    /// Whether a file was opened that the state file does not know.
    var hasUnknown: Bool { state.withLock { $0.hasUnknown } }

    /// Says whom to wake when there is something to write.
    func setBell(_ bell: Doorbell) { state.withLock { $0.bell = bell } }

    /// Writes what has changed since the last time, if anything has.
    package func writeIfChanged() throws(SystemError) {
        guard isDirty else { return }
        try file.withLock { (slot: inout Slot) throws(SystemError) in
            // What an append did not write is in no list any more, and the file may end in a piece of it: write it anew.
            guard let file = slot.file, !file.isOutgrown, file.isInPlace, (try? writeChanges(to: file)) != nil else {
                return try writeAll(slot)
            }
        }
    }

    // A few entries at a time, so that neither the lane nor a collector waits long: what changes meanwhile is in the next
    // batch.
    private static let entriesAtOnce = 100

    private func writeChanges(to file: StateFile) throws(SystemError) {
        try file.append { lines in
            state.withLock { state in
                if state.underWay.isEmpty {
                    (state.isDirty, state.hasUnknown) = (false, false)
                    StateFile.write(inputs: state.seenInputs, to: &lines)
                    for id in state.gone { StateFile.write(gone: id, to: &lines) }
                    state.underWay = state.changed[...]
                    (state.changed, state.gone) = ([], [])
                }
                for record in state.underWay.prefix(Self.entriesAtOnce) {
                    // What went meanwhile must not come back.
                    guard state.records[record.entry.id] === record else { continue }
                    StateFile.write(record.entry, whole: record.change == .all, to: &lines)
                    record.change = .none
                }
                state.underWay = state.underWay.dropFirst(Self.entriesAtOnce)
                return !state.underWay.isEmpty
            }
        }
    }

    private func writeAll(_ slot: Slot) throws(SystemError) {
        slot.file = nil
        var rest: ArraySlice<UInt32>?
        do {
            slot.file = try StateFile(path) { lines in
                state.withLock { state in
                    if rest == nil {
                        (state.isDirty, state.hasUnknown) = (false, false)
                        for record in state.changed + state.underWay { record.change = .none }
                        (state.changed, state.underWay, state.gone) = ([], [], [])
                        rest = state.records.keys.sorted()[...]
                        StateFile.write(inputs: state.seenInputs, to: &lines)
                    }
                    for id in rest!.prefix(Self.entriesAtOnce) {
                        guard let record = state.records[id] else { continue }
                        StateFile.write(record.entry, whole: true, to: &lines)
                    }
                    rest = rest!.dropFirst(Self.entriesAtOnce)
                    return !rest!.isEmpty
                }
            }
        } catch {
            state.withLock { $0.isDirty = true }
            throw error
        }
    }
}
