import Bytes
public import Kinesis
public import Logging
public import Platform

// Concurrency: a caller belongs to one thread, like the HTTP client in it.

/// Makes signed calls to Kinesis, many at a time, in the form the endpoint understands.
public final class KinesisCaller {
    let endpoint: KinesisEndpoint
    private let client: HTTPClient
    private let keeper: CredentialKeeper
    private var signer: (generation: Int, signature: SigV4)?
    private var wire: WireChoice
    private var sha = SHA256()
    /// Calls whose bodies wait to be hashed side by side, and their bytes.
    private var unhashed: [Prepared] = []
    private var bytesUnhashed = 0
    private var calls: [Int: Call] = [:]
    /// Calls that wait for credentials, and those that will get none.
    private var waiting: [Call] = []
    private var unsigned: [(Request, CallFailure)] = []
    private var nextNumber = 0
    /// The service's clock minus ours, in seconds: what a refused signature taught.
    private var clockSkew: Int64 = 0
    private var pieces: [PutRecords.Piece] = []
    /// Set when JSON was chosen for an endpoint that refuses CBOR.
    public private(set) var fellBackToJSON = false

    /// A call that was started: what it carries, so that it can be made again.
    private struct Call {
        var request: Request
        var format: WireFormat
        /// What it was signed with, and when.
        var generation = 0
        var clockSkew: Int64 = 0
        var began = Instant.now
        /// Newer keys or a better time were tried: what it is answered now holds.
        var isSignedAgain = false
    }

    /// A call that is ready but for its signature.
    private struct Prepared {
        var transfer: Transfer
        var number: Int
        var url: ServiceURL
        var operation: String
        var format: WireFormat
        let since = Instant.now
    }

    /// Bytes of a body from which on it waits for others to be hashed with: a small one is hashed at once.
    private static let leastShared = 16 << 10
    /// The most bytes that wait: they are out of the processor's caches by the time they are sent.
    private static let mostUnhashed = 16 << 20
    /// How long a body waits for the next, while records come that may make it.
    private static let longestGap: Duration = .milliseconds(10)
    /// The same while none come, once several have come so quickly.
    private static let longestPause: Duration = .milliseconds(2)
    /// How long the first waits for the last, at most: so long take sixteen calls of the usual size at the rate from which on
    /// waiting for them gains anything.
    private static let longestUnhashed: Duration = .milliseconds(80)

    /// Whether calls will be started behind those that were; the first call may wait for the last as long as `within`.
    enum Following {
        case none
        /// There is room for one, but no records.
        case perhaps(within: Duration)
        /// Records come.
        case soon(within: Duration)
    }

    public enum Request {
        case putRecords([SealedAggregate])
        /// Any other operation, by name, with its parameters.
        case control(String, WireValue)
    }

    public enum Reply {
        case putRecords([SealedAggregate], [PutRecords.Result], took: Duration)
        case control(String, WireValue, answer: [UInt8])
        case failed(Request, CallFailure)
    }

    private let stream: StreamName

    public init(
        _ endpoint: KinesisEndpoint,
        stream: StreamName,
        options: HTTPClient.Options,
        wire: WireChoice,
        credentials: CredentialSource,
        log: Logger? = nil
    ) {
        (self.endpoint, self.stream, self.wire) = (endpoint, stream, wire)
        keeper = CredentialKeeper(credentials, log: log)
        client = HTTPClient(options)
    }

    /// User records of calls that were sent twice, because their connection had died: since the last `takeRepeated`.
    private var repeated = 0

    func takeRepeated() -> Int {
        defer { repeated = 0 }
        return repeated
    }

    public var inFlight: Int { calls.count + waiting.count + unsigned.count }

    /// The receipt of the oldest live record under way.
    var oldestReceipt: Instant? {
        let requests = calls.values.map(\.request) + waiting.map(\.request) + unsigned.map(\.0)
        return requests.compactMap { request -> Instant? in
            guard case .putRecords(let records) = request else { return nil }
            return records.lazy.filter { !$0.isBacklog }.map(\.firstReceipt).min()
        }.min()
    }

