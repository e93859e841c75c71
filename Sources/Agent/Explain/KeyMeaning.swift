import Kinesis
import Platform

/// A key of the configuration: what it is set to, and what that means or costs.
public struct KeyMeaning: Equatable, Sendable {
    /// `outputs.stream.linger`.
    public var key: String
    public var value: String
    public var isDefault: Bool
    public var meaning: String

    /// Every key of a configuration, in the order of config/penstock.toml.
    static func all(of configuration: Configuration) -> [KeyMeaning] {
        var list = KeyList()
        list.add(configuration.agent)
        for input in configuration.inputs { list.add(input, configuration) }
        for output in configuration.outputs { list.add(output) }
        return list.keys
    }
}

/// Gathers what keys mean.
private struct KeyList {
    private(set) var keys: [KeyMeaning] = []
    private var table = ""

    private mutating func add<Value: Equatable>(
        _ key: String,
        _ value: Value,
        default usual: Value,
        _ text: (Value) -> String,
        _ meaning: String
    ) {
        keys.append(KeyMeaning(key: "\(table).\(key)", value: text(value), isDefault: value == usual, meaning: meaning))
    }

    private static func size(_ bytes: Int) -> String { Units.text(bytes: bytes) }
    private static func time(_ duration: Duration) -> String {
        duration == .zero ? "0s" : Units.text(duration: duration)
    }
    private static func plain(_ value: some CustomStringConvertible) -> String { value.description }
    private static func quoted(_ text: String) -> String { "\"\(text)\"" }
    private static func list(_ texts: [String]) -> String { "[\(texts.map(quoted).joined(separator: ", "))]" }

    mutating func add(_ agent: Configuration.Agent) {
        let usual = Configuration.Agent()
        table = "agent"
        add(
            "state_dir",
            agent.stateDirectory,
            default: usual.stateDirectory,
            Self.quoted,
            "checkpoints, spool, dead letters: what is lost with it is read by start_at again"
        )
        add("memory_limit", agent.memoryLimit, default: usual.memoryLimit, Self.size, "shared out as told under memory")
        add(
            "shutdown_timeout",
            agent.shutdownTimeout,
            default: usual.shutdownTimeout,
            Self.time,
            "how long a stop may take; whoever stops the agent must wait as long"
        )
        add(
            "max_open_files",
            agent.maxOpenFiles,
            default: usual.maxOpenFiles,
            Self.plain,
            "a descriptor each; the others are opened when they change"
        )
        add(
            "admin",
            agent.admin,
            default: usual.admin,
            { Self.quoted($0?.description ?? "") },
            agent.admin == nil ? "nothing listens" : "the status page and /metrics; beyond loopback it takes a token"
        )
        add(
            "admin_token_file",
            agent.adminTokenFile,
            default: usual.adminTokenFile,
            Self.quoted,
            agent.adminTokenFile.isEmpty ? "who asks needs no word" : "who asks must know the word in it"
        )
        add(
            "log_level",
            agent.logLevel.rawValue,
            default: usual.logLevel.rawValue,
            Self.quoted,
            "the log's least severity"
        )
        add(
            "dead_letters.max_size",
            agent.deadLettersMaxSize,
            default: usual.deadLettersMaxSize,
            Self.size,
            "of disk, at most, for records that could not be sent as they are"
        )
    }

    mutating func add(_ input: Configuration.Input, _ configuration: Configuration) {
        table = "inputs.\(input.name)"
        var usual = Configuration.Input(name: input.name)
        if let socket = input.socket {
            usual.socket = Configuration.SocketSettings()
            add(socket, input)
        } else {
            addFiles(input, usual)
        }
        add(
            "max_record",
            input.maxRecord,
            default: usual.maxRecord,
            Self.size,
            input.hasLongRecords
                ? "above 1MiB: the stream is asked for its limit, such a record goes in a call of its own, and takes memory"
                : "less 1KiB for the longest key where a record has 1MiB"
        )
        let oversize =
            switch input.onOversize {
            case .split: "a longer record becomes several"
            case .truncate: "the rest of a longer record is dropped, and counted"
            case .deadLetter: "a longer record is kept among the dead letters, and not sent"
            }
        add("on_oversize", input.onOversize.rawValue, default: usual.onOversize.rawValue, Self.quoted, oversize)
    }

    private mutating func addFiles(_ input: Configuration.Input, _ usual: Configuration.Input) {
        add(
            "paths",
            input.paths,
            default: usual.paths,
            Self.list,
            "their folders are watched, and searched every few seconds"
        )
        add("exclude", input.exclude, default: usual.exclude, Self.list, "left out of those")
        add(
            "start_at",
            input.startAt.rawValue,
            default: usual.startAt.rawValue,
            Self.quoted,
            "for what is there at the very first start; what appears later is read from its beginning"
        )
        add(
            "multiline_start",
            input.multilineStart,
            default: usual.multilineStart,
            Self.quoted,
            input.multilineStart.isEmpty
                ? "a line is a record" : "tried at each line"
        )
        add(
            "multiline_timeout",
            input.multilineTimeout,
            default: usual.multilineTimeout,
            Self.time,
            input.multilineStart.isEmpty ? "of no effect" : "so much later comes a record that nothing follows"
        )
        add(
            "read_compressed",
            input.readCompressed,
            default: usual.readCompressed,
            Self.plain,
            "whether what was packed before it was finished is finished from its .gz"
        )
    }

