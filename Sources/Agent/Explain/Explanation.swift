public import Kinesis
public import Platform

/// What a configuration means: what it needs of IAM, whom it calls, what it reads, what its keys cost.
public struct Explanation: Sendable {
    public let policies: [AccessPolicy]
    public let endpoints: [CalledEndpoint]
    public let shards: ShardSurvey
    public let inputs: [InputSurvey]
    /// Why it is not known what is delivered; nil: it is, or no agent has run yet.
    public let stateFault: String?
    /// Bytes of `memory_limit`, by what they are for.
    public let memory: [(use: String, bytes: Int)]
    public let keys: [KeyMeaning]

    /// - Parameter asks: whether Kinesis is asked for its shards.
    public init(
        _ configuration: Configuration,
        asks: Bool,
        environment: @escaping (String) -> String? = Machine.environment
    ) {
        let output = configuration.outputs[0]
        let active = configuration.activeInputs
        policies = AccessPolicy.all(of: configuration)
        endpoints = CalledEndpoint.all(of: output, environment)
        shards = asks ? ShardSurvey.ask(output) : .notAsked("--offline")
        var (state, stateFault): ([FileReport.File], String?) = ([], nil)
        do { state = try FileReport(stateDirectory: configuration.agent.stateDirectory).files } catch {
            if case .unreadable(let reason) = error { stateFault = reason }
        }
        self.stateFault = stateFault
        inputs = configuration.inputs.map { input in
            InputSurvey(input, isActive: active.contains { $0.name == input.name }, state: state)
        }
        let plan = MemoryPlan(limit: configuration.agent.memoryLimit, inputs: active)
        let rings = active.reduce(0) { $0 + $1.bufferBytes }
        memory = [
            ("the process itself", MemoryPlan.base), ("rings and unfinished records of connections", rings),
            ("long records", plan.fixed - MemoryPlan.base - rings),
            ("aggregates: open, waiting and in calls", plan.aggregates),
        ].filter { $0.1 > 0 }
        keys = KeyMeaning.all(of: configuration)
    }

    /// All of it, for a program.
    public var value: WireValue {
        .object([
            "policies": .list(policies.map { .object(["for": .text($0.holder), "policy": $0.document]) }),
            "endpoints": .list(
                endpoints.map {
                    .object(["service": .text($0.service), "url": .text($0.url), "purpose": .text($0.purpose)])
                }
            ),
            "shards": shards.value,
            "inputs": .list(inputs.map(\.value)), "stateNotReadable": stateFault.map { .text($0) },
            "memory": .list(memory.map { .object(["use": .text($0.use), "bytes": .integer(Int64($0.bytes))]) }),
            "keys": .list(
                keys.map {
                    .object([
                        "key": .text($0.key), "value": .text($0.value), "default": .bool($0.isDefault),
                        "meaning": .text($0.meaning),
                    ])
                }
            ),
        ])
    }
}

extension ShardSurvey {
    fileprivate var value: WireValue {
        switch self {
        case .seen(let count):
            .object([
                "count": .integer(Int64(count)), "bytesPerSecond": .integer(Int64(count * Self.bytesPerSecond)),
                "recordsPerSecond": .integer(Int64(count * Self.recordsPerSecond)),
            ])
        case .notReachable(let reason): .object(["notReachable": .text(reason)])
        case .notAsked(let reason): .object(["notAsked": .text(reason)])
        }
    }
}

extension InputSurvey {
    fileprivate var value: WireValue {
        let texts = { (texts: [String]) in WireValue.list(texts.map { .text($0) }) }
        guard listen.isEmpty else {
            return .object(["input": .text(name), "active": .bool(isActive), "listen": texts(listen)])
        }
        return .object([
            "input": .text(name), "active": .bool(isActive), "paths": texts(paths),
            "fileCount": .integer(Int64(fileCount)), "bytes": .integer(Int64(clamping: bytes)),
            "undelivered": .integer(Int64(clamping: undelivered)),
            "files": .list(
                files.map {
                    .object([
                        "path": .text($0.path), "size": .integer(Int64(clamping: $0.size)),
                        "undelivered": .integer(Int64(clamping: $0.undelivered)),
                    ])
                }
            ),
            "faults": texts(faults),
        ])
    }
}
