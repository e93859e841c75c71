import Bytes
import Kinesis
package import Platform
import Synchronization

// Concurrency: collectors open and close sources, the lane settles positions, one thread writes. Each holds the lock for
// a few dictionary operations, once a file or once an acknowledged aggregate.

/// How far each file has been delivered, in memory and in the state file.
package final class Checkpoints: Sendable {
    /// What is known of one file for one input.
    package struct Entry: Equatable {
        package var input: String
        package var path: String
        package var device: UInt64
        package var inode: UInt64
        /// Bytes at the file's head that `headHash` covers: they tell a file from another that got its inode.
        package var headSize: Int
        /// SHA-256, hexadecimal.
        package var headHash: String
        /// Everything before it is delivered.
        package var position: UInt64

        package init(
            input: String,
            path: String,
            device: UInt64,
            inode: UInt64,
            headSize: Int,
            headHash: String,
            position: UInt64
        ) {
            (self.input, self.path, self.device, self.inode) = (input, path, device, inode)
            (self.headSize, self.headHash, self.position) = (headSize, headHash, position)
        }
    }

    private struct State {
        /// Files that a collector holds, by source.
        var open: [UInt32: Entry] = [:]
        /// Files of an earlier run that no collector has claimed.
        var unclaimed: [Entry] = []
        /// Inputs that have looked at their files before: what is new to them now has come since.
        var seenInputs: Set<String> = []
        var nextSource: UInt32 = 1
        var isDirty = false {
            // The writer sleeps until there is something to write.
            didSet { if isDirty, !oldValue { bell?.ring() } }
        }
        /// A file was opened that the state file does not know: if it were renamed away now and we died, nobody would look
        /// for it.
        var hasUnknown = false
        var bell: Doorbell?
    }

    private let path: String
    private let state: Mutex<State>
    /// A state file that could not be read and was set aside, to be reported.
    package let setAside: String?

    private static let version = 1

    /// Reads the state file of `folder`, if there is one.
    package init(folder: String) throws(Fault) {
        path = folder + "/checkpoints"
        var state = State()
        var setAside: String?
        switch try Self.load(path) {
        case .none: break
        case .state(let entries, let inputs):
            state.unclaimed = entries
            state.seenInputs = inputs
        case .damaged:
            setAside = "\(path).damaged-\(Machine.wallMilliseconds() / 1000)"
            do { try Folder.move(path, to: setAside!) } catch { throw .system(error) }
        }
        self.state = Mutex(state)
        self.setAside = setAside
    }

    package enum Fault: Error, Equatable {
        case newer(path: String, version: Int)
        case system(SystemError)
    }

    // MARK: collectors

    /// Whether the input has run before; from now on it has.
    package func markSeen(_ input: String) -> Bool {
        state.withLock { state in
            guard state.seenInputs.insert(input).inserted else { return true }
            state.isDirty = true
            return false
        }
    }

    /// The files of an earlier run that `input` has not claimed.
    package func unclaimed(of input: String) -> [Entry] {
        state.withLock { $0.unclaimed.filter { $0.input == input } }
    }

    /// Takes an entry of an earlier run away: its file is gone, or is another one now.
    package func forget(_ entry: Entry) {
        state.withLock { state in
            state.unclaimed.removeAll { $0 == entry }
            state.isDirty = true
        }
    }

    /// Opens a source at the entry's position, and claims that file's entry of an earlier run.
    package func open(_ entry: Entry) -> UInt32 {
        state.withLock { state in
            let source = state.nextSource
            state.nextSource += 1
            state.unclaimed.removeAll {
                $0.input == entry.input && $0.device == entry.device && $0.inode == entry.inode
            }
            state.open[source] = entry
            state.isDirty = true
            if !state.hasUnknown {
                state.hasUnknown = true
                state.bell?.ring()
            }
            return source
        }
    }

    /// Notes another name of a file, or more of its head.
    package func update(_ source: UInt32, path: String, headSize: Int, headHash: String) {
        state.withLock { state in
            guard let entry = state.open[source] else { return }
            guard entry.path != path || entry.headSize != headSize || entry.headHash != headHash else { return }
            state.open[source]?.path = path
            state.open[source]?.headSize = headSize
            state.open[source]?.headHash = headHash
            state.isDirty = true
        }
    }

    /// Notes that a source goes on in another file, which holds the same bytes.
    func move(_ source: UInt32, to path: String, device: UInt64, inode: UInt64) {
        state.withLock { state in
            state.open[source]?.path = path
            state.open[source]?.device = device
            state.open[source]?.inode = inode
            state.isDirty = true
        }
    }

    /// Forgets a source whose file is gone.
    package func close(_ source: UInt32) {
        state.withLock { state in
            state.open[source] = nil
            state.isDirty = true
        }
    }

    package func entry(of source: UInt32) -> Entry? { state.withLock { $0.open[source] } }

    // MARK: the lane

    /// Moves a source's position: everything before it is settled.
    ///
    /// False when the source is closed.
    @discardableResult
    package func settle(_ source: UInt32, at position: UInt64) -> Bool {
        state.withLock { state in
            guard let entry = state.open[source] else { return false }
            if entry.position < position {
                state.open[source]?.position = position
                state.isDirty = true
            }
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

    /// Writes the state file if anything has changed since the last time.
    package func writeIfChanged() throws(SystemError) {
        let text: [UInt8]? = state.withLock { state in
            guard state.isDirty else { return nil }
            (state.isDirty, state.hasUnknown) = (false, false)
            return Self.encode(state)
        }
        guard let text else { return }
        do { try Folder.replace(path, with: text) } catch {
            state.withLock { $0.isDirty = true }
            throw error
        }
    }

    private static func encode(_ state: State) -> [UInt8] {
        let entries = (state.open.sorted { $0.key < $1.key }.map(\.value) + state.unclaimed).map { entry in
            WireValue.object([
                "input": .text(entry.input), "path": .text(entry.path), "device": .text(String(entry.device)),
                "inode": .text(String(entry.inode)), "head_size": .integer(Int64(entry.headSize)),
                "head_sha256": .text(entry.headHash), "position": .integer(Int64(entry.position)),
            ])
        }
        let body = WireFormat.json.encode(
            .object([
                "inputs": .list(state.seenInputs.sorted().map { .text($0) }), "files": .list(entries),
            ])
        )
        return Array("penstock-checkpoints \(version) \(SHA256.hexadecimal(of: body))\n".utf8) + body + [10]
    }

    /// What a state file holds.
    enum Loaded {
        case none
        case state([Entry], inputs: Set<String>)
        case damaged
    }

    /// Reads a state file and changes nothing.
    static func load(_ path: String) throws(Fault) -> Loaded {
        let bytes: [UInt8]
        do { bytes = try Folder.read(path) } catch {
            if error.isNotFound { return .none }
            throw .system(error)
        }
        guard let end = bytes.firstIndex(of: 10) else { return .damaged }
        let head = String(decoding: bytes[..<end], as: UTF8.self).split(separator: " ")
        guard head.count == 3, head[0] == "penstock-checkpoints", let version = Int(head[1]) else { return .damaged }
        guard version <= Self.version else { throw .newer(path: path, version: version) }
        let body = Array(bytes[(end + 1)...].dropLast())
        guard SHA256.hexadecimal(of: body) == head[2], let value = try? WireFormat.json.read(body.span) else {
            return .damaged
        }
        func text(_ value: WireValue?) -> String? { value?.text(in: body.span) }
        let inputs = (value["inputs"]?.list ?? []).compactMap { text($0) }
        let entries = (value["files"]?.list ?? []).compactMap { file -> Entry? in
            guard let input = text(file["input"]), let path = text(file["path"]),
                let device = text(file["device"]).flatMap(UInt64.init),
                let inode = text(file["inode"]).flatMap(UInt64.init),
                let headSize = file["head_size"]?.integer, let headHash = text(file["head_sha256"]),
                let position = file["position"]?.integer
            else { return nil }
            return Entry(
                input: input,
                path: path,
                device: device,
                inode: inode,
                headSize: Int(headSize),
                headHash: headHash,
                position: UInt64(position)
            )
        }
        return .state(entries, inputs: Set(inputs))
    }
}
