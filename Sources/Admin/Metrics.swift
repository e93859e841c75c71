internal import Agent
internal import Kinesis
internal import Platform

/// An agent's figures as Prometheus reads them: the text format 0.0.4.
///
/// How many series there are does not grow with what an agent reads: of files the 20 furthest behind have one each, of shards
/// a thousand.
struct Metrics {
    /// The media type of the text.
    static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    private(set) var text = ""
    private let status: AgentStatus

    init(_ status: AgentStatus) {
        self.status = status
        writeProcess()
        writeInputs()
        writeFiles()
        writeSockets()
        writeOutput()
        writeShards()
        writeSpool()
        let tally = status.lane?.tally ?? .init()
        write(
            "penstock_delivery_seconds",
            "From the receipt of an aggregate's oldest record to the answer of Kinesis.",
            tally.deliveries
        )
        write("penstock_call_seconds", "PutRecords calls that were answered.", tally.calls)
    }

    private enum Kind: String { case counter, gauge, histogram }

    private typealias Labels = [(name: String, value: String)]

    // MARK: what there is

    private mutating func writeProcess() {
        let process = status.process
        write("process_resident_memory_bytes", .gauge, "Resident memory.", process.residentBytes)
        write("process_cpu_seconds_total", .counter, "CPU time.", process.cpu.inSeconds)
        write("process_start_time_seconds", .gauge, "Start, since 1970.", Double(status.started) / 1000)
        write("process_open_fds", .gauge, "Open descriptors.", process.openDescriptors)
        begin("penstock_info", .gauge, "What runs.")
        sample("penstock_info", [("version", status.version), ("stream", status.stream)], "1")
        write("penstock_ready", .gauge, "Whether records are delivered.", status.unreadiness == nil ? 1 : 0)
        write("penstock_memory_limit_bytes", .gauge, "memory_limit.", status.configuration.agent.memoryLimit)
        write(
            "penstock_memory_aggregates_bytes",
            .gauge,
            "Aggregates that are open, wait, or are under way.",
            status.lane?.aggregateBytes ?? 0
        )
        write(
            "penstock_oldest_undelivered_seconds",
            .gauge,
            "Age of the oldest record that is not delivered; 0: there is none.",
            status.oldestUndelivered?.inSeconds ?? 0
        )
    }

    private mutating func writeInputs() {
        func write(_ name: String, _ kind: Kind, _ help: String, _ amount: (Ledger.Account) -> Ledger.Amount) {
            let suffix = kind == .counter ? "_total" : ""
            for unit in ["records", "bytes"] {
                let full = "penstock_input_\(name)_\(unit)\(suffix)"
                begin(full, kind, unit == "records" ? "Records \(help)" : "Bytes of records \(help)")
                for account in status.accounts {
                    let amount = amount(account)
                    sample(full, [("input", account.input)], "\(unit == "records" ? amount.records : amount.bytes)")
                }
            }
        }
        write("read", .counter, "that were taken in.") { $0.read }
        write("carried_over", .counter, "that an earlier run had left in the spool.") { $0.carriedOver }
        write("delivered", .counter, "that Kinesis has acknowledged.") { $0[.delivered] }
        write("dead_lettered", .counter, "that went to the dead letters.") { $0[.deadLettered] }
        write("dropped", .counter, "that were given up.") { $0[.dropped] }
        write("in_flight", .gauge, "in memory.") { $0[.inFlight] }
        write("spooled", .gauge, "on disk, owed to Kinesis.") { $0[.spooled] }
    }