    /// The form of the next call.
    var format: WireFormat {
        var wire = wire
        return wire.format(now: .now)
    }

    /// The form of the last answer to a control call.
    public private(set) var lastFormat = WireFormat.cbor

    /// Starts a call; its reply comes out of `replies`.
    public func start(_ request: Request) throws(CallFailure) {
        try start(Call(request: request, format: wire.format(now: .now)))
    }

    private func start(_ call: Call) throws(CallFailure) {
        switch keeper.answer(now: .now) {
        case .keys(let credentials, let generation): send(call, credentials, generation)
        case .coming: waiting.append(call)
        case .none(let reason): throw .credentials(reason)
        }
    }

    /// Starts what has waited for credentials, if they have come.
    private func startWaiting() {
        guard !waiting.isEmpty else { return }
        let calls = waiting
        waiting = []
        for call in calls {
            do { try start(call) } catch { unsigned.append((call.request, error)) }
        }
    }

    private func send(_ call: Call, _ credentials: Credentials, _ generation: Int) {
        if signer?.generation != generation {
            startUnhashed()
            signer = (generation, SigV4(credentials: credentials, region: endpoint.region))
        }
        var call = call
        (call.generation, call.clockSkew, call.began) = (generation, clockSkew, .now)
        let operation =
            switch call.request {
            case .putRecords: "PutRecords"
            case .control(let name, _): name
            }
        let url = endpoint.url(of: operation)
        let transfer = client.transfer(to: url.text)
        var bodySize = 0
        switch call.request {
        case .putRecords(let records):
            _ = PutRecords.write(records, to: stream, as: call.format, heads: &transfer.heads, pieces: &pieces)
            bodySize = addBody(records, to: transfer)
        case .control(_, let parameters):
            transfer.heads.clear(keeping: 64 << 10)
            call.format.write(parameters, to: &transfer.heads)
            transfer.addBody(unsafe BodyPiece(transfer.heads.bytes))
        }
        nextNumber += 1
        calls[nextNumber] = call
        let prepared = Prepared(
            transfer: transfer,
            number: nextNumber,
            url: url,
            operation: operation,
            format: call.format
        )
        unhashed.append(prepared)
        bytesUnhashed += bodySize
        let mayWait = bodySize >= Self.leastShared && unhashed.count < SHA256.lanes && bytesUnhashed < Self.mostUnhashed
        if !mayWait { startUnhashed() }
    }

    /// Starts the calls whose bodies have waited for others.
    private func startUnhashed() {
        guard !unhashed.isEmpty else { return }
        let sums = sha.sums(of: unhashed.map(\.transfer.body))
        for (prepared, sum) in zip(unhashed, sums) { start(prepared, bodyHash: hexadecimalText(sum.span)) }
        unhashed.removeAll(keepingCapacity: true)
        bytesUnhashed = 0
    }

    /// How long what is unhashed may go on waiting for others; nil: nothing waits.
    private func patience(_ following: Following) -> Duration? {
        guard let first = unhashed.first, let last = unhashed.last else { return nil }
        let now = Instant.now
        func wait(_ gap: Duration, _ within: Duration) -> Duration {
            min(last.since + gap, first.since + min(within, Self.longestUnhashed)) - now
        }
        return switch following {
        case .none: .zero
        case .perhaps(let within): unhashed.count > 1 ? wait(Self.longestPause, within) : .zero
        case .soon(let within): wait(Self.longestGap, within)
        }
    }

    private func start(_ prepared: Prepared, bodyHash: String) {
        // What it waited for other bodies says nothing of the service.
        calls[prepared.number]?.began = .now
        sign(prepared.transfer, prepared.url, prepared.operation, prepared.format, bodyHash: bodyHash)
        client.start(prepared.transfer, token: prepared.number)
    }

