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
    /// Copies of what the store's faults say, so that a call needs no lock to see that there are none.
    private let hasFaults = Atomic<Bool>(false)
    private let skewMilliseconds = Atomic<Int64>(0)

    init(_ store: consuming Store, _ settings: Settings = Settings()) {
        limitsCalls = store.rules.enforceShardLimits
        self.store = Mutex(store)
        self.settings = settings
        faultsChanged()
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
        /// The exception's name, in a header of its own.
        var errorType: String? = nil
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

    /// How a request is replied to.
    struct Reply: Equatable, Sendable {
        enum Form: Equatable, Sendable {
            case whole(Answer)
            /// Its first half, then the connection's end.
            case cut(Answer)
            /// The connection's end at once.
            case reset
            /// Nothing, and after a time the connection's end.
            case silence(Duration)
        }

        var form: Form
        /// How long it waits.
        var pause = Duration.zero
        /// What a caller that does not wait for it never hears of, and the rule by which it waits.
        var stored = 0
        var rule: Int?
    }

    /// What shall happen to a call whose head has come; nil when nothing does.
    ///
    /// - Parameter header: the value of the header of a name; without faults none is looked at.
    func disturbance(_ header: (_ name: String) -> String?) -> Disturbance? {
        guard hasFaults.load(ordering: .relaxed), let target = header("x-amz-target"),
            let operation = Operation(target: target)
        else { return nil }
        let accessKey = header("authorization").flatMap(SignatureCheck.accessKey)
        return store.withLock { $0.faults.disturb(operation, by: accessKey) }
    }

    /// How far the clock is off that the service shows.
    var skew: Duration { .milliseconds(skewMilliseconds.load(ordering: .relaxed)) }

    /// Takes over what has changed about the faults.
    func faultsChanged() {
        let (isAny, skew) = store.withLock { (!$0.faults.rules.isEmpty, $0.faults.skew.milliseconds) }
        skewMilliseconds.store(skew, ordering: .relaxed)
        hasFaults.store(isAny, ordering: .relaxed)
    }

    /// Notes that a caller went away before it heard of what was stored.
    func noteUntold(_ reply: Reply) {
        guard let rule = reply.rule else { return }
        store.withLock { $0.faults.noteUntold(reply.stored, by: rule) }
    }

    /// Answers `request`.
    ///
    /// - Parameters:
    ///   - now: when it came.
    ///   - md5: the calling thread's own.
    func answer(_ request: consuming Request, at now: Moment, _ md5: borrowing MD5) -> Answer {
        if request.uri.hasPrefix(Self.adminPath) { return administer(request, at: now) }
        var stored = 0
        return counted(decide(request, at: now, md5, resultsMore: 0, stored: &stored))
    }

    /// Replies to `request` as `disturbance` has it, without the pause before.
    func reply(
        _ request: consuming Request,
        at now: Moment,
        _ md5: borrowing MD5,
        under disturbance: Disturbance
    ) -> Reply {
        let format = WireFormat(contentType: request.header("content-type") ?? "") ?? .json
        if let end = disturbance.end, !end.isAfter {
            return Reply(form: form(of: end.kind, instead: nil, format), pause: disturbance.pauseAfter)
        }
        var (stored, more) = (0, 0)
        if case .count(let by) = disturbance.end?.kind { more = by }
        let answer = decide(request, at: now, md5, resultsMore: more, stored: &stored)
        guard let end = disturbance.end else {
            return Reply(
                form: .whole(counted(answer)),
                pause: disturbance.pauseAfter,
                stored: stored,
                rule: disturbance.pausedBy
            )
        }
        store.withLock { $0.faults.noteUntold(stored, by: end.rule) }
        return Reply(form: form(of: end.kind, instead: answer, format), pause: disturbance.pauseAfter)
    }

    private func form(of end: Disturbance.End.Kind, instead answer: Answer?, _ format: WireFormat) -> Reply.Form {
        switch end {
        case .error(let status, let refusal):
            var answer = Self.answer(refusal, as: format)
            answer.status = status
            return .whole(counted(answer))
        case .html(let status):
            let page = "<html><body><h1>\(status) the server is not well</h1></body></html>\n"
            return .whole(counted(Answer(status: status, contentType: "text/html", body: Array(page.utf8))))
        case .reset: return .reset
        case .hang(let time): return .silence(time)
        case .truncate: return answer.map { .cut(counted($0)) } ?? .reset
        case .count: return answer.map { .whole(counted($0)) } ?? .reset
        }
    }

    private func counted(_ answer: Answer) -> Answer {
        calls.add(1, ordering: .relaxed)
        if answer.status != 200 { errors.add(1, ordering: .relaxed) }
        return answer
    }

    /// Answers a request whose body is longer than any call can be.
    func answerTooLarge(_ format: WireFormat) -> Answer {
        var answer = Self.answer(
            Refusal("RequestEntityTooLargeException", "A request has at most \(Self.largestBody) bytes."),
            as: format
        )
        answer.status = 413
        return counted(answer)
    }

    /// - Parameters:
    ///   - more: results that PutRecords gives above those there are.
    ///   - stored: how many records the call has stored.
    private func decide(
        _ request: consuming Request,
        at now: Moment,
        _ md5: borrowing MD5,
        resultsMore more: Int,
        stored: inout Int
    ) -> Answer {
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
            try checkSignature(of: request, at: now)
            let body = request.takeBody()
            let value: WireValue
            do { value = try format.read(body.span) } catch {
                throw Refusal("SerializationException", error.description)
            }
            let parameters = try Parameters(value, of: body, as: format)
            var result = try perform(operation, parameters, at: now, md5, stored: &stored)
            if more != 0 { result = result?.withResults(more) }
            return Answer(status: 200, contentType: format.contentType, body: result.map(format.encode) ?? [])
        } catch {
            return Self.answer(error, as: format)
        }
    }

    private func checkSignature(of request: borrowing Request, at now: Moment) throws(Refusal) {
        let skew = skew
        guard settings.credentials != nil || skew != .zero else { return }
        do {
            if let credentials = settings.credentials {
                try SignatureCheck(credentials).check(request, at: now + skew)
            } else {
                try SignatureCheck.checkTime(of: request, at: now + skew)
            }
        } catch {
            if skew != .zero, error.code == "InvalidSignatureException" {
                store.withLock { $0.faults.noteWrongClock() }
            }
            throw error
        }
    }

    private func perform(
        _ operation: Operation,
        _ parameters: consuming Parameters,
        at now: Moment,
        _ md5: borrowing MD5,
        stored: inout Int
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
        case .putRecord: try putRecord(PutCall(one: parameters, md5), at: now, stored: &stored)
        case .putRecords: try putRecords(PutCall(many: parameters, md5), at: now, stored: &stored)
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
    func withStore<Result: Sendable, Failure: Error>(
        _ body: (inout Store) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try store.withLock { (store: inout sending Store) throws(Failure) -> Result in try body(&store) }
    }

    private static func answer(_ refusal: Refusal, as format: WireFormat) -> Answer {
        let value = WireValue.object([
            "__type": .text(refusal.code), "message": refusal.message.map(WireValue.text),
        ])
        return Answer(
            status: refusal.status,
            contentType: format.contentType,
            errorType: refusal.code,
            body: format.encode(value)
        )
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

extension WireValue {
    /// A PutRecords answer with so many results more, or fewer, than there are.
    fileprivate func withResults(_ more: Int) -> WireValue {
        guard case .map(var members) = self, let place = members.firstIndex(where: { $0.name == "Records" }),
            var results = members[place].value.list, let last = results.last
        else { return self }
        if more < 0 { results.removeLast(min(-more, results.count)) }
        if more > 0 { results += Array(repeating: last, count: more) }
        members[place].value = .list(results)
        return .map(members)
    }
}

extension Service.Answer {
    /// The answer to what is no call of the API at all.
    fileprivate static func xml(_ status: Int, _ type: String, _ message: String?) -> Self {
        let text = message.map { "<\(type)>\n  <Message>\($0)</Message>\n</\(type)>\n" } ?? "<\(type)/>\n"
        return Self(status: status, contentType: "application/xml", body: Array(text.utf8))
    }
}
