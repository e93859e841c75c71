internal import Kinesis

// The calls about streams and shards.

extension Service {
    private enum Mode: String, CaseIterable {
        case provisioned = "PROVISIONED"
        case onDemand = "ON_DEMAND"
    }

    func createStream(_ parameters: consuming Parameters, at now: Moment) throws(Refusal) -> WireValue? {
        var parameters = parameters
        let count = try parameters.integer("ShardCount", 1...Int.max)
        parameters.require("StreamName")
        let name = try parameters.text("StreamName", 1...128, .name)
        let record = try parameters.integer("MaxRecordSizeInKiB", 1024...Limits.largestRecordBytes >> 10)
        var details = try parameters.structure("StreamModeDetails")
        details?.require("StreamMode")
        let mode = try details?.choice("StreamMode", Mode.self) ?? .provisioned
        parameters.adopt(details)
        if mode == .provisioned, count == nil { parameters.require("ShardCount") }
        try parameters.check()
        let plan = StreamPlan(
            name: name!,
            shards: mode == .onDemand ? Store.onDemandShards : count!,
            isOnDemand: mode == .onDemand,
            recordBytes: record.map { $0 << 10 } ?? Limits.recordBytes
        )
        try withStore { (store) throws(Refusal) in try store.create(plan, now: now) }
        return nil
    }

    func deleteStream(_ parameters: consuming Parameters) throws(Refusal) -> WireValue? {
        var parameters = parameters
        let name = try parameters.requiredStreamName()
        try parameters.check()
        try withStore { (store) throws(Refusal) in try store.delete(name) }
        return nil
    }

    func listStreams(_ parameters: consuming Parameters, at now: Moment) throws(Refusal) -> WireValue? {
        var parameters = parameters
        let limit = try parameters.integer("Limit", 1...10_000) ?? 100
        var after = try parameters.text("ExclusiveStartStreamName", 1...128, .name)
        let token = try parameters.text("NextToken", 1...1_048_576)
        try parameters.check()
        if let token { after = try PageToken(token, of: .streams, at: now).last }
        let (streams, arns) = try withStore { (store) throws(Refusal) in
            let streams = store.streams(after: after)
            return (streams, streams.map { store.arn(of: $0.name) })
        }
        let hasMore = streams.count > limit
        let page = zip(streams, arns).prefix(limit)
        let next = hasMore ? PageToken(.streams, stream: "", last: streams[limit - 1].name, at: now).text : nil
        let summaries = page.map { stream, arn in
            WireValue.object([
                "StreamName": .text(stream.name), "StreamARN": .text(arn), "StreamStatus": stream.status(at: now),
                "StreamModeDetails": stream.mode, "StreamCreationTimestamp": .time(milliseconds: stream.created),
            ])
        }
        return .object([
            "StreamNames": .list(page.map { .text($0.0.name) }), "HasMoreStreams": .bool(hasMore),
            "NextToken": next.map(WireValue.text), "StreamSummaries": .list(summaries),
        ])
    }

    func describeStream(_ parameters: consuming Parameters, at now: Moment) throws(Refusal) -> WireValue? {
        var parameters = parameters
        let limit = try parameters.integer("Limit", 1...10_000) ?? 100
        let after = try parameters.text("ExclusiveStartShardId", 1...128, .name)
        let (stream, arn, hours) = try described(&parameters)
        let shards = stream.isActive(at: now) ? try stream.shards(after: after) : []
        return .object([
            "StreamDescription": .object([
                "StreamName": .text(stream.name), "StreamARN": .text(arn), "StreamStatus": stream.status(at: now),
                "StreamModeDetails": stream.mode, "Shards": .list(shards.prefix(limit).map(\.description)),
                "HasMoreShards": .bool(shards.count > limit), "RetentionPeriodHours": .integer(hours),
                "StreamCreationTimestamp": .time(milliseconds: stream.created),
                "EnhancedMonitoring": StoredStream.monitoring, "EncryptionType": .text("NONE"),
            ])
        ])
    }

    func describeStreamSummary(_ parameters: consuming Parameters, at now: Moment) throws(Refusal) -> WireValue? {
        var parameters = parameters
        let (stream, arn, hours) = try described(&parameters)
        return .object([
            "StreamDescriptionSummary": .object([
                "StreamName": .text(stream.name), "StreamARN": .text(arn), "StreamStatus": stream.status(at: now),
                "StreamModeDetails": stream.mode, "RetentionPeriodHours": .integer(hours),
                "StreamCreationTimestamp": .time(milliseconds: stream.created),
                "EnhancedMonitoring": StoredStream.monitoring, "EncryptionType": .text("NONE"),
                "OpenShardCount": .integer(stream.isActive(at: now) ? Int64(stream.shards.count) : 0),
                "ConsumerCount": .integer(0), "MaxRecordSizeInKiB": .integer(Int64(stream.recordBytes >> 10)),
            ])
        ])
    }

