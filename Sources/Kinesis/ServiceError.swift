/// An error that Kinesis, or something in front of it, answered: for a call, or for one record of it.
public struct ServiceError: Error, Equatable, Sendable {
    /// The exception's name without its namespace: `ResourceNotFoundException`.
    public var code: String
    public var message: String
    public var kind: Kind

    /// What an error asks for.
    public enum Kind: Equatable, Sendable {
        /// Passes by itself: try again.
        case transient
        /// Too much at once: try again, slower.
        case throttled
        /// The credentials are expired or wrong: look for new ones.
        case credentials
        /// The clocks differ: correct ours by the answer's Date.
        case clock
        /// Will be answered the same until somebody changes something.
        case permanent
    }

    public init(code: String, message: String) {
        self.code = code
        self.message = message
        kind = Self.isAboutTime(code, message) ? .clock : Self.kind(of: code) ?? .transient
    }

    /// Reads the answer to a failed call.
    ///
    /// - Parameters:
    ///   - status: HTTP status.
    ///   - errorType: the header `x-amzn-ErrorType`, if any.
    ///   - body: `{"__type": …, "message": …}`, or a load balancer's HTML, or nothing.
    ///   - format: the form the body is in, if a header says so.
    public init(status: Int, errorType: String?, body: Span<UInt8>, format: WireFormat?) {
        let value = try? (format ?? .json).read(body)
        let header = errorType.flatMap { $0.isEmpty ? nil : $0 }
        let name = header ?? value?["__type"]?.text(in: body) ?? value?["code"]?.text(in: body) ?? ""
        code = Self.shortName(name)
        message = value?["message"]?.text(in: body) ?? value?["Message"]?.text(in: body) ?? ""
        if code.isEmpty { code = "HTTP \(status)" }
        if let known = Self.kind(of: code) {
            kind = known
        } else {
            kind =
                switch status {
                case 429: .throttled
                case 401, 403, 404, 413: .permanent
                case 400..<500 where !name.isEmpty: .permanent
                default: .transient
                }
        }
        if Self.isAboutTime(code, message) { kind = .clock }
    }

    /// Kinesis says InvalidSignatureException, STS SignatureDoesNotMatch, of a signature that came at another time.
    private static func isAboutTime(_ code: String, _ message: String) -> Bool {
        (code == "InvalidSignatureException" || code == "SignatureDoesNotMatch")
            && (message.contains("expired") || message.contains("not yet current"))
    }

    /// `com.amazonaws.kinesis#ResourceNotFoundException:http://…` → `ResourceNotFoundException`.
    private static func shortName(_ name: String) -> String {
        String(name.prefix { $0 != ":" }.split(separator: "#").last ?? "")
    }

    // The common errors of AWS and those of PutRecords and ListShards in the API reference.
    private static func kind(of code: String) -> Kind? {
        switch code {
        case "ProvisionedThroughputExceededException", "ThrottlingException", "Throttling", "LimitExceededException",
            "RequestLimitExceeded", "TooManyRequestsException", "KMSThrottlingException", "SlowDown",
            "RequestThrottled", "RequestThrottledException", "BandwidthLimitExceeded":
            .throttled
        case "InternalFailure", "InternalFailureException", "InternalServerError", "InternalServiceError",
            "ServiceUnavailable", "ServiceUnavailableException", "RequestTimeout", "RequestTimeoutException":
            .transient
        case "ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId",
            "InvalidSignatureException", "MissingAuthenticationToken", "MissingAuthenticationTokenException",
            "IncompleteSignature", "IncompleteSignatureException", "SignatureDoesNotMatch":
            .credentials
        case "RequestExpired", "RequestTimeTooSkewed", "RequestInTheFuture":
            .clock
        case "AccessDeniedException", "AccessDenied", "ResourceNotFoundException", "InvalidArgumentException",
            "ValidationException", "ValidationError", "ResourceInUseException", "KMSDisabledException",
            "KMSInvalidStateException", "KMSAccessDeniedException", "KMSNotFoundException", "KMSOptInRequired",
            "OptInRequired", "NotAuthorized", "UnknownOperationException", "SerializationException",
            "InvalidAction", "UnsupportedOperationException":
            .permanent
        default: nil
        }
    }
}

extension ServiceError: CustomStringConvertible {
    public var description: String { message.isEmpty ? code : "\(code): \(message)" }
}
