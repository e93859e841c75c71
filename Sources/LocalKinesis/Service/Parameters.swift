internal import Kinesis

/// A request's members, read with the constraints of the API's model.
///
/// What has the wrong type ends the call (SerializationException); what breaks a constraint is collected, and all of it is
/// told at once (ValidationException).
/// Source for lengths, patterns and ranges: the API reference, by the service model that botocore carries.
struct Parameters {
    let value: WireValue
    /// What `value` was read from.
    let body: [UInt8]
    let format: WireFormat
    private(set) var complaints: [String] = []

    init(_ value: WireValue, of body: [UInt8], as format: WireFormat) throws(Refusal) {
        guard case .map = value else { throw .serialization("Start of structure expected") }
        (self.value, self.body, self.format) = (value, body, format)
    }

    /// What a text must look like.
    enum Pattern: String {
        case name = "[a-zA-Z0-9_.-]+"
        case arn = #"arn:aws.*:kinesis:.*:\d{12}:stream/\S+"#
        case hashKey = #"0|([1-9]\d{0,38})"#
        case sequenceNumber = #"0|([1-9]\d{0,128})"#

        func matches(_ text: String) -> Bool {
            switch self {
            case .name:
                return !text.isEmpty
                    && text.utf8.allSatisfy { byte in
                        switch Unicode.Scalar(byte) {
                        case "a"..."z", "A"..."Z", "0"..."9", "_", ".", "-": true
                        default: false
                        }
                    }
            case .arn:
                let parts = text.split(separator: ":", maxSplits: 5, omittingEmptySubsequences: false)
                return parts.count == 6 && parts[0] == "arn" && parts[1].hasPrefix("aws") && parts[2] == "kinesis"
                    && parts[4].utf8.count == 12 && parts[4].utf8.allSatisfy(Self.isDigit)
                    && parts[5].hasPrefix("stream/") && parts[5].utf8.count > 7
            case .hashKey: return Self.isDecimal(text, most: 39)
            case .sequenceNumber: return Self.isDecimal(text, most: 129)
            }
        }

        private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

        private static func isDecimal(_ text: String, most: Int) -> Bool {
            let digits = text.utf8
            return (1...most).contains(digits.count) && digits.allSatisfy(isDigit)
                && (digits.count == 1 || digits.first != UInt8(ascii: "0"))
        }
    }

    mutating func text(_ name: String, _ length: ClosedRange<Int>, _ pattern: Pattern? = nil) throws(Refusal) -> String?
    {
        guard let member = value[name] else { return nil }
        guard let text = member.text(in: body.span) else { throw Self.wrongType(name, "String") }
        if let pattern, !pattern.matches(text) {
            complain(name, text, "Member must satisfy regular expression pattern: \(pattern.rawValue)")
        }
        let count = text.unicodeScalars.count
        if count < length.lowerBound {
            complain(name, text, "Member must have length greater than or equal to \(length.lowerBound)")
        }
        if count > length.upperBound {
            complain(name, text, "Member must have length less than or equal to \(length.upperBound)")
        }
        return text
    }

    mutating func integer(_ name: String, _ range: ClosedRange<Int>) throws(Refusal) -> Int? {
        guard let member = value[name] else { return nil }
        guard let integer = member.integer.map(Int.init) else { throw Self.wrongType(name, "Integer") }
        if integer < range.lowerBound {
            complain(name, "\(integer)", "Member must have value greater than or equal to \(range.lowerBound)")
        }
        if integer > range.upperBound {
            complain(name, "\(integer)", "Member must have value less than or equal to \(range.upperBound)")
        }
        return integer
    }

    /// One of a set of words.
    mutating func choice<Choice: RawRepresentable<String> & CaseIterable>(
        _ name: String,
        _: Choice.Type
    ) throws(Refusal) -> Choice? {
        guard let text = try text(name, 0...Int.max) else { return nil }
        if let choice = Choice(rawValue: text) { return choice }
        let words = Choice.allCases.map(\.rawValue).joined(separator: ", ")
        complain(name, text, "Member must satisfy enum value set: [\(words)]")
        return nil
    }

    /// A time in milliseconds since 1970.
    func time(_ name: String) throws(Refusal) -> Int64? {
        guard let member = value[name] else { return nil }
        guard let time = member.milliseconds else { throw Self.wrongType(name, "Timestamp") }
        return time
    }

    /// The members of a structure within this one; nil where there is none.
    func structure(_ name: String) throws(Refusal) -> Parameters? {
        guard let member = value[name] else { return nil }
        guard case .map = member else { throw Self.wrongType(name, "Structure") }
        return try Parameters(member, of: body, as: format)
    }

    /// Complains unless `name` is there.
    mutating func require(_ name: String) {
        if value[name] == nil { complaints.append(Self.absent(Self.lowerFirst(name))) }
    }

    mutating func complain(_ name: String, _ text: String, _ constraint: String) {
        complaints.append("Value '\(text)' at '\(Self.lowerFirst(name))' failed to satisfy constraint: \(constraint)")
    }

    mutating func complain(_ complaint: String) { complaints.append(complaint) }

    /// Takes over the complaints about a structure within this one.
    mutating func adopt(_ inner: Parameters?) { complaints += inner?.complaints ?? [] }

    /// Ends the call if anything was complained about.
    func check() throws(Refusal) {
        // The service stops counting at ten.
        if !complaints.isEmpty { throw .validation(Array(complaints.prefix(10))) }
    }

    static func absent(_ path: String) -> String {
        "Value null at '\(path)' failed to satisfy constraint: Member must not be null"
    }

    static func wrongType(_ name: String, _ type: String) -> Refusal {
        .serialization("The value of \(name) can not be converted to a \(type)")
    }

    private static func lowerFirst(_ name: String) -> String { name.prefix(1).lowercased() + name.dropFirst() }
}

extension Parameters {
    /// The name of the stream that StreamName or StreamARN gives; nil when neither is there.
    ///
    /// Of an ARN only the name counts, so that the configuration of a real stream can be tried here as it is.
    mutating func streamName() throws(Refusal) -> String? {
        let name = try text("StreamName", 1...128, .name)
        guard let arn = try text("StreamARN", 1...2048, .arn) else { return name }
        let named = arn.split(separator: "/", maxSplits: 1).last.map(String.init) ?? ""
        if let name, name != named {
            throw .invalidArgument("StreamName \(name) and StreamARN \(arn) do not name the same stream.")
        }
        return named
    }

    mutating func requiredStreamName() throws(Refusal) -> String {
        guard let name = try streamName() else {
            try check()
            throw .invalidArgument("Either StreamName or StreamARN should be provided.")
        }
        return name
    }
}