    private func described(
        _ parameters: inout Parameters
    ) throws(Refusal) -> (stream: StoredStream, arn: String, hours: Int64) {
        let name = try parameters.requiredStreamName()
        try parameters.check()
        return try withStore { (store) throws(Refusal) in
            let hours = max(1, store.rules.retention.components.seconds / 3600)
            return (try store.stream(name), store.arn(of: name), hours)
        }
    }

    private enum Filter: String, CaseIterable {
        case afterShardID = "AFTER_SHARD_ID"
        case atTrimHorizon = "AT_TRIM_HORIZON"
        case fromTrimHorizon = "FROM_TRIM_HORIZON"
        case atLatest = "AT_LATEST"
        case atTimestamp = "AT_TIMESTAMP"
        case fromTimestamp = "FROM_TIMESTAMP"
    }

    func listShards(_ parameters: consuming Parameters, at now: Moment) throws(Refusal) -> WireValue? {
        var parameters = parameters
        let limit = min(1000, try parameters.integer("MaxResults", 1...10_000) ?? 1000)
        var after = try parameters.text("ExclusiveStartShardId", 1...128, .name)
        let token = try parameters.text("NextToken", 1...1_048_576)
        let named = try parameters.streamName()
        var filter = try parameters.structure("ShardFilter")
        filter?.require("Type")
        let kind = try filter?.choice("Type", Filter.self)
        let filterShard = try filter?.text("ShardId", 1...128, .name)
        let filterTime = try filter?.time("Timestamp")
        parameters.adopt(filter)
        try parameters.check()
        let name: String
        switch (token, named) {
        case (nil, nil): throw .invalidArgument("Either NextToken or StreamName should be provided.")
        case (.some, .some): throw .invalidArgument("NextToken and StreamName cannot be provided together.")
        case (nil, let named?): name = named
        case (let token?, nil):
            if after != nil {
                throw .invalidArgument("NextToken and ExclusiveStartShardId cannot be provided together.")
            }
            let page = try PageToken(token, of: .shards, at: now)
            (name, after) = (page.stream, page.last)
        }
        switch kind {
        case .afterShardID:
            guard let filterShard else { throw .invalidArgument("ShardId is required for AFTER_SHARD_ID.") }
            after = max(after ?? filterShard, filterShard)
        case .atTimestamp, .fromTimestamp:
            if filterTime == nil { throw .invalidArgument("Timestamp is required for \(kind!.rawValue).") }
        // All shards are open, and were from the start: the other filters pass every one.
        case nil, .atTrimHorizon, .fromTrimHorizon, .atLatest: break
        }
        let stream = try withStore { (store) throws(Refusal) in try store.stream(name) }
        guard stream.isActive(at: now) else {
            throw Refusal("ResourceInUseException", "Stream \(name) is not in the ACTIVE or UPDATING state.")
        }
        let shards = try stream.shards(after: after)
        let page = shards.prefix(limit)
        let next =
            shards.count > limit ? PageToken(.shards, stream: name, last: "\(page.last!.id)", at: now).text : nil
        return .object(["Shards": .list(page.map(\.description)), "NextToken": next.map(WireValue.text)])
    }
}

extension StoredStream {
    fileprivate func status(at now: Moment) -> WireValue { .text(isActive(at: now) ? "ACTIVE" : "CREATING") }

    fileprivate var mode: WireValue { .object(["StreamMode": .text(isOnDemand ? "ON_DEMAND" : "PROVISIONED")]) }

    /// No metrics of shards.
    fileprivate static let monitoring = WireValue.list([.object(["ShardLevelMetrics": .list([])])])

    /// The shards whose numbers are above that of the one named `id`.
    fileprivate func shards(after id: String?) throws(Refusal) -> ArraySlice<StoredShard> {
        guard let id else { return shards[...] }
        guard let shard = ShardID(id) else { throw .invalidArgument("\(id) is not a shard's name.") }
        return shards.drop { $0.id <= shard }
    }
}

extension StoredShard {
    fileprivate var description: WireValue {
        .object([
            "ShardId": .text(id.description),
            "HashKeyRange": .object([
                "StartingHashKey": .text(range.lowerBound.description),
                "EndingHashKey": .text(range.upperBound.description),
            ]),
            "SequenceNumberRange": .object([
                "StartingSequenceNumber": .text(startingSequenceNumber.description)
            ]),
        ])
    }
}
