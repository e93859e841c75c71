internal import Platform

extension Configuration {
    /// A file beside the main one that may hold inputs, and nothing else.
    public struct Addition: Sendable {
        public var file: String
        public var text: [UInt8]

        public init(file: String, text: [UInt8]) { (self.file, self.text) = (file, text) }
    }

    /// Reads the file at `path`, and the inputs of every `conf.d/*.toml` beside it, in the order of their names.
    ///
    /// - Throws: every fault at once, each with its place and what to do.
    public init(file path: String) throws(Faults) {
        let text: [UInt8]
        do { text = try Self.read(path) } catch {
            let message = "cannot be read: \(error.reason); name another with --config FILE"
            throw Faults(faults: [Fault(file: path, place: Place(line: 0, column: 0), key: "", message: message)])
        }
        let (additions, unreadable) = Self.additions(to: path)
        let read = Result { () throws(Faults) in
            try Self(
                text: text,
                file: path,
                additions: additions,
                environment: Machine.environment,
                region: { CredentialSource(profile: $0).region() }
            )
        }
        guard unreadable.isEmpty else {
            if case .failure(let others) = read { throw Faults(faults: others.faults + unreadable) }
            throw Faults(faults: unreadable)
        }
        self = try read.get()
    }

    private static func read(_ path: String) throws(SystemError) -> [UInt8] { try Folder.read(path, limit: 4 << 20) }

    /// The files beside the one at `path`; a folder that is not there has none.
    private static func additions(to path: String) -> (read: [Addition], unreadable: [Fault]) {
        let folder = (path.lastIndex(of: "/").map { String(path[...$0]) } ?? "") + "conf.d"
        func fault(_ path: String, _ error: SystemError) -> Fault {
            Fault(
                file: path,
                place: Place(line: 0, column: 0),
                key: "",
                message: "cannot be read: \(error.reason); let the agent's user read it, or move it away"
            )
        }
        let names: [String]
        do { names = try Folder.entries(of: folder).map(\.name) } catch {
            return error.isNotFound ? ([], []) : ([], [fault(folder, error)])
        }
        var (additions, unreadable): ([Addition], [Fault]) = ([], [])
        for name in names.sorted() where name.hasSuffix(".toml") && !name.hasPrefix(".") {
            let file = "\(folder)/\(name)"
            do { additions.append(Addition(file: file, text: try read(file))) } catch {
                unreadable.append(fault(file, error))
            }
        }
        return (additions, unreadable)
    }
}
