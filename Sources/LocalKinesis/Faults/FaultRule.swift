/// One way in which calls or records fail, as text describes it: `reset:when=after,rate=2%,op=PutRecords`.
public struct FaultRule: Equatable, Sendable {
    /// What goes wrong.
    enum Kind: Equatable, Sendable {
        /// A record is refused within its call.
        case record(code: String, stream: String?, shard: UInt64?)
        /// The call is answered with an error of the API.
        case error(status: Int, code: String)
        /// The call is answered with an error page, as load balancers do.
        case html(status: Int)
        case reset
        /// There is no answer, and after a time the connection ends.
        case hang(Duration)
        /// The answer comes later.
        case delay(Duration)
        /// The request is read slowly.
        case slow(bytesPerSecond: Int)
        /// The answer ends in its middle, and the connection with it.
        case truncate
        /// PutRecords answers with so many results more, or fewer.
        case count(by: Int)
        /// The access key of the call is expired from now on.
        case expire
        /// The service's clock is ahead, or behind.
        case clock(by: Duration)
    }

    let kind: Kind
    /// Whether it comes when the call was carried out, rather than before.
    let isAfter: Bool
    /// The calls it is for; nil: all.
    let operation: Operation?
    /// The share of those that it hits.
    let rate: Double
    /// Calls, or records, that it lets pass at first.
    let skip: Int
    /// How often it hits at most.
    let times: Int
    /// What it was read from.
    public let text: String

    /// Why a text is no rule, and what to do.
    public struct Fault: Error, Equatable, CustomStringConvertible {
        public let description: String
    }

    /// Reads `KIND` or `KIND:NAME=VALUE,NAME=VALUE…`.
    public init(_ text: String) throws(Fault) {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        let word = String(parts[0])
        var values = try FaultValues(parts.count == 2 ? String(parts[1]) : "", of: text)
        guard let read = Self.kinds.first(where: { $0.word == word })?.read else {
            let words = Self.kinds.map(\.word).joined(separator: ", ")
            throw Fault(description: "\"\(text)\": there is no fault \"\(word)\": choose one of \(words)")
        }
        kind = try read(&values)
        self.text = text
        switch kind {
        case .error, .html, .reset, .hang, .delay:
            isAfter = try values.value("when", "before or after") { ["before": false, "after": true][$0] } ?? false
        case .truncate, .count: isAfter = true
        case .record, .slow, .expire, .clock: isAfter = false
        }
        switch kind {
        case .record, .clock: operation = nil
        case .count: operation = .putRecords
        case .error, .html, .reset, .hang, .delay, .slow, .truncate, .expire:
            operation = try values.value("op", "the name of a call, like PutRecords") { Operation(rawValue: $0) }
        }
        if case .clock = kind {
            (rate, skip, times) = (1, 0, .max)
        } else {
            rate = try values.value("rate", "a share from 0 to 1, like 0.02 or 2%", FaultValues.share) ?? 1
            skip = try values.value("skip", "a number of calls", FaultValues.count) ?? 0
            // A key that would expire whenever it was renewed is an outage, which one has to ask for.
            let usual = kind == .expire ? 1 : Int.max
            times = try values.value("times", "a number of calls", FaultValues.count) ?? usual
        }
        try values.checkAllTaken(for: word)
    }

    private typealias Reader = @Sendable (inout FaultValues) throws(Fault) -> Kind

