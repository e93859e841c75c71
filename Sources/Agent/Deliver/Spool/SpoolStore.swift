import Bytes
package import Kinesis
package import Platform

// Concurrency: belongs to one thread: the spool's, or a command's.

/// The spool's files: segments that are only ever added to, and the position, which says what of them is delivered.
///
/// A segment is never written again once another process has begun: what a crash left of it is cut off, closed, and read.
/// It is removed when all of it is delivered; one with damage in it is renamed instead, so that it can be looked into.
package final class SpoolStore {
    package struct Limits: Equatable, Sendable {
        /// Bytes of all files.
        package var maxSize: Int
        /// Bytes that stay free on the file system.
        package var keepFree: Int

        package init(maxSize: Int, keepFree: Int) { (self.maxSize, self.keepFree) = (maxSize, keepFree) }

        /// A small part of the whole, so that space comes back in time.
        var segmentSize: Int { min(64 << 20, max(2 << 20, maxSize / 8)) }
    }

    /// What was found when the spool was opened.
    package struct Found {
        /// Owed records by input.
        package var amounts: [String: Ledger.Amount] = [:]
        package var records = 0
        package var segments = 0
        /// Bytes of records that a crash had left unfinished, and of others that were damaged.
        package var torn: UInt64 = 0
        package var damaged: UInt64 = 0
        /// Files that are not what they should be; they were given other names.
        package var setAside: [String] = []
        package var positionWasLost = false
        /// Why what a crash had left open could not be closed.
        package var unclosed: SystemError?
    }

    package enum Fault: Error, Equatable, CustomStringConvertible {
        case newer(path: String, version: Int)
        case system(SystemError)

        package var description: String {
            switch self {
            case .newer(let path, let version):
                "\(path) was written by a newer penstock (version \(version)): install that one again, or move the file away"
            case .system(let error): "\(error)"
            }
        }
    }

    package let folder: String
    private var limits: Limits
    package private(set) var index = SpoolIndex()
    package private(set) var found = Found()

    private let position: SpoolPosition
    private var active: Active?
    private var nextNumber: UInt64
    /// Bytes of all files, by name.
    fileprivate private(set) var sizes: [String: Int]
    /// When each segment was begun, in milliseconds since 1970.
    private var begun: [UInt64: Int64] = [:]
    /// Names that were made since the folder was synced.
    private var hasNewNames = false
    /// The segment that was read last.
    private var reading: (number: UInt64, file: FileBox)?
    /// Segments in which damage was met.
    private var damaged: Set<UInt64> = []
    /// Segments of which everything is delivered, and that are still there.
    private var finished: [UInt64] = []

    /// The segment that is written to.
    private final class Active {
        let number: UInt64
        let path: String
        let file: WrittenFile
        var end = SpoolIndex.begin
        var syncedEnd = SpoolIndex.begin
        /// Up to here the kernel was told to begin writing.
        var startedEnd = SpoolIndex.begin
        var contents = SpoolSegment.Contents()

        init(number: UInt64, path: String, milliseconds: Int64) throws(SystemError) {
            (self.number, self.path) = (number, path)
            file = try WrittenFile(path)
            try file.write(SpoolSegment.header(number, milliseconds: milliseconds), at: 0)
        }
    }

    private final class FileBox {
        let file: ReadableFile
        let size: UInt64
        init(_ path: String) throws(SystemError) {
            file = try ReadableFile(path)
            size = try file.status().size
        }
    }

    /// Room for the index that closes a segment, at least.
    private static let endingReserve = 256 << 10
    /// Bytes after which the kernel is told to write, so that a sync finds little left to do.
    private static let startWritingBytes: UInt64 = 1 << 20

    /// Opens the spool in `folder`, which is created if it is not there.
    ///
    /// Reads the end of each segment, and whole only what a crash left open, one segment, and those of which a part is delivered.
    package init(_ folder: String, _ limits: Limits) throws(Fault) {
        (self.folder, self.limits) = (folder, limits)
        do throws(SystemError) {
            try Folder.create(folder)
            position = try SpoolPosition(folder + "/position")
            sizes = [:]
            for entry in try Folder.entries(of: folder) {
                sizes[entry.name] = Int(clamping: try FileStatus(of: folder + "/" + entry.name).size)
            }
        } catch { throw .system(error) }
        let numbers = sizes.keys.compactMap(SpoolSegment.number(ofFile:)).sorted()
        // Never a number that may have been given before: a position would be taken for the new segment's.
        nextNumber = max(numbers.last ?? 0, position.lastNumber) + 1
        found.positionWasLost = position.isDamaged && !numbers.isEmpty
        for number in numbers {
            let newer: Int?
            do throws(SystemError) { newer = try open(number) } catch {
                throw .system(error)
            }
            if let newer { throw .newer(path: path(number), version: newer) }
        }
    }

    private func path(_ number: UInt64) -> String { folder + "/" + SpoolSegment.name(number) }

    /// Takes in one segment of an earlier run.
    ///
    /// - Returns: the segment's version, when it is one that we do not know.
    private func open(_ number: UInt64) throws(SystemError) -> Int? {
        let (path, name, start) = (path(number), SpoolSegment.name(number), position.value.settled)
        guard number >= start.segment else {
            try remove(name)
            return nil
        }
        let box = try FileBox(path)
        let size = box.size
        let first = try box.file.bytes(at: 0, count: SpoolSegment.headerSize)
        let header = SpoolSegment.readHeader(first.span)
        if case .newer(let version) = header { return version }
        guard case .good(number, let milliseconds) = header else {
            // The newest may never have been synced, nor one that was given up after a failed sync: nothing was promised
            // of it.
            let wasSafe = try SpoolSegment.holdsSafeRecord(box.file, size: size)
            if !wasSafe {
                self.found.torn += size
                try remove(name)
            } else {
                self.found.setAside.append(try setAside(name, as: Self.damagedSuffix))
            }
            return nil
        }
        var contents: SpoolSegment.Contents
        let end: UInt64
        if let ending = try SpoolSegment.readEnding(of: box.file, size: size) {
            (contents, end) = ending
        } else {
            let scanned = try SpoolSegment.scan(box.file, size: size)
            (contents, end) = (scanned.contents, scanned.end)
            found.torn += scanned.torn
            // Where nothing can be written, the next start does it.
            do throws(SystemError) {
                let file = try WrittenFile(path)
                try file.sync()
                try Self.close(file, contents, at: end)
                sizes[name] = Int(clamping: try FileStatus(of: path).size)
            } catch { found.unclosed = error }
        }
        let delivered = number == start.segment ? min(max(start.offset, SpoolIndex.begin), end) : SpoolIndex.begin
        let ahead = position.value.ahead(in: number)
        // A part of it is delivered: what is not is counted.
        let rest =
            delivered > SpoolIndex.begin || !ahead.isEmpty
            ? try SpoolSegment.scan(box.file, size: end, from: delivered, isClosed: true, without: ahead) : nil
        index.add(segment: number, end: end, isClosed: true, delivered: delivered, ahead: rest?.delivered ?? [])
        begun[number] = milliseconds
        if rest?.hasPassedDamage ?? false { damaged.insert(number) }
        for range in contents.damaged where range.lowerBound >= delivered {
            index.skip(SpoolLocation(segment: number, offset: range.lowerBound), to: range.upperBound)
            damaged.insert(number)
            found.damaged += range.upperBound - range.lowerBound
        }
        if let rest { contents = rest.contents }
        found.segments += 1
        found.records += contents.records
        for (input, amount) in contents.amounts { found.amounts[input, default: .init()] += amount }
        return nil
    }

    // MARK: space

    /// Bytes of all files.
    package var size: Int { sizes.values.reduce(0, +) + (active.map { Int($0.end) } ?? 0) }

    /// When the oldest segment with something that is not delivered was begun, in milliseconds since 1970.
    package var oldest: Int64? { index.oldest.flatMap { begun[$0] } }

    /// Bytes of records that may be added now.
    package func room() throws(SystemError) -> Int {
        let reserve = max(Self.endingReserve, active?.contents.endingBound ?? 0)
        return max(0, min(limits.maxSize - size, try Folder.freeBytes(folder) - limits.keepFree) - reserve)
    }

    /// Takes on other limits.
    package func limit(to limits: Limits) { self.limits = limits }

    // MARK: adding

    /// Adds a record; it is safe after the next `sync`.
    ///
    /// - Parameter isHeld: whether the lane keeps the aggregate and will say what becomes of it.
    package func append(
        _ record: SpoolRecord,
        _ data: UnsafeRawBufferPointer,
        isHeld: Bool,
        milliseconds: Int64
    ) throws(SystemError) -> SpoolLocation {
        if let active, active.end + UInt64(data.count) > UInt64(limits.segmentSize) { try closeActive() }
        if active == nil { try begin(milliseconds) }
        guard let active else { preconditionFailure("a segment was begun") }
        let head = unsafe record.head(of: data, safeEnd: active.syncedEnd)
        try active.file.write(head, at: active.end)
        unsafe try active.file.write(data, at: active.end + UInt64(head.count))
        active.contents.add(record)
        active.end += UInt64(head.count + data.count)
        if active.end - active.startedEnd >= Self.startWritingBytes {
            active.file.startWriting(active.startedEnd..<active.end)
            active.startedEnd = active.end
        }
        return index.append(UInt64(head.count + data.count), isHeld: isHeld)
    }

    private func begin(_ milliseconds: Int64) throws(SystemError) {
        let number = nextNumber
        nextNumber += 1
        active = try Active(number: number, path: path(number), milliseconds: milliseconds)
        index.add(segment: number)
        begun[number] = milliseconds
        hasNewNames = true
    }

    /// Bytes that were added since the last sync.
    package var unsyncedBytes: UInt64 { active.map { $0.end - $0.syncedEnd } ?? 0 }

    /// Makes everything added safe.
    package func sync() throws(SystemError) {
        guard let active, active.end > active.syncedEnd else { return }
        do throws(SystemError) { try active.file.sync() } catch {
            hasFailedSync = true
            throw error
        }
        if hasNewNames {
            try Folder.sync(folder)
            hasNewNames = false
        }
        active.syncedEnd = active.end
    }

    /// A sync has failed: the next would say that all is well though the kernel may have dropped what it covered.
    package private(set) var hasFailedSync = false

    /// Gives up what was added since the last sync, after one has failed.
    ///
    /// A new segment begins with the next record.
    /// - Parameter isOnlyCopy: nobody can write it again: it stays, and what of it the disk has not is damage.
    /// - Returns: where the first of them lay; those before, and in other segments, are safe.
    package func abandonUnsynced(isOnlyCopy: Bool = false) -> SpoolLocation? {
        guard let active else { return nil }
        hasFailedSync = false
        if isOnlyCopy {
            index.closeNewest()
            sizes[SpoolSegment.name(active.number)] = Int(active.end)
            self.active = nil
            return nil
        }
        let end = active.syncedEnd
        index.cut(to: end)
        index.closeNewest()
        try? active.file.truncate(to: end)
        sizes[SpoolSegment.name(active.number)] = Int(end)
        self.active = nil
        return SpoolLocation(segment: active.number, offset: end)
    }

    /// Finishes the segment that is written to; its records are safe then.
    package func closeActive() throws(SystemError) {
        guard let active else { return }
        try sync()
        try Self.close(active.file, active.contents, at: active.end)
        if hasNewNames {
            try Folder.sync(folder)
            hasNewNames = false
        }
        sizes[SpoolSegment.name(active.number)] = Int(clamping: try FileStatus(of: active.path).size)
        index.closeNewest()
        self.active = nil
    }

    /// Writes the index behind records that are safe: it must not outlive a crash that they do not.
    private static func close(
        _ file: borrowing WrittenFile,
        _ contents: SpoolSegment.Contents,
        at end: UInt64
    ) throws(SystemError) {
        let ending = SpoolSegment.ending(contents, at: end)
        try file.write(ending, at: end)
        try file.truncate(to: end + UInt64(ending.count))
        try file.sync()
    }

    // MARK: reading

    /// A record that is owed, with its data.
    package struct Owed {
        package var location: SpoolLocation
        package var record: SpoolRecord
        package var bytes: [UInt8]
        package var data: Range<Int>
    }

    /// Takes the oldest record that is owed; the lane has it from now on.
    ///
    /// Damage is passed over and counted.
    /// - Parameter unsynced: whether to take also what is not safe yet.
    package func takeOwed(unsynced: Bool = false) throws(SystemError) -> Owed? {
        while let location = index.nextOwed() {
            if let active, !unsynced, location.segment == active.number, location.offset >= active.syncedEnd {
                return nil
            }
            let box = try box(location.segment)
            let end = index.end(of: location.segment) ?? location.offset
            if let bytes = try SpoolSegment.record(of: box.file, at: location.offset, before: end, usual: usualLength),
                let (record, data) = SpoolRecord.readChecked(bytes.span), isFree(location, UInt64(bytes.count))
            {
                index.take(location, length: UInt64(bytes.count))
                usualLength = min(max(4 << 10, bytes.count * 5 / 4), 56 << 10)
                return Owed(location: location, record: record, bytes: bytes, data: data)
            }
            var next = try SpoolSegment.nextRecord(of: box.file, from: location.offset + 8, before: end) ?? end
            next = min(next, index.nextTaken(behind: location) ?? next)
            damaged.insert(location.segment)
            damagedBytes += Int(next - location.offset)
            index.skip(location, to: next)
        }
        return nil
    }

    /// Bytes to read for the next record, by the last one: thousands of small ones may follow each other.
    private var usualLength = 56 << 10

    /// Whether nothing in the bytes of a record is settled: an index may call a stretch damaged that holds one.
    private func isFree(_ location: SpoolLocation, _ length: UInt64) -> Bool {
        guard damaged.contains(location.segment), let taken = index.nextTaken(behind: location) else { return true }
        return taken >= location.offset + length
    }

    /// Bytes of records that were found damaged when they were to be sent.
    package private(set) var damagedBytes = 0

    private func box(_ number: UInt64) throws(SystemError) -> FileBox {
        if let reading, reading.number == number { return reading.file }
        let box = try FileBox(path(number))
        reading = (number, box)
        return box
    }

    // MARK: settling

    /// Whether a record is owed, or was until the lane took it.
    package var hasOlder: Bool { index.hasOlder() }

    package func deliver(_ location: SpoolLocation) { index.deliver(location) }

    package func letGo(_ location: SpoolLocation) { index.letGo(location) }

    /// Whether `settle` has something to do.
    package var isSettled: Bool { position.value == progress && finished.isEmpty }

    private var progress: SpoolProgress {
        SpoolProgress(
            settled: index.position ?? SpoolLocation(segment: nextNumber, offset: SpoolIndex.begin),
            ahead: index.ahead(most: SpoolPosition.mostAhead)
        )
    }

    /// Writes down what is delivered, and removes the segments that nobody needs any more.
    ///
    /// - Returns: names of segments with damage, which were renamed.
    package func settle() throws(SystemError) -> [String] {
        finished += index.takeDelivered()
        let progress = progress
        if position.value != progress { try position.write(progress) }
        var setAside: [String] = []
        while let number = finished.first {
            if reading?.number == number { reading = nil }
            if damaged.contains(number) {
                setAside.append(try self.setAside(SpoolSegment.name(number), as: Self.restSuffix))
            } else {
                try remove(SpoolSegment.name(number))
            }
            finished.removeFirst()
        }
        return setAside
    }

    private func remove(_ name: String) throws(SystemError) {
        do throws(SystemError) { try Folder.remove(folder + "/" + name) } catch { if !error.isNotFound { throw error } }
        sizes[name] = nil
        if let number = SpoolSegment.number(ofFile: name) { begun[number] = nil }
    }

    /// Of a segment that cannot be read and was never sent.
    static let damagedSuffix = ".damaged"
    /// Of a segment of which everything is delivered but what was damaged.
    static let restSuffix = ".rest"

    private func setAside(_ name: String, as suffix: String) throws(SystemError) -> String {
        let kept = name + suffix
        try Folder.move(folder + "/" + name, to: folder + "/" + kept)
        sizes[kept] = sizes.removeValue(forKey: name)
        return folder + "/" + kept
    }
}

