/// An access key, by which AWS knows who calls.
public struct Credentials: Equatable, Sendable {
    public var accessKeyID: String
    public var secretAccessKey: String
    /// For temporary credentials.
    public var sessionToken: String?

    public init(accessKeyID: String, secretAccessKey: String, sessionToken: String? = nil) {
        (self.accessKeyID, self.secretAccessKey, self.sessionToken) = (accessKeyID, secretAccessKey, sessionToken)
    }
}

extension Credentials: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// The key's name alone: what is secret must not get into a log.
    public var description: String { accessKeyID }
    public var debugDescription: String { accessKeyID }
    public var customMirror: Mirror { Mirror(self, children: ["accessKeyID": accessKeyID]) }
}

/// Signs HTTP requests with AWS Signature Version 4.
///
/// The signing key depends on the day alone and is kept, so a signature costs two HMACs and the hash of the request's
/// canonical form; the body's hash is the caller's.
/// Source: "Create a signed AWS API request" in the IAM user guide; AWS's test suite.
public struct SigV4: Sendable {
    public var credentials: Credentials { didSet { key = nil } }
    public let region: String
    public let service: String
    private var key: (day: String, bytes: [UInt8])?

    public init(credentials: Credentials, region: String, service: String = "kinesis") {
        (self.credentials, self.region, self.service) = (credentials, region, service)
    }

    /// A request as it is signed.
    ///
    /// Headers must hold all that will be sent and is to be protected, `host` at least.
    public struct Request {
        public var method = "POST"
        /// The path as it stands in the request line, without the query.
        public var path = "/"
        /// The query as it stands in the request line, without `?`.
        public var query = ""
        public var headers: [(name: String, value: String)]
        /// SHA-256 of the body, hexadecimal.
        public var bodyHash: String

        public init(
            method: String = "POST",
            path: String = "/",
            query: String = "",
            headers: [(name: String, value: String)],
            bodyHash: String
        ) {
            (self.method, self.path, self.query) = (method, path, query)
            (self.headers, self.bodyHash) = (headers, bodyHash)
        }
    }

    /// The value of the Authorization header.
    ///
    /// - Parameter time: the time in the request's `x-amz-date`.
    public mutating func authorization(for request: Request, at time: SigningTime) -> String {
        let (canonical, signed) = Self.canonical(request)
        let scope = "\(time.day)/\(region)/\(service)/aws4_request"
        let text = "AWS4-HMAC-SHA256\n\(time.text)\n\(scope)\n\(SHA256.hexadecimal(of: Array(canonical.utf8)))"
        let signature = hexadecimalText(hmacSHA256(key: signingKey(time.day), Array(text.utf8)).span)
        return
            "AWS4-HMAC-SHA256 Credential=\(credentials.accessKeyID)/\(scope), SignedHeaders=\(signed), "
            + "Signature=\(signature)"
    }

    private mutating func signingKey(_ day: String) -> [UInt8] {
        if let key, key.day == day { return key.bytes }
        var bytes = Array("AWS4\(credentials.secretAccessKey)".utf8)
        for part in [day, region, service, "aws4_request"] { bytes = hmacSHA256(key: bytes, Array(part.utf8)) }
        key = (day, bytes)
        return bytes
    }

    /// The canonical request, and the list of signed headers.
    public static func canonical(_ request: Request) -> (text: String, signedHeaders: String) {
        var values: [String: String] = [:]
        for (name, value) in request.headers {
            let (name, value) = (name.lowercased(), trimmed(value))
            values[name] = values[name].map { "\($0),\(value)" } ?? value
        }
        let names = values.keys.sorted()
        let headers = names.map { "\($0):\(values[$0]!)\n" }.joined()
        let query = request.query.split(separator: "&").map { pair in
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            return (name: encode(parts[0]), value: parts.count > 1 ? encode(parts[1]) : "")
        }
        .sorted { ($0.name, $0.value) < ($1.name, $1.value) }
        .map { "\($0.name)=\($0.value)" }
        .joined(separator: "&")
        let signed = names.joined(separator: ";")
        let path = request.path.isEmpty ? "/" : encode(request.path[...], keeping: "/")
        return ("\(request.method)\n\(path)\n\(query)\n\(headers)\n\(signed)\n\(request.bodyHash)", signed)
    }

    /// A header's value without needless space.
    private static func trimmed(_ value: String) -> String {
        var (before, isTrimmed) = (UInt8(ascii: " "), true)
        for byte in value.utf8 {
            if byte < 0x20 || byte == 0x20 && before == 0x20 { isTrimmed = false }
            before = byte
        }
        if isTrimmed, before != 0x20 { return value }
        // Lines of a folded header each count as a value of their own; runs of spaces shrink to one.
        return value.split(separator: "\n").map { line in
            line.split(whereSeparator: { $0 == " " || $0 == "\t" || $0 == "\r" }).joined(separator: " ")
        }
        .joined(separator: ",")
    }

    /// Percent-encodes all but the unreserved characters; what is encoded already stays so.
    private static func encode(_ text: Substring, keeping kept: String = "") -> String {
        var out = ""
        for byte in text.utf8 {
            let scalar = Unicode.Scalar(byte)
            switch scalar {
            case "A"..."Z", "a"..."z", "0"..."9", "-", "_", ".", "~", "%": out.unicodeScalars.append(scalar)
            case _ where kept.unicodeScalars.contains(scalar): out.unicodeScalars.append(scalar)
            default:
                let hex = String(byte, radix: 16, uppercase: true)
                out += hex.count == 1 ? "%0\(hex)" : "%\(hex)"
            }
        }
        return out
    }
}

/// A moment in the two forms that signing needs.
public struct SigningTime: Equatable, Sendable {
    /// `20130524T000000Z`.
    public let text: String
    /// `20130524`.
    public let day: String

    /// - Parameter unixSeconds: seconds since 1970, UTC.
    public init(unixSeconds: Int64) {
        let time = CivilTime(unixSeconds: unixSeconds)
        func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
        let year = String(time.year)
        day = String(repeating: "0", count: max(0, 4 - year.count)) + year + two(time.month) + two(time.day)
        text = "\(day)T\(two(time.hour))\(two(time.minute))\(two(time.second))Z"
    }
}