    private mutating func writeFiles() {
        let counters = status.counters
        write("penstock_files_open", .gauge, "Tailed files.", counters.collectors.filesOpen.now)
        write(
            "penstock_files_behind_bytes",
            .gauge,
            "Bytes that are not read, by the last look.",
            counters.collectors.bytesBehind.now
        )
        write("penstock_files_read_bytes_total", .counter, "Bytes read.", counters.collectors.bytesRead.now)
        write("penstock_files_rotated_total", .counter, "Rotations seen.", counters.collectors.filesRotated.now)
        write("penstock_files_truncated_total", .counter, "Truncations seen.", counters.collectors.filesTruncated.now)
        write(
            "penstock_files_oversize_lines_total",
            .counter,
            "Lines above max_record.",
            counters.collectors.linesOversize.now
        )
        write(
            "penstock_files_truncated_bytes_total",
            .counter,
            "Bytes cut off such lines.",
            counters.collectors.bytesTruncated.now
        )
        write(
            "penstock_files_lost_bytes_total",
            .counter,
            "Bytes that were deleted or truncated away before they could be read.",
            counters.collectors.bytesLost.now
        )
        write("penstock_files_errors_total", .counter, "Faults of paths and files.", counters.collectors.errors.now)
        begin("penstock_file_lag_bytes", .gauge, "Bytes that are not delivered, of the files furthest behind.")
        // One that was moved elsewhere and is still read has its old name, which may be another's by now.
        var lags: [(input: String, path: String, lag: UInt64)] = []
        for file in status.files {
            if let same = lags.firstIndex(where: { $0.input == file.input && $0.path == file.path }) {
                lags[same].lag &+= file.lag
            } else {
                lags.append((file.input, file.path, file.lag))
            }
        }
        for file in lags {
            sample("penstock_file_lag_bytes", [("input", file.input), ("path", file.path)], "\(file.lag)")
        }
    }

    private mutating func writeSockets() {
        write("penstock_datagrams", of: status.counters.datagramSockets) {
            ([("input", $0.input), ("address", $0.address)], $0.figures, $0.heldBack.now)
        }
        let streams = status.counters.streamInputs
        if !streams.isEmpty {
            begin("penstock_streams_open", .gauge, "Open connections.")
            for each in streams { sample("penstock_streams_open", [("input", each.input)], "\(each.open.now)") }
        }
        write("penstock_streams", of: streams) { ([("input", $0.input)], $0.figures, $0.heldBack.now) }
    }

    /// Every figure of each socket; what they mean stands with them in the source and in the manual.
    private mutating func write<Socket>(
        _ prefix: String,
        of sockets: [Socket],
        _ read: (Socket) -> (labels: Labels, figures: [(name: String, value: Int)], heldBack: Int)
    ) {
        let all = sockets.map(read)
        guard let first = all.first else { return }
        for (index, figure) in first.figures.enumerated() {
            let isTime = figure.name == "held_back_ms"
            let name = "\(prefix)_\(isTime ? "held_back_seconds" : figure.name)_total"
            begin(name, .counter, isTime ? "Time for which senders were held back." : figure.name.spaced)
            for socket in all {
                let value = isTime ? "\(Double(socket.heldBack) / 1e9)" : "\(socket.figures[index].value)"
                sample(name, socket.labels, value)
            }
        }
    }

    private mutating func writeOutput() {
        let labels = [("output", status.output.name), ("stream", status.stream)] as Labels
        let lane = status.lane
        for figure in status.counters.lane.figures {
            let name = "penstock_output_\(figure.metric)\(figure.isGauge ? "" : "_total")"
            begin(name, figure.isGauge ? .gauge : .counter, figure.help)
            sample(name, labels, "\(figure.value)")
        }
        let gauges = [
            ("calls_allowed", "PutRecords calls that may be under way at once.", Double(lane?.callsAllowed ?? 0)),
            ("failing_seconds", "How long the endpoint has failed; 0: it does not.", status.failing?.inSeconds ?? 0),
            ("rate_bytes_per_second", "What may be sent; 0: there is no pacing.", lane?.rate ?? 0),
        ]
        for (name, help, value) in gauges {
            begin("penstock_output_\(name)", .gauge, help)
            sample("penstock_output_\(name)", labels, "\(value)")
        }
        begin("penstock_output_errors_total", .counter, "Errors of calls and of records, by their codes.")
        for (code, count) in (lane?.tally.errors ?? [:]).sorted(by: { $0.key < $1.key }) {
            sample("penstock_output_errors_total", labels + [("code", code)], "\(count)")
        }
    }