extension SpoolStore {
    /// The segments that were set aside, the oldest first.
    var setAsidePaths: [String] {
        sizes.keys.filter { $0.hasSuffix(Self.damagedSuffix) }.sorted().map { folder + "/" + $0 }
    }

    /// Adds the whole records of a segment that was set aside, so that they are owed again.
    func salvage(_ path: String) throws(Fault) -> SpoolReport.Repaired {
        do throws(SystemError) {
            let file = try ReadableFile(path)
            let size = try file.status().size
            let end = try SpoolSegment.readEnding(of: file, size: size)?.end ?? size
            let milliseconds = Machine.wallMilliseconds()
            var (records, saved) = (0, SpoolIndex.begin)
            var at = try SpoolSegment.nextRecord(of: file, from: SpoolIndex.begin, before: end)
            while let offset = at {
                if let bytes = try SpoolSegment.record(of: file, at: offset, before: end),
                    let (record, data) = SpoolRecord.readChecked(bytes.span)
                {
                    try append(record, Array(bytes[data]), milliseconds: milliseconds)
                    records += 1
                    saved += UInt64(bytes.count)
                    at = offset + UInt64(bytes.count) < end ? offset + UInt64(bytes.count) : nil
                } else {
                    at = try SpoolSegment.nextRecord(of: file, from: offset + 8, before: end)
                }
            }
            try closeActive()
            let name = String(path.dropFirst(folder.count + 1).dropLast(Self.damagedSuffix.count))
            try Folder.move(path, to: folder + "/" + name + Self.restSuffix)
            return .init(path: path, records: records, lostBytes: Int(clamping: end - min(end, saved)))
        } catch { throw .system(error) }
    }

    private func append(_ record: SpoolRecord, _ data: [UInt8], milliseconds: Int64) throws(SystemError) {
        var failure: SystemError?
        unsafe data.withUnsafeBytes { data in
            do throws(SystemError) {
                _ = try unsafe append(record, data, isHeld: false, milliseconds: milliseconds)
            } catch { failure = error }
        }
        if let failure { throw failure }
    }
}
