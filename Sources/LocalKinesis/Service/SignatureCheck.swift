internal import Kinesis

/// Verifies a request's signature, and refuses one that does not match as AWS does.
///
/// Source: "Troubleshoot signed requests for AWS APIs" in the IAM user guide.
struct SignatureCheck {
    private let credentials: Credentials

    init(_ credentials: Credentials) { self.credentials = credentials }

    /// Seconds that the clocks may differ by.
    private static let tolerance: Int64 = 300

    /// Throws unless `request` is signed with the credentials, for Kinesis, at about `now`.
    func check(_ request: Service.Request, at now: Moment) throws(Refusal) {
        guard let authorization = request.header("authorization") else {
            throw Refusal("MissingAuthenticationTokenException", "Missing Authentication Token")
        }
        let (scope, names, signature) = try Self.parts(of: authorization)
        guard scope.count == 5, scope[3] == "kinesis", scope[4] == "aws4_request" else {
            throw .signature("Credential should be scoped to correct service: 'kinesis'.")
        }
        guard scope[0] == credentials.accessKeyID,
            request.header("x-amz-security-token") == credentials.sessionToken
        else {
            throw Refusal(
                "UnrecognizedClientException",
                "The security token included in the request is invalid."
            )
        }
        guard let text = request.header("x-amz-date") else {
            throw Refusal(
                "IncompleteSignatureException",
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
                    + "Authorization=\(authorization)"
            )
        }
        guard let time = Self.seconds(text) else {
            throw Refusal(
                "IncompleteSignatureException",
                "Date must be in ISO-8601 'basic format'. Got '\(text)'."
            )
        }
        try Self.check(time, at: now)
        guard text.hasPrefix(scope[1]), scope[1].utf8.count == 8 else {
            throw .signature("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP")
        }
        let signed = request.signed(names)
        var signer = SigV4(credentials: credentials, region: scope[2])
        let right = signer.authorization(for: signed, at: SigningTime(unixSeconds: time))
        guard names.contains("host"), try Self.parts(of: right).signature == signature else {
            throw .signature(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
                    + "Access Key and signing method. Consult the service documentation for details.\n\n"
                    + "The Canonical String for this request should have been\n'\(SigV4.canonical(signed).text)'\n"
            )
        }
    }

    /// Throws if the time at which `request` says it was signed is too far from `now`.
    static func checkTime(of request: Service.Request, at now: Moment) throws(Refusal) {
        if let time = request.header("x-amz-date").flatMap(seconds) { try check(time, at: now) }
    }

    /// Whose signature an Authorization header holds.
    static func accessKey(in authorization: String) -> String? {
        guard let start = authorization.firstRange(of: "Credential=")?.upperBound else { return nil }
        return String(authorization[start...].prefix { $0 != "/" && $0 != "," && $0 != " " })
    }

    private static func parts(
        of authorization: String
    ) throws(Refusal) -> (scope: [String], signedHeaders: [String], signature: String) {
        var values: [Substring: Substring] = [:]
        for part in authorization.split(whereSeparator: { $0 == " " || $0 == "," }) {
            let pair = part.split(separator: "=", maxSplits: 1)
            if pair.count == 2 { values[pair[0]] = pair[1] }
        }
        let missing = ["Credential", "Signature", "SignedHeaders"].filter { values[$0[...]] == nil }
        guard missing.isEmpty, authorization.hasPrefix("AWS4-HMAC-SHA256") else {
            throw Refusal(
                "IncompleteSignatureException",
                missing.map { "Authorization header requires '\($0)' parameter. " }.joined()
                    + "Authorization=\(authorization)"
            )
        }
        return (
            values["Credential"]!.split(separator: "/").map(String.init),
            values["SignedHeaders"]!.split(separator: ";").map(String.init),
            String(values["Signature"]!)
        )
    }

    private static func check(_ time: Int64, at now: Moment) throws(Refusal) {
        func text(_ seconds: Int64) -> String { SigningTime(unixSeconds: seconds).text }
        let (earliest, latest) = (now.seconds - tolerance, now.seconds + tolerance)
        if time < earliest {
            throw .signature(
                "Signature expired: \(text(time)) is now earlier than \(text(earliest)) (\(text(now.seconds)) - 5 min.)"
            )
        }
        if time > latest {
            throw .signature(
                "Signature not yet current: \(text(time)) is still later than \(text(latest)) "
                    + "(\(text(now.seconds)) + 5 min.)"
            )
        }
    }

    /// Reads `20130524T000000Z` as seconds since 1970.
    private static func seconds(_ text: String) -> Int64? {
        let digits = text.utf8.filter { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
        guard digits.count == 14 else { return nil }
        func number(_ range: Range<Int>) -> Int { digits[range].reduce(0) { $0 * 10 + Int($1 - UInt8(ascii: "0")) } }
        var time = CivilTime(unixSeconds: 0)
        (time.year, time.month, time.day) = (number(0..<4), number(4..<6), number(6..<8))
        (time.hour, time.minute, time.second) = (number(8..<10), number(10..<12), number(12..<14))
        // What it is written as again shows months, days and separators that do not exist.
        guard (1...12).contains(time.month), SigningTime(unixSeconds: time.unixSeconds).text == text else { return nil }
        return time.unixSeconds
    }
}

extension Service.Request {
    /// The request as its client signed it: with the headers it named.
    fileprivate func signed(_ names: [String]) -> SigV4.Request {
        let parts = uri.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        var sha = SHA256()
        sha.update(body.span)
        return SigV4.Request(
            method: method,
            path: String(parts[0]),
            query: parts.count > 1 ? String(parts[1]) : "",
            headers: headers.filter { names.contains($0.name.lowercased()) },
            bodyHash: hexadecimalText(sha.finish().span)
        )
    }
}

extension Refusal {
    fileprivate static func signature(_ message: String) -> Self { Refusal("InvalidSignatureException", message) }
}
