internal import Kinesis

// The calls that change a stream.

extension Service {
    enum Mode: String, CaseIterable {
        case provisioned = "PROVISIONED"
        case onDemand = "ON_DEMAND"
    }

    /// The values that MaxRecordSizeInKiB may have.
    static let recordSizes = Limits.recordBytes >> 10...Limits.largestRecordBytes >> 10

    func splitShard(_ parameters: consuming Parameters, at now: Moment) throws(Refusal) -> WireValue? {
        var parameters = parameters
        let id = try parameters.requiredText("ShardToSplit", 1...128, .name)
        let hash = try parameters.requiredText("NewStartingHashKey", 0...Int.max, .hashKey)
        let stream = try parameters.requiredStreamName()
        try parameters.check()
        guard let key = HashKey(decimal: hash) else {
            throw .invalidArgument("NewStartingHashKey \(hash) is not in the range [0, 2^128-1].")
        }
        let shard = try shard(id, of: stream)
        _ = try withStore { (store) throws(Refusal) in
            try store.change(stream, .split(shard, at: key), now: now)
        }
        return nil
    }

    func mergeShards(_ parameters: consuming Parameters, at now: Moment) throws(Refusal) -> WireValue? {
        var parameters = parameters
        let one = try parameters.requiredText("ShardToMerge", 1...128, .name)
        let other = try parameters.requiredText("AdjacentShardToMerge", 1...128, .name)
        let stream = try parameters.requiredStreamName()
        try parameters.check()
        let shards = (try shard(one, of: stream), try shard(other, of: stream))
        _ = try withStore { (store) throws(Refusal) in
            try store.change(stream, .merge(shards.0, shards.1), now: now)
        }
        return nil
    }

    private func shard(_ id: String, of stream: String) throws(Refusal) -> ShardID {
        guard let shard = ShardID(id) else {
            throw Refusal("ResourceNotFoundException", "Could not find shard \(id) in stream \(stream).")
        }
        return shard
    }

    private enum ScalingType: String, CaseIterable {
        case uniform = "UNIFORM_SCALING"
    }

    func updateShardCount(_ parameters: consuming Parameters, at now: Moment) throws(Refusal) -> WireValue? {
        var parameters = parameters
        parameters.require("TargetShardCount")
        let count = try parameters.integer("TargetShardCount", 1...Int.max)
        parameters.require("ScalingType")
        _ = try parameters.choice("ScalingType", ScalingType.self)
        let stream = try parameters.requiredStreamName()
        try parameters.check()
        // Twice as many as the account may have is refused as that is, and can be counted with.
        let target = min(count!, 2 * Store.accountShards)
        let (current, arn) = try withStore { (store) throws(Refusal) in
            (try store.change(stream, .count(target), now: now), store.arn(of: stream))
        }
        return .object([
            "StreamName": .text(stream), "StreamARN": .text(arn), "CurrentShardCount": .integer(Int64(current)),
            "TargetShardCount": .integer(Int64(target)),
        ])
    }

    func updateStreamMode(_ parameters: consuming Parameters, at now: Moment) throws(Refusal) -> WireValue? {
        var parameters = parameters
        parameters.require("StreamModeDetails")
        let mode = try parameters.streamMode()
        parameters.require("StreamARN")
        let stream = try parameters.streamName()
        try parameters.check()
        _ = try withStore { (store) throws(Refusal) in
            try store.change(stream!, .mode(onDemand: mode == .onDemand), now: now)
        }
        return nil
    }

    func updateMaxRecordSize(_ parameters: consuming Parameters, at now: Moment) throws(Refusal) -> WireValue? {
        var parameters = parameters
        parameters.require("MaxRecordSizeInKiB")
        let size = try parameters.integer("MaxRecordSizeInKiB", Self.recordSizes)
        let stream = try parameters.requiredStreamName()
        try parameters.check()
        _ = try withStore { (store) throws(Refusal) in
            try store.change(stream, .recordBytes(size! << 10), now: now)
        }
        return nil
    }
}

extension Parameters {
    /// What StreamModeDetails says; nil when there are none.
    mutating func streamMode() throws(Refusal) -> Service.Mode? {
        var details = try structure("StreamModeDetails")
        details?.require("StreamMode")
        let mode = try details?.choice("StreamMode", Service.Mode.self)
        adopt(details)
        return mode
    }

    /// A text that must be there; without it an empty one, and a complaint.
    mutating func requiredText(
        _ name: String,
        _ length: ClosedRange<Int>,
        _ pattern: Pattern
    ) throws(Refusal) -> String {
        require(name)
        return try text(name, length, pattern) ?? ""
    }
}