    private mutating func writeShards() {
        let shards = status.shards
        begin("penstock_shards", .gauge, "Shards of the stream.")
        sample("penstock_shards", [("stream", status.stream)], "\(status.counters.lane.shards.now)")
        func write(_ name: String, _ kind: Kind, _ help: String, _ value: (ShardReport) -> Int) {
            begin("penstock_shard_\(name)", kind, help)
            for shard in shards {
                let labels = [("stream", status.stream), ("shard", "\(shard.shard.id)")]
                sample("penstock_shard_\(name)", labels, "\(value(shard))")
            }
        }
        write("delivered_records_total", .counter, "Kinesis records that the shard took.") { $0.tally.records }
        write("delivered_bytes_total", .counter, "Their bytes, as its limits count them.") { $0.tally.bytes }
        write("throttled_total", .counter, "Kinesis records that it refused as too much.") { $0.tally.throttled }
        write("failed_total", .counter, "Kinesis records that it failed with.") { $0.tally.failed }
        write("queued_bytes", .gauge, "Bytes that wait for it.") { $0.bytesQueued }
        write("cooling", .gauge, "Whether it is left alone for a while, because it refused.") {
            $0.coolsFor == nil ? 0 : 1
        }
    }

    private mutating func writeSpool() {
        let spool = status.spool
        let gauges = [
            ("bytes", "Bytes of the spool's files.", Double(spool.bytes)),
            ("owed_bytes", "Bytes that are owed to Kinesis.", Double(spool.owedBytes)),
            ("room_bytes", "Bytes that may be added.", Double(spool.roomBytes)),
            ("max_bytes", "spool.max_size.", Double(spool.isOn ? spool.maxBytes : 0)),
            ("oldest_seconds", "Age of the oldest segment that is not delivered.", spool.oldest?.inSeconds ?? 0),
        ]
        for (name, help, value) in gauges {
            begin("penstock_spool_\(name)", .gauge, help)
            sample("penstock_spool_\(name)", [("output", status.output.name)], "\(value)")
        }
    }

    // MARK: how it is written

    private mutating func begin(_ name: String, _ kind: Kind, _ help: String) {
        text += "# HELP \(name) \(help)\n# TYPE \(name) \(kind.rawValue)\n"
    }

    private mutating func sample(_ name: String, _ labels: Labels, _ value: String) {
        text += name
        for (index, label) in labels.enumerated() {
            text += index == 0 ? "{" : ","
            text += label.name
            text += "=\""
            text += Self.escaped(label.value)
            text += "\""
        }
        text += labels.isEmpty ? " " : "} "
        text += value
        text += "\n"
    }

    private mutating func write(_ name: String, _ kind: Kind, _ help: String, _ value: some CustomStringConvertible) {
        begin(name, kind, help)
        sample(name, [], "\(value)")
    }

    private mutating func write(_ name: String, _ help: String, _ histogram: Histogram) {
        begin(name, .histogram, help)
        for (bound, count) in histogram.cumulative { sample(name + "_bucket", [("le", "\(bound)")], "\(count)") }
        sample(name + "_bucket", [("le", "+Inf")], "\(histogram.count)")
        sample(name + "_sum", [], "\(histogram.seconds)")
        sample(name + "_count", [], "\(histogram.count)")
    }

    private static func escaped(_ value: String) -> String {
        guard value.utf8.contains(where: { $0 == 0x22 || $0 == 0x5c || $0 == 0x0a }) else { return value }
        // By scalars: with what combines with it a quote is another character.
        var text = String.UnicodeScalarView()
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\"".unicodeScalars
            case "\\": text += "\\\\".unicodeScalars
            case "\n": text += "\\n".unicodeScalars
            default: text.append(scalar)
            }
        }
        return String(text)
    }
}

extension String {
    /// Makes a sentence of a name: `dropped_by_kernel` becomes "Dropped by kernel.".
    fileprivate var spaced: String {
        let words = replacing("_", with: " ")
        return words.prefix(1).uppercased() + words.dropFirst() + "."
    }
}
