import Platform

/// Writes the configuration of an agent that delivers to one stream.
struct StreamWriter {
    let stream: String
    /// Which of the streams it is, and of how many.
    let number: Int
    let count: Int
    /// What it was made of.
    let source: String
    let settings: AgentSettings

    private var toml = TOMLText()

    init(stream: String, number: Int, of count: Int, source: String, settings: AgentSettings) {
        (self.stream, self.number, self.count) = (stream, number, count)
        (self.source, self.settings) = (source, settings)
    }

    /// - Parameter flows: those that deliver to the stream.
    mutating func write(_ flows: [Flow]) -> String {
        toml.comment("Made by penstock migrate out of \(source), for the stream \(stream).")
        for note in Self.differences(flows) { toml.comment("- \(note.message)") }
        toml.blank()
        writeAgent()
        var names: Set<String> = []
        for flow in flows {
            var (name, number) = (flow.name, 1)
            while !names.insert(name).inserted {
                number += 1
                name = "\(flow.name)-\(number)"
            }
            writeInput(flow, name)
        }
        writeOutput(flows)
        return toml.text
    }

    /// What is otherwise than with the Kinesis Agent, whatever its configuration says.
    static func differences(_ flows: [Flow]) -> [(key: String, message: String)] {
        var differences = [
            (
                "records",
                "A record ends before its line end: the Kinesis Agent sends the LF, and a CR before it, as part of the record; "
                    + "who glues records together puts it back."
            ),
            (
                "aggregate",
                "Each record is a Kinesis record of its own (aggregate = false), as it was. Where all consumers use the KCL, or "
                    + "deaggregate by AWS's modules, take that line out, and partition_key with it: lines of 200 bytes "
                    + "then cost some 120 times less to put."
            ),
            (
                "partitionKeyOption",
                "Records are spread over the shards by their explicit hash keys, under one partition key: who reads with several "
                    + "workers a shard by partition key (Lambda's ParallelizationFactor) needs another partition_key."
            ),
            (
                "on_oversize",
                "A record above 1 MiB less 1 KiB is cut, as it was; on_oversize = \"split\" loses nothing of it."
            ),
        ]
        if flows.contains(where: \.hasWildcards) {
            differences.append(
                (
                    "filePattern",
                    "All files that a pattern fits are read, side by side; the Kinesis Agent reads one at a time, and at its very "
                        + "first start the newest alone."
                )
            )
        }
        return differences
    }

    private mutating func comment(_ remarks: [Migration.Remark]) {
        for remark in remarks {
            toml.comment("\(remark.key): \(remark.isOpen ? "NOT CARRIED OVER: " : "")\(remark.message)")
        }
    }

    private mutating func writeAgent() {
        comment(settings.remarks)
        toml.table("agent")
        let usual = Configuration.Agent()
        if count == 1 {
            toml.add("state_dir", usual.stateDirectory)
        } else {
            toml.comment("Each agent has its own; each takes up to memory_limit, too.")
            toml.add("state_dir", "\(usual.stateDirectory)/stream-\(stream)")
            if let admin = usual.admin {
                // From the usual port on.
                let port = Int(admin.port) + number
                toml.add("admin", port <= Int(UInt16.max) ? "\(admin.host):\(port)" : "")
            }
        }
        if let timeout = settings.shutdownTimeout { toml.add("shutdown_timeout", Units.text(duration: timeout)) }
        toml.blank()
    }

    private mutating func writeInput(_ flow: Flow, _ name: String) {
        comment(flow.remarks)
        toml.table("inputs.\(name)")
        toml.add("type", "file")
        if !flow.hiddenPaths.isEmpty {
            toml.comment(
                "Java's wildcards take names that begin with a dot, too: take those patterns out if there are none."
            )
        }
        toml.add("paths", flow.paths + flow.hiddenPaths)
        if !flow.exclude.isEmpty {
            toml.comment("Packed files, which the Kinesis Agent leaves out.")
            toml.add("exclude", flow.exclude)
        }
        if flow.startsAtBeginning {
            toml.comment(
                "At the very first start: what the Kinesis Agent has sent of these files comes again. \"end\" goes on instead."
            )
        }
        toml.add("start_at", flow.startsAtBeginning ? "beginning" : "end")
        toml.add("on_oversize", "truncate")
        if let expression = flow.multilineStart {
            toml.comment("Tried at the beginning of each line, which it sees without its line end.")
            toml.add("multiline_start", expression)
        }
        toml.blank()
    }

    private mutating func writeOutput(_ flows: [Flow]) {
        toml.table("outputs.stream")
        toml.add("type", "kinesis")
        toml.add("stream", stream)
        for (key, value) in settings.place { toml.add(key, value) }
        if settings.isFIPS { toml.add("fips", true) }
        if settings.isDualStack { toml.add("dual_stack", true) }
        if let role = settings.roleARN { toml.add("role_arn", role) }
        if let identifier = settings.externalID { toml.add("external_id", identifier) }
        toml.add("partition_key", "random")
        toml.add("aggregate", false)
        if let age = least(flows, \.maxBufferAge, "maxBufferAgeMillis") {
            toml.add("linger", Units.text(duration: age))
        }
        if let count = least(flows, \.maxBufferRecords, "maxBufferSizeRecords") { toml.add("call_max_records", count) }
        if let bytes = least(flows, \.maxBufferBytes, "maxBufferSizeBytes") {
            toml.add("call_max_size", Units.text(bytes: bytes))
        }
        if let threads = settings.maxInFlight { toml.add("max_in_flight", threads) }
        if let timeout = settings.timeout { toml.add("timeout", Units.text(duration: timeout)) }
        if let timeout = settings.connectTimeout { toml.add("connect_timeout", Units.text(duration: timeout)) }
    }

    /// What the flows say of something that is the output's, and so is one for all of them.
    private mutating func least<Value: Comparable>(
        _ flows: [Flow],
        _ value: KeyPath<Flow, Value?>,
        _ key: String
    ) -> Value? {
        let values = flows.compactMap { $0[keyPath: value] }
        if let least = values.min(), let most = values.max(), least != most {
            toml.comment("\(key): the least of the flows', which share an output.")
        }
        return values.min()
    }
}