    /// Adds the pieces of a PutRecords body: heads from the transfer's buffer, data from the aggregates themselves.
    ///
    /// - Returns: its bytes.
    private func addBody(_ records: [SealedAggregate], to transfer: Transfer) -> Int {
        var size = 0
        for piece in pieces {
            // The call keeps the aggregates until the transfer is finished.
            let piece =
                switch piece {
                case .head(let range): unsafe BodyPiece(.init(rebasing: transfer.heads.bytes[range]))
                case .data(let index): unsafe BodyPiece(records[index].unsafeData)
                case .base64(let index): unsafe BodyPiece(base64Of: records[index].unsafeData)
                }
            size += piece.count
            transfer.addBody(piece)
        }
        return size
    }

    private func sign(
        _ transfer: Transfer,
        _ url: ServiceURL,
        _ operation: String,
        _ format: WireFormat,
        bodyHash: String
    ) {
        let time = SigningTime(unixSeconds: Machine.wallMilliseconds() / 1000 + clockSkew)
        var headers = [
            ("Host", url.host), ("Content-Type", format.contentType), ("X-Amz-Date", time.text),
            ("X-Amz-Target", "Kinesis_20131202.\(operation)"),
        ]
        if let token = signer?.signature.credentials.sessionToken { headers.append(("X-Amz-Security-Token", token)) }
        let request = SigV4.Request(path: url.path, headers: headers.map { ($0.0, $0.1) }, bodyHash: bodyHash)
        for (name, value) in headers { transfer.addHeader(name, value) }
        transfer.addHeader("Authorization", signer?.signature.authorization(for: request, at: time) ?? "")
        transfer.addHeader("Accept", "")
    }

    /// Waits until a call has news, the bell rings, or `most` has passed.
    func wait(for bell: Doorbell, atMost most: Duration, following: Following = .none) {
        var most = most
        if let patience = patience(following) {
            if patience > .zero { most = min(most, patience) } else { startUnhashed() }
        }
        let isReady = !unsigned.isEmpty || (!waiting.isEmpty && !keeper.willRing(bell))
        client.wait(for: bell, atMost: isReady ? .zero : most)
        startWaiting()
    }

    /// Moves bytes without waiting.
    ///
    /// - Parameter following: bodies that wait to be hashed beside others may go on waiting for these.
    func perform(following: Following) {
        startWaiting()
        if let patience = patience(following), patience <= .zero { startUnhashed() }
        client.perform()
    }

    /// Hands each reply to `body`.
    public func replies(_ body: (Reply) -> Void) {
        var again: [Call] = []
        client.finished { transfer, outcome in
            guard let call = calls.removeValue(forKey: transfer.number) else { return }
            if transfer.wasRepeated, case .putRecords(let records) = call.request {
                repeated += records.reduce(0) { $0 + $1.recordCount }
            }
            switch outcome {
            case .failed(let error): body(.failed(call.request, .transport(error)))
            case .answered(let status) where status == 200: body(success(call, transfer))
            case .answered(let status):
                if let reply = failure(call, status, transfer, &again) { body(reply) }
            }
        }
        for call in again {
            do { try start(call) } catch { body(.failed(call.request, error)) }
        }
        let unsigned = unsigned
        self.unsigned = []
        for (request, failure) in unsigned { body(.failed(request, failure)) }
    }

    private func success(_ call: Call, _ transfer: Transfer) -> Reply {
        switch call.request {
        case .putRecords(let records):
            let results: [PutRecords.Result]
            do {
                results = try transfer.answer.withBytes { (answer) throws(PutRecords.Distrust) in
                    try PutRecords.results(answer, as: call.format, for: records.count)
                }
            } catch { return .failed(call.request, .distrusted(error.description)) }
            noteUnderstood(call)
            return .putRecords(records, results, took: .now - call.began)
        case .control(let name, _):
            let answer = transfer.answer.array
            lastFormat = call.format
            // Some operations answer nothing.
            guard !answer.isEmpty else { return .control(name, .null, answer: answer) }
            do {
                let value = try call.format.read(answer.span)
                noteUnderstood(call)
                return .control(name, value, answer: answer)
            } catch { return .failed(call.request, .distrusted("the answer cannot be read: \(error)")) }
        }
    }

