import Kinesis

/// An Amazon Kinesis Agent's configuration turned into ours: the same files, the same streams, the same records.
///
/// Sources: "Write to Amazon Kinesis Data Streams using Kinesis Agent" in the developer guide, and the agent's own source
/// (awslabs/amazon-kinesis-agent) where the guide says nothing: which configuration keys are read, what a pattern fits, where a
/// record ends.
public struct Migration: Sendable {
    /// A configuration for each stream: an agent delivers to one.
    public private(set) var configurations: [StreamConfiguration] = []
    /// What has no equal, or not quite.
    public private(set) var remarks: [Remark] = []

    /// The configuration of an agent that delivers to `stream`.
    public struct StreamConfiguration: Sendable {
        public var stream: String
        public var toml: String
    }

    public struct Remark: Equatable, Sendable, CustomStringConvertible {
        public var file: String
        /// The key with where it stands: `flows[0].skipHeaderLines`.
        public var key: String
        public var message: String
        /// Something is not carried over, and somebody must do something about it.
        public var isOpen: Bool

        public var description: String { "\(file): \(key): \(isOpen ? "NOT CARRIED OVER: " : "")\(message)" }
    }

    /// Whether somebody must do something that this has not done.
    public var isIncomplete: Bool { remarks.contains(where: \.isOpen) }

    /// Translates agent.json, and what else has flows: the files of /etc/aws-kinesis/agent.d.
    ///
    /// - Parameter files: the names and texts; the first one's keys hold for all, of the others the flows are read.
    public init(_ files: [(name: String, text: [UInt8])]) throws(MigrationFault) {
        var main: AgentFile?
        var flows: [Flow] = []
        for (name, text) in files {
            let file = try AgentFile(name, text)
            for object in try file.objects("flows") { flows.append(try Flow(object)) }
            if main == nil { main = file } else { noteIgnored(file) }
        }
        guard let main, !flows.isEmpty else {
            throw MigrationFault("\(main?.name ?? "agent.json"): flows: there are none: nothing would be read")
        }
        let settings = try AgentSettings(main, hasFirehose: flows.contains { $0.deliveryStream != nil })
        remarks += settings.remarks
        let streams = flows.compactMap(\.stream).uniqued
        for (number, stream) in streams.enumerated() {
            var writer = StreamWriter(
                stream: stream,
                number: number,
                of: streams.count,
                source: files.map(\.name).joined(separator: ", "),
                settings: settings
            )
            let toml = writer.write(flows.filter { $0.stream == stream })
            try Self.require(toml, of: stream, from: main.name)
            configurations.append(StreamConfiguration(stream: stream, toml: toml))
        }
        for flow in flows { remarks += flow.remarks }
        if !streams.isEmpty {
            for (key, message) in StreamWriter.differences(flows) {
                remarks.append(Remark(file: main.name, key: key, message: message, isOpen: false))
            }
        }
        if streams.count > 1 {
            remarks.append(
                Remark(
                    file: main.name,
                    key: "flows",
                    message: "they deliver to \(streams.count) streams, which takes as many agents: each has a "
                        + "configuration, a state_dir and an admin port of its own; inputs in a conf.d beside a configuration are read by "
                        + "each that lies there: give each a folder of its own if there are some",
                    isOpen: false
                )
            )
        }
    }

    /// Only flows of a further file count, as the Kinesis Agent reads agent.d.
    private mutating func noteIgnored(_ file: AgentFile) {
        for key in file.keys where key != "flows" {
            let message = "is read in the first file alone; the Kinesis Agent ignores it here, too"
            remarks.append(Remark(file: file.name, key: key, message: message, isOpen: false))
        }
    }

    /// What our own reader refuses is refused here, in terms of what it came from.
    private static func require(_ toml: String, of stream: String, from file: String) throws(MigrationFault) {
        do throws(Faults) {
            _ = try Configuration(text: Array(toml.utf8), file: file, environment: { _ in nil })
        } catch {
            let faults = error.faults.map { "\($0.key): \($0.message)" }
            throw MigrationFault("\(file): for the stream \(stream): \(faults.joined(separator: "; "))")
        }
    }
}

extension Sequence where Element: Hashable {
    /// Each element once, where it comes first.
    fileprivate var uniqued: [Element] {
        var seen: Set<Element> = []
        return filter { seen.insert($0).inserted }
    }
}
