package import Agent
package import Kinesis
internal import Platform

extension Configuration {
    /// What is in effect, defaults included, by the keys of the file; what may be a secret is hidden.
    package var document: WireValue {
        .object([
            "agent": agent.document,
            "inputs": .map(inputs.map { .init($0.name, $0.document) }),
            "outputs": .map(outputs.map { .init($0.name, $0.document) }),
        ])
    }
}

extension Configuration.Agent {
    fileprivate var document: WireValue {
        .object([
            "state_dir": .text(stateDirectory), "memory_limit": .size(memoryLimit),
            "shutdown_timeout": .duration(shutdownTimeout), "max_open_files": .number(maxOpenFiles),
            "log_level": .text(logLevel.rawValue), "admin": .text(admin?.description ?? ""),
            "admin_token_file": .text(adminTokenFile),
            "dead_letters": .object(["max_size": .size(deadLettersMaxSize)]),
        ])
    }
}

extension Configuration.Input {
    fileprivate var document: WireValue {
        let common: [WireValue.Member] = [
            .init("max_record", .size(maxRecord)), .init("on_oversize", .text(onOversize.rawValue)),
        ]
        guard let socket else {
            return .map(
                [
                    .init("type", .text("file")), .init("paths", .texts(paths)), .init("exclude", .texts(exclude)),
                    .init("start_at", .text(startAt.rawValue)), .init("multiline_start", .text(multilineStart)),
                    .init("multiline_timeout", .duration(multilineTimeout)),
                    .init("read_compressed", .bool(readCompressed)),
                ] + common
            )
        }
        return .map([.init("type", .text(socket.rules.rawValue))] + socket.members + common)
    }
}

extension Configuration.SocketSettings {
    fileprivate var members: [WireValue.Member] {
        [
            .init("listen", .texts(listen.map { "\($0)" })), .init("framing", .text(framing.rawValue)),
            .init("format", .text(format.rawValue)), .init("receive_buffer", .size(receiveBuffer)),
            .init("readers", .number(readers)), .init("gather", .duration(gather)),
            .init("unixgram_full", unixgramFull.map { .duration($0) } ?? .text("wait")),
            .init("max_connections", .number(maxConnections)), .init("idle_timeout", .duration(idleTimeout)),
            .init("handshake_timeout", .duration(handshakeTimeout)), .init("tls_cert", .text(tlsCertificate)),
            .init("tls_key", .text(tlsKey)), .init("tls_client_ca", .text(tlsClientCA)),
            .init("mode", .text("0" + String(mode, radix: 8))), .init("group", .text(group)),
        ]
    }
}

extension Configuration.Output {
    fileprivate var document: WireValue {
        let (name, arn) =
            switch stream {
            case .name(let name): (name, "")
            case .arn(let arn): ("", arn)
            }
        let sync =
            switch spool.sync {
            case .always: WireValue.text("always")
            case .never: WireValue.text("never")
            case .period(let period): WireValue.duration(period)
            }
        return .object([
            "type": .text("kinesis"), "from": .texts(from), "stream": .text(name), "stream_arn": .text(arn),
            "region": .text(region), "endpoint": .text(endpointText), "fips": .bool(fips),
            "dual_stack": .bool(dualStack), "profile": .text(profile), "role_arn": .text(roleARN),
            "external_id": .text(externalID.isEmpty ? "" : Self.hidden), "ca_file": .text(caFile),
            "proxy": .text(Self.withoutSecrets(proxy)), "wire": .text(wire.rawValue),
            "partition_key": .text(partitionKeyText), "ordered": .bool(ordered),
            "compression": .text(compression.rawValue), "aggregate": .bool(aggregate),
            "aggregate_max_size": .size(aggregateMaxSize), "aggregate_max_records": .number(aggregateMaxRecords),
            "linger": .duration(linger), "max_in_flight": .number(maxInFlight), "rate_limit": .number(rateLimit),
            "call_max_size": .size(callMaxSize), "call_max_records": .number(callMaxRecords),
            "timeout": .duration(timeout), "connect_timeout": .duration(connectTimeout),
            "spool": .object([
                "max_size": .size(spool.maxSize), "keep_free": .size(spool.keepFree),
                "when": .text(spool.when.rawValue), "sync": sync,
            ]),
        ])
    }

    private static let hidden = "hidden"

    private var endpointText: String {
        switch endpoint {
        case .region: ""
        case .embedded: "embedded"
        case .url(let url): Self.withoutSecrets(url)
        }
    }

    /// A URL without what stands before its host.
    static func withoutSecrets(_ url: String) -> String {
        let scheme = url.firstRange(of: "://")?.upperBound ?? url.startIndex
        let end = url[scheme...].firstIndex { "/?#".contains($0) } ?? url.endIndex
        guard let at = url[scheme..<end].lastIndex(of: "@") else { return url }
        return url[..<scheme] + hidden + url[at...]
    }

    private var partitionKeyText: String {
        switch partitionKey {
        case .spread: "spread"
        case .source: "source"
        case .host: "host"
        case .random: "random"
        case .literal(let key): "=\(key)"
        case .field(let pointer): "json:\(pointer.text)"
        }
    }
}

extension WireValue {
    fileprivate static func size(_ bytes: Int) -> WireValue { .text(Units.text(bytes: bytes)) }
    fileprivate static func duration(_ duration: Duration) -> WireValue { .text(Units.text(duration: duration)) }
    fileprivate static func number(_ value: Int) -> WireValue { .integer(Int64(value)) }
    fileprivate static func texts(_ texts: [String]) -> WireValue { .list(texts.map { .text($0) }) }
}
