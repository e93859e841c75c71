public import Bytes
public import Kinesis
import Platform

/// What a source of credentials gave: a key, and until when it holds.
public struct TemporaryKeys: Sendable {
    public var credentials: Credentials
    /// Nil: it holds until somebody changes it.
    public var expires: Instant?
    /// Where it came from, in words.
    public var source: String

    init(_ credentials: Credentials, expires: Instant? = nil, source: String) {
        (self.credentials, self.expires, self.source) = (credentials, expires, source)
    }

    /// Takes them out of what a source answered, field by field.
    ///
    /// - Parameters:
    ///   - now: the source's clock in seconds since 1970: lifetimes are counted by it, because ours may be wrong.
    ///   - field: the text of a field that is there and not empty.
    init(
        source: String,
        now: Int64,
        token: String,
        mustExpire: Bool,
        field: (String) -> String?
    ) throws(CredentialFault) {
        guard let id = field("AccessKeyId"), let secret = field("SecretAccessKey") else {
            throw .failed("the answer has no AccessKeyId and SecretAccessKey")
        }
        var expires: Instant?
        if let text = field("Expiration") {
            guard let end = CivilTime.unixSeconds(rfc3339: text) else {
                throw .failed("the answer's Expiration is no time: \(text.prefix(40))")
            }
            guard end > now else { throw .failed("it answers keys that have ended at \(text)") }
            // A Date has whole seconds: it may be nearly the next one already.
            expires = .now + .seconds(end - now - 1)
        } else if mustExpire {
            throw .failed("the answer has no Expiration")
        }
        self.init(
            Credentials(accessKeyID: id, secretAccessKey: secret, sessionToken: field(token)),
            expires: expires,
            source: source
        )
    }

    /// Takes them out of the JSON of a metadata service.
    init(answered answer: CredentialServer.Answer, source: String) throws(CredentialFault) {
        let (body, value) = (answer.body, try Self.object(answer.body))
        try self.init(source: source, now: answer.now, token: "Token", mustExpire: true) { name in
            value[name]?.text(in: body.span).flatMap { $0.isEmpty ? nil : $0 }
        }
    }

    /// Takes them out of what a credential_process has printed.
    init(printed output: [UInt8]) throws(CredentialFault) {
        let value = try Self.object(output)
        guard value["Version"]?.integer == 1 else { throw .failed("credential_process must print \"Version\": 1") }
        let now = Machine.wallMilliseconds() / 1000
        try self.init(source: "credential_process", now: now, token: "SessionToken", mustExpire: false) { name in
            value[name]?.text(in: output.span).flatMap { $0.isEmpty ? nil : $0 }
        }
    }

    private static func object(_ bytes: [UInt8]) throws(CredentialFault) -> WireValue {
        do { return try WireFormat.json.read(bytes.span) } catch { throw .failed("the answer is no JSON: \(error)") }
    }

    /// How long to wait before new ones are asked for.
    ///
    /// A quarter of the lifetime ahead of its end, a quarter of an hour at most, jittered: agents that started together do
    /// not come together. A server may answer the same keys again until shortly before their end; then the next wait is
    /// the shorter one of what is left.
    /// - Parameter chance: evenly drawn from 0 to 1.
    package static func renewal(after lifetime: Duration, chance: Double) -> Duration {
        let ahead = min(.seconds(900), lifetime / 4) * (0.8 + 0.4 * chance)
        return max(.seconds(1), lifetime - ahead)
    }
}

/// Why a source gave no keys.
enum CredentialFault: Error {
    /// It is not set up here: the next one is looked at.
    case absent(String)
    /// It is set up, and does not work: no other is taken in its place, which might be somebody else.
    case failed(String)
}
