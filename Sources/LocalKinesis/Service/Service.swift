internal import Kinesis
internal import Synchronization

// Concurrency: connections on any thread share the service. The store is behind one lock, which a call takes once
// (and once more for the memory of a large body); what is costly (reading, hashing, writing the answer) happens outside.

/// Turns requests into answers: everything between HTTP and the store, without sockets and clocks.
final class Service: Sendable {
    /// What a service does besides the store's rules.
    struct Settings: Sendable {
        /// When set, signatures are verified.
        var credentials: Credentials?
        /// Whether CBOR is answered as by an emulator that knows only JSON.
        var refuseCBOR = false
    }

    private let store: Mutex<Store>
    private let settings: Settings
    private let limitsCalls: Bool
    private let calls = Atomic<Int>(0)
    private let errors = Atomic<Int>(0)

    init(_ store: consuming Store, _ settings: Settings = Settings()) {
        limitsCalls = store.rules.enforceShardLimits
        self.store = Mutex(store)
        self.settings = settings
    }

    /// A request as it came, its body complete.
    struct Request: Sendable {
        var method = "POST"
        /// Path and query.
        var uri = "/"
        var headers: [(name: String, value: String)] = []
        var body: [UInt8] = []

        /// The value of the first header named `name`, which is in lower case.
        func header(_ name: String) -> String? { headers.first { $0.name.lowercased() == name }?.value }
    }

    struct Answer: Equatable, Sendable {
        var status: Int
        var contentType: String
        var body: [UInt8]
    }

    /// Bytes of a request's body at most: a full call in base64, with room for keys and the JSON around them.
    static let largestBody = 15 << 20

    var figures: Figures {
        var figures = store.withLock { $0.figures }
        figures.calls = calls.load(ordering: .relaxed)
        figures.errors = errors.load(ordering: .relaxed)
        return figures
    }

    /// Answers `request`.
    ///
    /// - Parameters:
    ///   - now: when it came.
    ///   - md5: the calling thread's own.
    func answer(_ request: consuming Request, at now: Moment, _ md5: borrowing MD5) -> Answer {
        let answer = decide(request, at: now, md5)
        calls.add(1, ordering: .relaxed)
        if answer.status != 200 { errors.add(1, ordering: .relaxed) }
        return answer
    }

    /// Answers a request whose body is longer than any call can be.
    func answerTooLarge(_ format: WireFormat) -> Answer {
        calls.add(1, ordering: .relaxed)
        errors.add(1, ordering: .relaxed)
        var answer = Self.answer(
            Refusal("RequestEntityTooLargeException", "A request has at most \(Self.largestBody) bytes."),
            as: format
        )
        answer.status = 413
        return answer
    }

    private func decide(_ request: consuming Request, at now: Moment, _ md5: borrowing MD5) -> Answer {
        let target = request.header("x-amz-target")
        guard request.method == "POST", let target else {
            let message = "Unable to determine service/operation name to be authorized"
            return .xml(403, "AccessDeniedException", message)
        }
        guard let format = WireFormat(contentType: request.header("content-type") ?? "") else {
            return .xml(404, "UnknownOperationException", nil)
        }
        if format == .cbor, settings.refuseCBOR {
            // As moto answers it: an error page of the web framework.
            let page = "<!doctype html>\n<html lang=en>\n<title>500 Internal Server Error</title>\n"
            return Answer(status: 500, contentType: "text/html; charset=utf-8", body: Array(page.utf8))
        }
        do throws(Refusal) {
            guard let operation = Operation(target: target) else { throw Refusal("UnknownOperationException") }
            if let credentials = settings.credentials {
                try SignatureCheck(credentials).check(request, at: now)
            }
            let body = request.takeBody()
            let value: WireValue
            do { value = try format.read(body.span) } catch {
                throw Refusal("SerializationException", error.description)
            }
            let parameters = try Parameters(value, of: body, as: format)
            let result = try perform(operation, parameters, at: now, md5)
            return Answer(status: 200, contentType: format.contentType, body: result.map(format.encode) ?? [])
        } catch {
            return Self.answer(error, as: format)
        }
    }

    private func perform(
        _ operation: Operation,
        _ parameters: consuming Parameters,
        at now: Moment,
        _ md5: borrowing MD5
    ) throws(Refusal) -> WireValue? {
        if limitsCalls, operation.callLimit?.scope == .account {
            try withStore { (store) throws(Refusal) in try store.admit(operation, now: now) }
        }
        return switch operation {
        case .createStream: try createStream(parameters, at: now)
        case .deleteStream: try deleteStream(parameters)
        case .listStreams: try listStreams(parameters, at: now)
        case .describeStream: try describeStream(parameters, at: now)
        case .describeStreamSummary: try describeStreamSummary(parameters, at: now)
        case .listShards: try listShards(parameters, at: now)
        case .splitShard: try splitShard(parameters, at: now)
        case .mergeShards: try mergeShards(parameters, at: now)
        case .updateShardCount: try updateShardCount(parameters, at: now)
        case .updateStreamMode: try updateStreamMode(parameters, at: now)
        case .updateMaxRecordSize: try updateMaxRecordSize(parameters, at: now)
        case .putRecord: try putRecord(PutCall(one: parameters, md5), at: now)
        case .putRecords: try putRecords(PutCall(many: parameters, md5), at: now)
        case .getShardIterator: try getShardIterator(parameters, at: now)
        case .getRecords: try getRecords(parameters, at: now)
        }
    }

    /// Empty memory for a body of `count` bytes.
    func memory(for count: Int) -> [UInt8] {
        if count >= Bodies.spared { return store.withLock { $0.memory(for: count) } }
        var memory: [UInt8] = []
        memory.reserveCapacity(count)
        return memory
    }

    /// Lends the store to `body`, to one caller at a time.
    func withStore<Result: Sendable>(_ body: (inout Store) throws(Refusal) -> Result) throws(Refusal) -> Result {
        try store.withLock { (store: inout sending Store) throws(Refusal) -> Result in try body(&store) }
    }

    private static func answer(_ refusal: Refusal, as format: WireFormat) -> Answer {
        let value = WireValue.object([
            "__type": .text(refusal.code), "message": refusal.message.map(WireValue.text),
        ])
        return Answer(status: refusal.status, contentType: format.contentType, body: format.encode(value))
    }
}

extension Service.Request {
    /// The body, of which the request then has no second reference.
    fileprivate mutating func takeBody() -> [UInt8] {
        var taken: [UInt8] = []
        swap(&taken, &body)
        return taken
    }
}

extension Service.Answer {
    /// The answer to what is no call of the API at all.
    fileprivate static func xml(_ status: Int, _ type: String, _ message: String?) -> Self {
        let text = message.map { "<\(type)>\n  <Message>\($0)</Message>\n</\(type)>\n" } ?? "<\(type)/>\n"
        return Self(status: status, contentType: "application/xml", body: Array(text.utf8))
    }
}
