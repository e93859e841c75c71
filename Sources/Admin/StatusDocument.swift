internal import Agent
internal import Bytes
internal import Kinesis
internal import Platform

extension AgentStatus {
    /// The whole as JSON: what the status page and `penstock top` show.
    ///
    /// Counters count since the agent's start.
    var document: WireValue {
        .map(
            processMembers + [
                .init("inputs", .list(accounts.map(document))), .init("files", filesDocument),
                .init("datagrams", .list(counters.datagramSockets.map(Self.document))),
                .init("streams", .list(counters.streamInputs.map(Self.document))), .init("output", outputDocument),
                .init("shard_limits", Self.shardLimits), .init("shards", .list(shards.map(Self.document))),
                .init("shards_left_out", .count(max(0, (lane?.shards?.count ?? 0) - Self.mostShards))),
                .init("latency", latencyDocument), .init("spool", spoolDocument),
                .init("log", .list(events.map(Self.document))),
            ]
        )
    }

    private var processMembers: [WireValue.Member] {
        let memory = WireValue.object([
            "resident_bytes": .count(process.residentBytes), "limit_bytes": .count(configuration.agent.memoryLimit),
            "aggregates_bytes": .count(lane?.aggregateBytes ?? 0),
            "aggregates_limit_bytes": .count(lane?.aggregateLimit ?? 0),
        ])
        return [
            .init("version", .text(version)), .init("host", .text(Machine.hostName)),
            .init("process", .integer(Int64(Machine.processNumber))),
            .init("started", .text(LogLine.timestamp(started))), .init("time", .text(LogLine.timestamp(time))),
            .init("uptime_seconds", .number(uptime.inSeconds)), .init("state", .text(state.rawValue)),
            .init("ready", .bool(unreadiness == nil)), .init("cpu_seconds", .number(process.cpu.inSeconds)),
            .init("memory", memory), .init("oldest_undelivered_seconds", .seconds(oldestUndelivered)),
        ]
    }

    private static var shardLimits: WireValue {
        .object([
            "bytes_per_second": .count(Limits.shardBytesPerSecond),
            "records_per_second": .count(Limits.shardRecordsPerSecond),
        ])
    }

    private var latencyDocument: WireValue {
        let tally = lane?.tally ?? LaneTally()
        return .object([
            "delivery_seconds": Self.document(tally.deliveries), "call_seconds": Self.document(tally.calls),
        ])
    }

    private var spoolDocument: WireValue {
        .object([
            "on": .bool(spool.isOn), "bytes": .count(spool.bytes), "owed_bytes": .count(spool.owedBytes),
            "room_bytes": .count(spool.roomBytes), "max_bytes": .count(spool.maxBytes),
            "oldest_seconds": .seconds(spool.oldest),
        ])
    }

    private static func document(_ event: RecentEvents.Event) -> WireValue {
        .object([
            "time": .text(LogLine.timestamp(event.time)), "level": .text(event.level),
            "message": .text(event.message), "details": .text(event.details),
        ])
    }

    /// Who watches ten thousand shards watches their sum: so many are told of one by one.
    static let mostShards = 1000

    var shards: ArraySlice<ShardReport> { (lane?.shards ?? []).prefix(Self.mostShards) }

    /// What an input is, while the configuration has it.
    private func kind(of input: String) -> WireValue {
        guard let input = configuration.inputs.first(where: { $0.name == input }) else { return .null }
        return .text(input.socket?.rules.rawValue ?? "file")
    }

    private func document(_ account: Ledger.Account) -> WireValue {
        func amount(_ amount: Ledger.Amount) -> WireValue {
            .object(["records": .count(amount.records), "bytes": .count(amount.bytes)])
        }
        return .map(
            [
                .init("name", .text(account.input)), .init("type", kind(of: account.input)),
                .init("read", amount(account.read)),
                .init("carried_over", amount(account.carriedOver)),
            ] + Ledger.Place.allCases.map { .init($0.rawValue, amount(account[$0])) }
        )
    }

    private var filesDocument: WireValue {
        let furthest = files.map { file in
            WireValue.object([
                "input": .text(file.input), "path": .text(file.path),
                "size_bytes": .integer(Int64(clamping: file.size)),
                "read_bytes": .integer(Int64(clamping: file.read)),
                "delivered_bytes": .integer(Int64(clamping: file.delivered)),
                "lag_bytes": .integer(Int64(clamping: file.lag)),
            ])
        }
        return .map(
            counters.collectors.figures.map { .init($0.name, .count($0.value)) }
                + [.init("furthest_behind", .list(furthest))]
        )
    }

    private static func document(_ socket: DatagramCounters) -> WireValue {
        .map(
            [.init("input", .text(socket.input)), .init("address", .text(socket.address))]
                + document(socket.figures, heldBack: socket.heldBack.now)
        )
    }

    private static func document(_ streams: StreamCounters) -> WireValue {
        .map(
            [.init("input", .text(streams.input)), .init("open", .count(streams.open.now))]
                + document(streams.figures, heldBack: streams.heldBack.now)
        )
    }

    private static func document(_ figures: [(name: String, value: Int)], heldBack: Int) -> [WireValue.Member] {
        figures.filter { $0.name != "held_back_ms" }.map { .init($0.name, .count($0.value)) }
            + [.init("held_back_seconds", .number(Double(heldBack) / 1e9))]
    }

    private var outputDocument: WireValue {
        var members: [WireValue.Member] = [
            .init("name", .text(output.name)), .init("stream", .text(stream)), .init("region", .text(output.region)),
            .init("endpoint", .text(Configuration.Output.withoutSecrets(endpoint))),
            .init("wire", .text(lane?.format == .json ? "json" : "cbor")), .init("failing_seconds", .seconds(failing)),
            .init("last_failure", state == .failing ? lastFailure.map { .text($0) } ?? .null : .null),
        ]
        members += counters.lane.figures.map { .init($0.name, .count($0.value)) }
        let errors = (lane?.tally.errors ?? [:]).sorted { ($1.value, $0.key) < ($0.value, $1.key) }
        members += [
            .init("calls_allowed", .count(lane?.callsAllowed ?? 0)),
            .init("rate_bytes_per_second", lane?.rate.map { .count(Int($0)) } ?? .null),
            .init("is_rate_limited", .bool(lane?.isRateLimited ?? false)),
            .init("errors", .list(errors.map { .object(["code": .text($0.key), "count": .count($0.value)]) })),
        ]
        return .map(members)
    }

    private static func document(_ report: ShardReport) -> WireValue {
        .object([
            "id": .text("\(report.shard.id)"), "first_hash_key": .text("\(report.shard.range.lowerBound)"),
            "last_hash_key": .text("\(report.shard.range.upperBound)"), "records": .count(report.tally.records),
            "bytes": .count(report.tally.bytes), "throttled": .count(report.tally.throttled),
            "failed": .count(report.tally.failed), "queued_bytes": .count(report.bytesQueued),
            "cooling_seconds": .seconds(report.coolsFor),
        ])
    }

    private static func document(_ histogram: Histogram) -> WireValue {
        .object([
            "buckets": .list(
                histogram.cumulative.map { .object(["le": .number($0.bound), "count": .count($0.count)]) }
            ),
            "count": .count(histogram.count), "sum": .number(histogram.seconds),
        ])
    }
}

extension WireValue {
    fileprivate static func count(_ value: Int) -> WireValue { .integer(Int64(value)) }

    fileprivate static func seconds(_ duration: Duration?) -> WireValue {
        duration.map { .number($0.inSeconds) } ?? .null
    }
}