    private static let kinds: [(word: String, read: Reader)] = [
        (
            "record",
            { (values) throws(Fault) in
                .record(
                    code: try values.value("code", "an error code") { $0 } ?? "InternalFailure",
                    stream: try values.value("stream", "a stream's name") { $0 },
                    shard: try values.value("shard", "a shard's number, like 3") { UInt64($0) }
                )
            }
        ),
        (
            "error",
            { (values) throws(Fault) in
                let code = try values.value("code", "an error code, like AccessDeniedException") { $0 }
                let status = try values.value("status", "an HTTP status from 400 to 599", FaultValues.status)
                if code == nil, status ?? 400 < 500 {
                    throw values.fault("error needs a code, like code=AccessDeniedException, or a status from 500")
                }
                let refusal = Refusal(code ?? (status == 503 ? "ServiceUnavailable" : "InternalFailure"))
                return .error(status: status ?? refusal.status, code: refusal.code)
            }
        ),
        (
            "html",
            { (values) throws(Fault) in
                .html(status: try values.value("status", "an HTTP status from 400 to 599", FaultValues.status) ?? 503)
            }
        ),
        ("reset", { (_) throws(Fault) in .reset }),
        (
            "hang",
            { (values) throws(Fault) in
                .hang(try values.value("for", "a duration like 30s", FaultValues.duration) ?? .seconds(60))
            }
        ),
        (
            "delay",
            { (values) throws(Fault) in
                .delay(try values.required("by", "a duration like 200ms", FaultValues.duration))
            }
        ),
        (
            "slow",
            { (values) throws(Fault) in
                .slow(bytesPerSecond: try values.required("speed", "bytes a second, like 64KiB", FaultValues.bytes))
            }
        ),
        ("truncate", { (_) throws(Fault) in .truncate }),
        (
            "count",
            { (values) throws(Fault) in
                let by = try values.value("by", "a number of results, like -1 or 2") { Int($0) } ?? -1
                if by == 0 || by.magnitude > 500 { throw values.fault("by is a number of results, like -1 or 2") }
                return .count(by: by)
            }
        ),
        ("expire", { (_) throws(Fault) in .expire }),
        (
            "clock",
            { (values) throws(Fault) in
                .clock(by: try values.required("by", "a duration like +10m or -10m", FaultValues.signedDuration))
            }
        ),
    ]
}

/// The `NAME=VALUE`s of a rule, which are taken one by one.
private struct FaultValues {
    private let text: String
    private var left: [(name: String, value: String)] = []
    /// What the rule's kind takes, for whom writes something else.
    private var asked: [String] = []

    init(_ values: String, of text: String) throws(FaultRule.Fault) {
        self.text = text
        for pair in values.split(separator: ",") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2 else { throw fault("\"\(pair)\" is no NAME=VALUE") }
            left.append((String(parts[0]), String(parts[1])))
        }
    }

    func fault(_ reason: String) -> FaultRule.Fault { .init(description: "\"\(text)\": \(reason)") }

    mutating func value<Value>(
        _ name: String,
        _ meaning: String,
        _ read: (String) -> Value?
    ) throws(FaultRule.Fault) -> Value? {
        asked.append(name)
        guard let place = left.firstIndex(where: { $0.name == name }) else { return nil }
        guard let value = read(left.remove(at: place).value) else { throw fault("\(name) is \(meaning)") }
        return value
    }

    mutating func required<Value>(
        _ name: String,
        _ meaning: String,
        _ read: (String) -> Value?
    ) throws(FaultRule.Fault) -> Value {
        guard let value = try value(name, meaning, read) else { throw fault("it needs \(name): \(meaning)") }
        return value
    }

    func checkAllTaken(for kind: String) throws(FaultRule.Fault) {
        guard let (name, _) = left.first else { return }
        if asked.contains(name) { throw fault("\(name) is there twice") }
        throw fault("\(kind) does not know \(name): it takes \(asked.joined(separator: ", "))")
    }

    // Values

    static func share(_ text: String) -> Double? {
        let share = text.hasSuffix("%") ? Double(text.dropLast()).map { $0 / 100 } : Double(text)
        return share.flatMap { (0...1).contains($0) ? $0 : nil }
    }

    static func count(_ text: String) -> Int? { Int(text).flatMap { $0 >= 0 ? $0 : nil } }

    static func status(_ text: String) -> Int? { Int(text).flatMap { (400...599).contains($0) ? $0 : nil } }

    static func bytes(_ text: String) -> Int? {
        scaled(text, [("MiB", 0x1p20), ("KiB", 0x1p10), ("B", 1), ("", 1)]).flatMap { $0 >= 1 ? Int($0) : nil }
    }

    static func duration(_ text: String) -> Duration? {
        signedDuration(text).flatMap { $0 >= .zero ? $0 : nil }
    }

    static func signedDuration(_ text: String) -> Duration? {
        // A hundred days: sums of them can still be counted.
        scaled(text, [("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600)])
            .flatMap { $0.magnitude <= 8_640_000 ? .seconds($0) : nil }
    }

    /// A number before the first of `units` that `text` ends with.
    private static func scaled(_ text: String, _ units: [(suffix: String, scale: Double)]) -> Double? {
        guard let unit = units.first(where: { text.hasSuffix($0.suffix) }) else { return nil }
        let number = Double(text.dropLast(unit.suffix.count)).map { $0 * unit.scale }
        return number.flatMap { $0.isFinite && $0.magnitude < 1e15 ? $0 : nil }
    }
}
