/// An error answer to a call, in the service's words.
struct Refusal: Error, Equatable, Sendable {
    /// The exception's name without a namespace; `__type` of the answer.
    var code: String
    /// The service gives none for calls it could not even read.
    var message: String?

    init(_ code: String, _ message: String? = nil) { (self.code, self.message) = (code, message) }

    /// The HTTP status it is answered with.
    var status: Int { code == "InternalFailure" ? 500 : code == "ServiceUnavailable" ? 503 : 400 }

    static func validation(_ complaints: [String]) -> Self {
        Refusal(
            "ValidationException",
            "\(complaints.count) validation error\(complaints.count > 1 ? "s" : "") detected: "
                + complaints.joined(separator: "; ")
        )
    }

    static func invalidArgument(_ message: String) -> Self { Refusal("InvalidArgumentException", message) }

    static func serialization(_ message: String) -> Self { Refusal("SerializationException", message) }
}
