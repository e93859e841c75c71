internal import Bytes
internal import Kinesis

/// The records of a PutRecord or PutRecords call, read and hashed before the store is locked.
struct PutCall {
    var stream: String
    var records: [Store.NewRecord] = []
    /// What the records' ranges lie in: the call's body, or with JSON the data out of it.
    var body: [UInt8]

    private static let hashKeys = "[0, 2^128-1]"

    /// Reads PutRecords.
    ///
    /// - Parameter md5: hashes the partition keys of records without an explicit hash key.
    init(many parameters: consuming Parameters, _ md5: borrowing MD5) throws(Refusal) {
        var parameters = parameters
        body = parameters.format == .cbor ? parameters.body : []
        parameters.require("Records")
        guard let entries = parameters.value["Records"] else {
            stream = try parameters.streamName() ?? ""
            throw .validation(parameters.complaints)
        }
        guard let list = entries.list else { throw Parameters.wrongType("Records", "List") }
        if list.isEmpty {
            parameters.complain("Records", "[]", "Member must have length greater than or equal to 1")
        }
        if list.count > Limits.callRecords {
            parameters.complain(
                "Value at 'records' failed to satisfy constraint: "
                    + "Member must have length less than or equal to \(Limits.callRecords)"
            )
        }
        stream = try parameters.requiredStreamName()
        try parameters.check()
        records.reserveCapacity(list.count)
        if parameters.format == .json { body.reserveCapacity(parameters.body.count * 3 / 4) }
        for (place, entry) in list.enumerated() {
            guard case .map = entry else { throw Parameters.wrongType("Records", "Structure") }
            try read(entry, at: "records.\(place + 1).member.", &parameters, md5)
        }
        try parameters.check()
        let bytes = records.reduce(0) { $0 + $1.size }
        if bytes > Limits.callBytes {
            throw .invalidArgument("Records size exceeds \(Limits.callBytes >> 20) MB limit")
        }
    }

    /// Reads PutRecord.
    init(one parameters: consuming Parameters, _ md5: borrowing MD5) throws(Refusal) {
        var parameters = parameters
        body = parameters.format == .cbor ? parameters.body : []
        stream = try parameters.requiredStreamName()
        if let number = try parameters.text("SequenceNumberForOrdering", 0...Int.max, .sequenceNumber) {
            try parameters.check()
            // Numbers of a shard grow whatever the client asks for.
            guard SequenceNumber(number) != nil else {
                throw .invalidArgument("SequenceNumberForOrdering \(number) used in PutRecord is invalid.")
            }
        }
        try read(parameters.value, at: "", &parameters, md5)
        try parameters.check()
    }

    private mutating func read(
        _ entry: WireValue,
        at path: String,
        _ parameters: inout Parameters,
        _ md5: borrowing MD5
    ) throws(Refusal) {
        let data = try data(of: entry, parameters)
        if data == nil { parameters.complain(Parameters.absent(path + "data")) }
        if let data, data.count > Limits.largestRecordBytes {
            parameters.complain(
                "Value at '\(path)data' failed to satisfy constraint: "
                    + "Member must have length less than or equal to \(Limits.largestRecordBytes)"
            )
        }
        var key = ""
        if let member = entry["PartitionKey"] {
            guard let text = member.text(in: parameters.body.span) else {
                throw Parameters.wrongType("PartitionKey", "String")
            }
            key = text
            // Counting characters costs more than counting bytes, of which there are as many at least.
            if key.isEmpty {
                parameters.complain(path + "partitionKey", key, "Member must have length greater than or equal to 1")
            } else if key.utf8.count > Limits.partitionKeyCharacters,
                key.unicodeScalars.count > Limits.partitionKeyCharacters
            {
                parameters.complain(
                    path + "partitionKey",
                    key,
                    "Member must have length less than or equal to \(Limits.partitionKeyCharacters)"
                )
            }
        } else {
            parameters.complain(Parameters.absent(path + "partitionKey"))
        }
        guard let hash = try hash(of: entry, key, at: path, &parameters, md5), let data else { return }
        records.append(Store.NewRecord(partitionKey: key, hash: hash, data: data))
    }

    /// Where the data of `entry` lie in `body`; nil when there are none.
    private mutating func data(of entry: WireValue, _ parameters: borrowing Parameters) throws(Refusal) -> Range<Int>? {
        guard let member = entry["Data"] else { return nil }
        switch (parameters.format, member) {
        case (.cbor, .slice(let range)): return range
        case (.cbor, .data(let bytes)):
            // A byte string in pieces.
            body += bytes
            return body.count - bytes.count..<body.count
        case (.json, .slice), (.json, .text):
            let bytes: [UInt8]?
            if case .slice(let range) = member {
                bytes = Base64.decode(parameters.body.span.extracting(range))
            } else {
                bytes = Base64.decode(Array((member.text(in: parameters.body.span) ?? "").utf8).span)
            }
            guard let bytes else { throw Parameters.wrongType("Data", "Blob: it is not base64") }
            body += bytes
            return body.count - bytes.count..<body.count
        case (.cbor, _), (.json, _): throw Parameters.wrongType("Data", "Blob")
        }
    }

    private func hash(
        of entry: WireValue,
        _ key: String,
        at path: String,
        _ parameters: inout Parameters,
        _ md5: borrowing MD5
    ) throws(Refusal) -> HashKey? {
        guard let member = entry["ExplicitHashKey"] else {
            var key = key
            return key.withUTF8 { utf8 in
                unsafe HashKey(partitionKey: Span(_unsafeBytes: UnsafeRawBufferPointer(utf8)), md5)
            }
        }
        guard let text = member.text(in: parameters.body.span) else {
            throw Parameters.wrongType("ExplicitHashKey", "String")
        }
        if let hash = HashKey(decimal: text) { return hash }
        if Parameters.Pattern.hashKey.matches(text) {
            throw .invalidArgument(
                "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: \(Self.hashKeys). "
                    + "Specified value was \(text)"
            )
        }
        parameters.complain(
            path + "explicitHashKey",
            text,
            "Member must satisfy regular expression pattern: \(Parameters.Pattern.hashKey.rawValue)"
        )
        return nil
    }
}
