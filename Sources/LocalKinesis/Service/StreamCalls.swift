internal import Kinesis

// The calls about streams and shards.

extension Service {
    func createStream(_ parameters: consuming Parameters, at now: Moment) throws(Refusal) -> WireValue? {
        var parameters = parameters
        let count = try parameters.integer("ShardCount", 1...Int.max)
        parameters.require("StreamName")
        let name = try parameters.text("StreamName", 1...128, .name)
        let record = try parameters.integer("MaxRecordSizeInKiB", Self.recordSizes)
        let mode = try parameters.streamMode() ?? .provisioned
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
            let streams = store.streams(after: after, now: now)
            return (streams, streams.map { store.arn(of: $0.name) })
        }
        let hasMore = streams.count > limit
        let page = zip(streams, arns).prefix(limit)
        let next = hasMore ? PageToken(.streams, stream: "", last: streams[limit - 1].name, at: now).text : nil
        let summaries = page.map { stream, arn in
            WireValue.object([
                "StreamName": .text(stream.name), "StreamARN": .text(arn), "StreamStatus": stream.statusText(at: now),
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
        let (stream, arn, rules) = try described(&parameters, at: now)
        let isCreating = stream.status(at: now) == .creating
        let shards = isCreating ? [] : try stream.shards(.all, after: Self.shard(after), horizon: rules.horizon)
        return .object([
            "StreamDescription": .object([
                "StreamName": .text(stream.name), "StreamARN": .text(arn), "StreamStatus": stream.statusText(at: now),
                "StreamModeDetails": stream.mode, "Shards": .list(shards.prefix(limit).map(\.description)),
                "HasMoreShards": .bool(shards.count > limit), "RetentionPeriodHours": .integer(rules.hours),
                "StreamCreationTimestamp": .time(milliseconds: stream.created),
                "EnhancedMonitoring": StoredStream.monitoring, "EncryptionType": .text("NONE"),
            ])
        ])
    }

    func describeStreamSummary(_ parameters: consuming Parameters, at now: Moment) throws(Refusal) -> WireValue? {
        var parameters = parameters
        let (stream, arn, rules) = try described(&parameters, at: now)
        let isCreating = stream.status(at: now) == .creating
        return .object([
            "StreamDescriptionSummary": .object([
                "StreamName": .text(stream.name), "StreamARN": .text(arn), "StreamStatus": stream.statusText(at: now),
                "StreamModeDetails": stream.mode, "RetentionPeriodHours": .integer(rules.hours),
                "StreamCreationTimestamp": .time(milliseconds: stream.created),
                "EnhancedMonitoring": StoredStream.monitoring, "EncryptionType": .text("NONE"),
                "OpenShardCount": .integer(isCreating ? 0 : Int64(stream.openShards)),
                "ConsumerCount": .integer(0), "MaxRecordSizeInKiB": .integer(Int64(stream.recordBytes >> 10)),
            ])
        ])
    }

    private func described(
        _ parameters: inout Parameters,
        at now: Moment
    ) throws(Refusal) -> (stream: StoredStream, arn: String, rules: (hours: Int64, horizon: Int64)) {
        let name = try parameters.requiredStreamName()
        try parameters.check()
        return try withStore { (store) throws(Refusal) in
            let hours = max(1, store.rules.retention.components.seconds / 3600)
            return (try store.stream(name, now: now), store.arn(of: name), (hours, store.horizon(at: now)))
        }
    }

    private static func shard(_ id: String?) throws(Refusal) -> ShardID? {
        guard let id else { return nil }
        guard let shard = ShardID(id) else { throw .invalidArgument("\(id) is not a shard's name.") }
        return shard
    }

    private enum FilterType: String, CaseIterable {
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
        var structure = try parameters.structure("ShardFilter")
        structure?.require("Type")
        let type = try structure?.choice("Type", FilterType.self)
        let filterShard = try structure?.text("ShardId", 1...128, .name)
        let filterTime = try structure?.time("Timestamp")
        parameters.adopt(structure)
        try parameters.check()
        let name: String
        var filter: ShardFilter?
        switch (token, named) {
        case (nil, nil): throw .invalidArgument("Either NextToken or StreamName should be provided.")
        case (.some, .some): throw .invalidArgument("NextToken and StreamName cannot be provided together.")
        case (nil, let named?): name = named
        case (let token?, nil):
            if after != nil {
                throw .invalidArgument("NextToken and ExclusiveStartShardId cannot be provided together.")
            }
            let page = try PageToken(token, of: .shards, at: now)
            (name, after, filter) = (page.stream, page.last, page.filter)
        }
        if type == .afterShardID {
            guard let filterShard else { throw .invalidArgument("ShardId is required for AFTER_SHARD_ID.") }
            after = max(after ?? filterShard, filterShard)
        }
        if type == .atTimestamp || type == .fromTimestamp, filterTime == nil {
            throw .invalidArgument("Timestamp is required for \(type!.rawValue).")
        }
        let (stream, horizon) = try withStore { (store) throws(Refusal) in
            try store.admitListing(of: name, now: now)
            return (try store.stream(name, now: now), store.horizon(at: now))
        }
        if stream.status(at: now) == .creating {
            throw Refusal("ResourceInUseException", "Stream \(name) is not in the ACTIVE or UPDATING state.")
        }
        // A token stands for the filter that its listing began with, at the time at which it began.
        let oldest = max(stream.created, horizon)
        let passing =
            filter
            ?? {
                switch type {
                case nil, .afterShardID, .fromTrimHorizon: .all
                case .atTrimHorizon: .at(oldest)
                case .atLatest: .open
                case .atTimestamp: .at(max(oldest, filterTime!))
                case .fromTimestamp: .from(max(oldest, filterTime!))
                }
            }()
        let shards = stream.shards(passing, after: try Self.shard(after), horizon: horizon)
        let page = shards.prefix(limit)
        let next = shards.count > limit ? page.last : nil
        let nextToken = next.map { PageToken(.shards, stream: name, last: "\($0.id)", passing, at: now).text }
        return .object(["Shards": .list(page.map(\.description)), "NextToken": nextToken.map(WireValue.text)])
    }
}

extension StoredStream {
    fileprivate func statusText(at now: Moment) -> WireValue { .text(status(at: now).rawValue) }

    fileprivate var mode: WireValue { .object(["StreamMode": .text(isOnDemand ? "ON_DEMAND" : "PROVISIONED")]) }

    /// No metrics of shards.
    fileprivate static let monitoring = WireValue.list([.object(["ShardLevelMetrics": .list([])])])
}

extension StoredShard {
    fileprivate var description: WireValue {
        .object([
            "ShardId": .text(id.description), "ParentShardId": parents.first.map { .text($0.description) },
            "AdjacentParentShardId": parents.dropFirst().first.map { .text($0.description) },
            "HashKeyRange": hashKeyRange,
            "SequenceNumberRange": .object([
                "StartingSequenceNumber": .text(startingSequenceNumber.description),
                "EndingSequenceNumber": endingSequenceNumber.map { .text($0.description) },
            ]),
        ])
    }

    var hashKeyRange: WireValue {
        .object([
            "StartingHashKey": .text(range.lowerBound.description),
            "EndingHashKey": .text(range.upperBound.description),
        ])
    }
}