    private mutating func add(_ socket: Configuration.SocketSettings, _ input: Configuration.Input) {
        let usual = Configuration.SocketSettings()
        let mode = { (mode: UInt32) in "\"0\(String(mode, radix: 8))\"" }
        let sockets = socket.listen.reduce(0) { $0 + ($1.isUDP ? socket.readers : $1.isDatagram ? 1 : 0) }
        add(
            "listen",
            socket.listen.map(\.description),
            default: [],
            Self.list,
            "ports below 1024 take a privilege, or systemd"
        )
        add(
            "framing",
            socket.framing.rawValue,
            default: usual.framing.rawValue,
            Self.quoted,
            "of streams; a datagram is a record"
        )
        add(
            "format",
            socket.format.rawValue,
            default: usual.format.rawValue,
            Self.quoted,
            socket.format == .json
                ? "some 500 instructions a message, 2,000 of a new sender, and a quarter for each byte above 235"
                : "bytes as they came"
        )
        add(
            "receive_buffer",
            socket.receiveBuffer,
            default: usual.receiveBuffer,
            Self.size,
            "of the kernel's memory for each socket of datagrams (\(sockets)); above net.core.rmem_max it takes CAP_NET_ADMIN"
        )
        add("readers", socket.readers, default: usual.readers, Self.plain, "threads, and rings, for each UDP address")
        add(
            "gather",
            socket.gather,
            default: usual.gather,
            Self.time,
            "later at most, where many come, and five times that, 5ms at most, until they are packed, for a third of the CPU"
        )
        add(
            "unixgram_full",
            socket.unixgramFull,
            default: usual.unixgramFull,
            { $0.map(Self.time) ?? "\"wait\"" },
            "how long local senders are held back by a full agent"
        )
        add(
            "max_connections",
            socket.maxConnections,
            default: usual.maxConnections,
            Self.plain,
            "a descriptor each; what is unfinished in all of them takes 16MiB at most"
        )
        add(
            "idle_timeout",
            socket.idleTimeout,
            default: usual.idleTimeout,
            Self.time,
            "after it a silent connection is closed"
        )
        add("handshake_timeout", socket.handshakeTimeout, default: usual.handshakeTimeout, Self.time, "of TLS")
        add("tls_cert", socket.tlsCertificate, default: "", Self.quoted, "read again at SIGHUP")
        add("tls_key", socket.tlsKey, default: "", Self.quoted, "read again at SIGHUP")
        add(
            "tls_client_ca",
            socket.tlsClientCA,
            default: "",
            Self.quoted,
            socket.tlsClientCA.isEmpty ? "who connects shows no certificate" : "who connects shows a certificate of its"
        )
        add("mode", socket.mode, default: usual.mode, mode, "who may write to a Unix socket")
        add("group", socket.group, default: "", Self.quoted, "of a Unix socket's file")
    }

    mutating func add(_ output: Configuration.Output) {
        let usual = Configuration.Output(name: output.name)
        table = "outputs.\(output.name)"
        addPlace(output)
        addPlacement(output, usual)
        add(
            "linger",
            output.linger,
            default: usual.linger,
            Self.time,
            "later at most: the longer, the fuller aggregates and calls are where little comes"
        )
        add(
            "max_in_flight",
            output.maxInFlight,
            default: usual.maxInFlight,
            Self.plain,
            "a ceiling: up to \(Self.size(output.maxInFlight * output.callMaxSize)) on their way, within memory_limit"
        )
        add(
            "rate_limit",
            output.rateLimit,
            default: usual.rateLimit,
            { "\($0)" },
            output.rateLimit == 0
                ? "no pacing: what a shard cannot take is refused and sent again"
                : "percent: up to \(Self.size(Limits.shardBytesPerSecond * output.rateLimit / 100)) and "
                    + "\(Limits.shardRecordsPerSecond * output.rateLimit / 100) records a second and shard"
        )
        add("call_max_size", output.callMaxSize, default: usual.callMaxSize, Self.size, "a longer record goes alone")
        add(
            "call_max_records",
            output.callMaxRecords,
            default: usual.callMaxRecords,
            Self.plain,
            "500 is what a call may have"
        )
        add(
            "timeout",
            output.timeout,
            default: usual.timeout,
            Self.time,
            "then the call is made again, and may come twice"
        )
        add(
            "connect_timeout",
            output.connectTimeout,
            default: usual.connectTimeout,
            Self.time,
            "to connect, TLS and all"
        )
        addSpool(output.spool)
    }