    /// Nil when the call is made again: in the other form, with newer keys, or at a better time.
    private func failure(_ call: Call, _ status: Int, _ transfer: Transfer, _ again: inout [Call]) -> Reply? {
        let format = transfer.header("content-type").flatMap(WireFormat.init(contentType:))
        let error = transfer.answer.withBytes {
            ServiceError(status: status, errorType: transfer.header("x-amzn-errortype"), body: $0, format: format)
        }
        // A named fault of ours shows that the request was read; a 5xx, HTML, or an unknown type does not.
        let isUnderstood =
            status < 500 && format != nil && error.code != "SerializationException"
            && error.code != "UnknownOperationException"
        if isUnderstood {
            noteUnderstood(call)
        } else if wire.notUnderstood(call.format) {
            again.append(Call(request: call.request, format: .json))
            return nil
        }
        let canMend =
            switch error.kind {
            case .credentials: keeper.refused(call.generation, now: .now, chance: .random(in: 0...1))
            case .clock: learnTime(transfer.header("date"), call)
            case .transient, .throttled, .permanent: false
            }
        if canMend, !call.isSignedAgain {
            var signedAgain = call
            signedAgain.isSignedAgain = true
            again.append(signedAgain)
            return nil
        }
        return .failed(call.request, .service(error))
    }

    /// Corrects our clock by the Date of an answer that refused a call for its time.
    ///
    /// The service wrote it somewhere between the call's start and now, so of a call that took long it says too little;
    /// signatures may be off by five minutes.
    /// - Returns: whether the call would be signed with another time now.
    private func learnTime(_ date: String?, _ call: Call) -> Bool {
        guard let date = date.flatMap(CivilTime.init(httpDate:)), .now - call.began < .seconds(60) else {
            return false
        }
        clockSkew = date.unixSeconds - Machine.wallMilliseconds() / 1000
        return abs(clockSkew - call.clockSkew) > 30
    }

    private func noteUnderstood(_ call: Call) {
        if wire.understood(call.format, now: .now) { fellBackToJSON = true }
    }

    /// Makes one control call and waits for its answer: for commands, never for a lane.
    public func call(_ operation: String, _ parameters: WireValue) throws(CallFailure) -> (
        value: WireValue, input: [UInt8]
    ) {
        let bell: Doorbell
        do { bell = try Doorbell() } catch { throw .distrusted(error.description) }
        try start(.control(operation, parameters))
        while inFlight > 0 {
            wait(for: bell, atMost: .seconds(1))
            var result: Result<(WireValue, [UInt8]), CallFailure>?
            replies { reply in
                switch reply {
                case .control(_, let value, let answer): result = .success((value, answer))
                case .failed(_, let failure): result = .failure(failure)
                case .putRecords: break
                }
            }
            if let result { return try result.get() }
        }
        throw .distrusted("the call ended without an answer")
    }

    /// Gives back the memory that is kept for calls to come.
    func giveBackMemory() { client.forgetIdle() }

    /// Breaks off every call: none of them will be answered.
    ///
    /// - Returns: what they carried; Kinesis may have some of it.
    func cancelAll() -> [SealedAggregate] {
        client.cancelAll()
        unhashed.removeAll()
        bytesUnhashed = 0
        let requests =
            calls.sorted { $0.key < $1.key }.map(\.value.request) + waiting.map(\.request) + unsigned.map(\.0)
        calls.removeAll()
        waiting.removeAll()
        unsigned.removeAll()
        return requests.flatMap { request -> [SealedAggregate] in
            if case .putRecords(let records) = request { records } else { [] }
        }
    }
}
