internal import Kinesis

// The calls about records.

extension Service {
    /// - Parameter stored: how many records it has stored.
    func putRecord(_ call: consuming PutCall, at now: Moment, stored: inout Int) throws(Refusal) -> WireValue? {
        switch try put(call, at: now)[0] {
        case .refused(let refusal): throw refusal
        case .stored(let shard, let number):
            stored = 1
            return .object([
                "ShardId": .text(shard.description), "SequenceNumber": .text(number.description),
                "EncryptionType": .text("NONE"),
            ])
        }
    }

    /// - Parameter stored: how many records it has stored.
    func putRecords(_ call: consuming PutCall, at now: Moment, stored: inout Int) throws(Refusal) -> WireValue? {
        var failed: Int64 = 0
        let results = try put(call, at: now).map { result in
            switch result {
            case .stored(let shard, let number):
                return WireValue.object([
                    "SequenceNumber": .text(number.description), "ShardId": .text(shard.description),
                ])
            case .refused(let refusal):
                failed += 1
                return WireValue.object([
                    "ErrorCode": .text(refusal.code), "ErrorMessage": refusal.message.map(WireValue.text),
                ])
            }
        }
        stored = results.count - Int(failed)
        return .object([
            "FailedRecordCount": .integer(failed), "Records": .list(results), "EncryptionType": .text("NONE"),
        ])
    }

    private func put(_ call: PutCall, at now: Moment) throws(Refusal) -> [Store.PutResult] {
        try withStore { (store) throws(Refusal) in
            try store.put(call.records, of: call.body, into: call.stream, now: now)
        }
    }

    private enum IteratorType: String, CaseIterable {
        case atSequenceNumber = "AT_SEQUENCE_NUMBER"
        case afterSequenceNumber = "AFTER_SEQUENCE_NUMBER"
        case trimHorizon = "TRIM_HORIZON"
        case latest = "LATEST"
        case atTimestamp = "AT_TIMESTAMP"
    }

    func getShardIterator(_ parameters: consuming Parameters, at now: Moment) throws(Refusal) -> WireValue? {
        var parameters = parameters
        parameters.require("ShardId")
        let shardID = try parameters.text("ShardId", 1...128, .name) ?? ""
        parameters.require("ShardIteratorType")
        let type = try parameters.choice("ShardIteratorType", IteratorType.self) ?? .latest
        let number = try parameters.text("StartingSequenceNumber", 0...Int.max, .sequenceNumber)
        let time = try parameters.time("Timestamp")
        let name = try parameters.requiredStreamName()
        try parameters.check()
        guard let shard = ShardID(shardID) else {
            throw Refusal("ResourceNotFoundException", "Could not find shard \(shardID) in stream \(name).")
        }
        let start = try Self.start(type, number, time, shard: shard, stream: name)
        let iterator = try withStore { (store) throws(Refusal) in
            try store.iterator(start, shard: shard, stream: name, now: now)
        }
        return .object(["ShardIterator": .text(iterator.text)])
    }

    private static func start(
        _ type: IteratorType,
        _ number: String?,
        _ time: Int64?,
        shard: ShardID,
        stream: String
    ) throws(Refusal) -> Store.Start {
        func mismatch(_ found: String) -> Refusal {
            .invalidArgument(
                "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or "
                    + "(2) TRIM_HORIZON or LATEST and no StartingSequenceNumber or (3) AT_TIMESTAMP and Timestamp. "
                    + "Request specified \(type.rawValue) and \(found)."
            )
        }
        switch type {
        case .trimHorizon, .latest:
            if number != nil { throw mismatch("also a StartingSequenceNumber") }
            return type == .latest ? .latest : .trimHorizon
        case .atTimestamp:
            if number != nil { throw mismatch("also a StartingSequenceNumber") }
            guard let time else { throw mismatch("no Timestamp") }
            return .time(time)
        case .atSequenceNumber, .afterSequenceNumber:
            guard let text = number else { throw mismatch("no StartingSequenceNumber") }
            guard let number = SequenceNumber(text) else {
                throw .invalidArgument(
                    "StartingSequenceNumber \(text) used in GetShardIterator on shard \(shard) in stream \(stream) "
                        + "is invalid."
                )
            }
            return type == .atSequenceNumber ? .at(number, text: text) : .after(number, text: text)
        }
    }

    func getRecords(_ parameters: consuming Parameters, at now: Moment) throws(Refusal) -> WireValue? {
        var parameters = parameters
        let limit = try parameters.integer("Limit", 1...Limits.readRecords) ?? Limits.readRecords
        parameters.require("ShardIterator")
        let text = try parameters.text("ShardIterator", 1...512) ?? ""
        _ = try parameters.streamName()
        try parameters.check()
        guard let iterator = ShardIterator(text: text) else { throw .invalidArgument("Invalid ShardIterator.") }
        if now.milliseconds - iterator.issued > Int64(Limits.iteratorSeconds) * 1000 {
            throw Refusal(
                "ExpiredIteratorException",
                "Iterator expired. The iterator was created at time \(Self.dateText(iterator.issued)) while right now "
                    + "it is \(Self.dateText(now.milliseconds)) which is further in the future than the tolerated "
                    + "delay of \(Limits.iteratorSeconds * 1000) milliseconds."
            )
        }
        let result = try withStore { (store) throws(Refusal) in try store.read(iterator, limit: limit, now: now) }
        let records = result.records.map { record in
            WireValue.object([
                "SequenceNumber": .text(record.sequenceNumber.description),
                "ApproximateArrivalTimestamp": .time(milliseconds: record.arrival),
                "Data": .data(Array(record.body[record.data])), "PartitionKey": .text(record.partitionKey),
            ])
        }
        let children = result.children.map { shard in
            WireValue.object([
                "ShardId": .text(shard.id.description),
                "ParentShards": .list(shard.parents.map { .text($0.description) }),
                "HashKeyRange": shard.hashKeyRange,
            ])
        }
        return .object([
            "Records": .list(records), "NextShardIterator": result.next.map { .text($0.text) },
            "MillisBehindLatest": .integer(result.millisecondsBehind),
            "ChildShards": children.isEmpty ? nil : .list(children),
        ])
    }

    /// `Thu Jan 22 01:22:02 UTC 2015`, as the service writes times in messages.
    private static func dateText(_ milliseconds: Int64) -> String {
        let parts = CivilTime(unixSeconds: milliseconds / 1000).httpDate.split(separator: " ")
        return "\(parts[0].dropLast()) \(parts[2]) \(parts[1]) \(parts[4]) UTC \(parts[3])"
    }
}