    private mutating func addPlace(_ output: Configuration.Output) {
        let endpoint =
            switch output.endpoint {
            case .region: ""
            case .url(let url): url
            case .embedded: "embedded"
            }
        let own = "the region's"
        switch output.stream {
        case .name(let name): add("stream", name, default: "", Self.quoted, "at the region's endpoint")
        case .arn(let arn): add("stream_arn", arn, default: "", Self.quoted, "at its account's endpoints")
        }
        add("region", output.region, default: "", Self.quoted, "of the endpoints and of signatures")
        add("from", output.from, default: [], Self.list, output.from.isEmpty ? "every input" : "these inputs alone")
        add("endpoint", endpoint, default: "", Self.quoted, endpoint.isEmpty ? own : "in place of \(own)")
        add("fips", output.fips, default: false, Self.plain, "the endpoints that FIPS 140 validates")
        add("dual_stack", output.dualStack, default: false, Self.plain, "the endpoints with IPv6")
        add(
            "profile",
            output.profile,
            default: "",
            Self.quoted,
            output.profile.isEmpty ? "the usual search for a key" : "of ~/.aws"
        )
        add(
            "role_arn",
            output.roleARN,
            default: "",
            Self.quoted,
            output.roleARN.isEmpty ? "none" : "taken on by STS, and again"
        )
        let hidden = { (text: String) in text.isEmpty ? "\"\"" : "set, not shown" }
        add("external_id", output.externalID, default: "", hidden, "what the role's trust policy asks for")
        add(
            "ca_file",
            output.caFile,
            default: "",
            Self.quoted,
            output.caFile.isEmpty ? "the system's" : "in place of the system's"
        )
        add(
            "proxy",
            output.proxy,
            default: "",
            hidden,
            output.proxy.isEmpty ? "the environment's" : "for Kinesis and STS"
        )
        let wire = "auto: CBOR, which is a quarter shorter, JSON where it is refused"
        add("wire", output.wire.rawValue, default: Configuration.Wire.auto.rawValue, Self.quoted, wire)
    }

    private mutating func addPlacement(_ output: Configuration.Output, _ usual: Configuration.Output) {
        let (key, cost): (String, String) =
            switch output.partitionKey {
            case .spread: ("spread", "to where there is room: fewest, fullest aggregates; no cost a record")
            case .source:
                (
                    "source",
                    "a file, or sender, to one shard: that shard's limits are its own; no cost a record of a file"
                )
            case .host: ("host", "this machine, or the message's host, to one shard, with its limits")
            case .random: ("random", "a draw a record: as many aggregates open as there are shards")
            case .literal(let text): ("=\(text)", "everything to one shard, with its limits")
            case .field(let pointer):
                (
                    "json:\(pointer.text)",
                    "about a nanosecond for each byte up to the value, and a hash a record; by a value that few "
                        + "records share aggregates stay small where shards are many"
                )
            }
        add("partition_key", key, default: "spread", Self.quoted, cost)
        add(
            "ordered",
            output.ordered,
            default: usual.ordered,
            Self.plain,
            output.ordered
                ? "\(Self.size(output.aggregateMaxSize)) a round trip and shard, at most" : "retries may overtake"
        )
        let compression =
            switch output.compression {
            case .none: "what was read is what is sent"
            case .gzip: "about 1 ns for each byte; access logs come to 13 % and JSON lines to 24 % of their size"
            case .gzipRecord: "about 5 µs a record; pays from a few hundred bytes a record on"
            }
        add("compression", output.compression.rawValue, default: "none", Self.quoted, compression)
        let units = PutUnits(output)
        add("aggregate", output.aggregate, default: usual.aggregate, Self.plain, units.meaning)
        add(
            "aggregate_max_size",
            output.aggregateMaxSize,
            default: usual.aggregateMaxSize,
            Self.size,
            output.aggregate ? "a full one is billed as \(units.ofAggregate) PUT units of 25 KB" : "of no effect"
        )
        add(
            "aggregate_max_records",
            output.aggregateMaxRecords,
            default: usual.aggregateMaxRecords,
            Self.plain,
            output.aggregateMaxRecords == 0 ? "as many as fit" : "user records at most"
        )
    }

    private mutating func addSpool(_ spool: Configuration.SpoolSettings) {
        let usual = Configuration.SpoolSettings()
        let sync = { (sync: Configuration.SpoolSettings.Sync) in
            switch sync {
            case .always: "\"always\""
            case .never: "\"never\""
            case .period(let period): Self.quoted(Self.time(period))
            }
        }
        add(
            "spool.max_size",
            spool.maxSize,
            default: usual.maxSize,
            Self.size,
            spool.maxSize == 0
                ? "no spool: files and streams wait, datagrams are dropped" : "of disk, while Kinesis is away"
        )
        add("spool.keep_free", spool.keepFree, default: usual.keepFree, Self.size, "stays free on the file system")
        add(
            "spool.when",
            spool.when.rawValue,
            default: usual.when.rawValue,
            Self.quoted,
            spool.when == .always ? "everything is written to disk first" : "only what cannot be delivered is written"
        )
        let loss: String =
            switch spool.sync {
            case .always: "an fsync a write: nothing that counts as spooled is lost with the power"
            case .period: "what came since the last fsync stays uncounted until the next"
            case .never: "checkpoints do not move on spooling"
            }
        add("spool.sync", spool.sync, default: usual.sync, sync, loss)
    }
}
