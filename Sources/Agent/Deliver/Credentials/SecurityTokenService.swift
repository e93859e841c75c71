import Kinesis
import Platform

/// A role to take on, and under which conditions.
struct Role: Equatable, Sendable {
    var arn: String
    var externalID: String?
    /// Shown in CloudTrail; empty: this machine's name.
    var sessionName: String?
    var seconds: Int?

    var name: String {
        if let sessionName { return sessionName }
        let allowed = Machine.hostName.filter { $0.isASCII && ($0.isLetter || $0.isNumber || "+=,.@-_".contains($0)) }
        return "penstock-\(allowed.prefix(50))"
    }
}

/// STS: keys for a role.
///
/// Source: AssumeRole and AssumeRoleWithWebIdentity in the STS API reference (query protocol, answers in XML).
struct SecurityTokenService {
    private let server: CredentialServer
    private let url: ServiceURL
    private let region: String

    init(_ url: ServiceURL, region: String, _ options: HTTPClient.Options, _ patience: Patience) {
        (self.url, self.region) = (url, region)
        server = CredentialServer(options, retriesSilence: true, patience)
    }

    /// Keys for `role`, by those of somebody who may take it on.
    func keys(for role: Role, with credentials: Credentials) throws(CredentialFault) -> TemporaryKeys {
        let body = Self.form(action: "AssumeRole", role, [("ExternalId", role.externalID)])
        let hash = SHA256.hexadecimal(of: Array(body.utf8))
        var signer = SigV4(credentials: credentials, region: region, service: "sts")
        var (skew, isCorrected): (Int64, Bool) = (0, false)
        while true {
            let time = SigningTime(unixSeconds: Machine.wallMilliseconds() / 1000 + skew)
            var headers = [("Host", url.host), ("Content-Type", Self.contentType), ("X-Amz-Date", time.text)]
            if let token = credentials.sessionToken { headers.append(("X-Amz-Security-Token", token)) }
            let request = SigV4.Request(path: url.path, headers: headers.map { ($0.0, $0.1) }, bodyHash: hash)
            headers.append(("Authorization", signer.authorization(for: request, at: time)))
            let answer = try server.ask(.post, url.text, headers, body: body)
            if answer.hasDate, !isCorrected, Self.error(in: answer)?.kind == .clock {
                (skew, isCorrected) = (answer.now - Machine.wallMilliseconds() / 1000, true)
                continue
            }
            return try keys(of: role, in: answer)
        }
    }

    /// Keys for `role`, by what an identity provider has signed.
    func keys(for role: Role, webIdentity token: String) throws(CredentialFault) -> TemporaryKeys {
        let body = Self.form(action: "AssumeRoleWithWebIdentity", role, [("WebIdentityToken", token)])
        let answer = try server.ask(.post, url.text, [("Content-Type", Self.contentType)], body: body)
        return try keys(of: role, in: answer)
    }

    private static let contentType = "application/x-www-form-urlencoded; charset=utf-8"

    private func keys(of role: Role, in answer: CredentialServer.Answer) throws(CredentialFault) -> TemporaryKeys {
        guard answer.status == 200 else {
            let reason = Self.error(in: answer)?.description ?? "HTTP \(answer.status)"
            throw .failed("STS at \(url.host) refuses \(role.arn): \(reason)")
        }
        let text = String(decoding: answer.body, as: UTF8.self)
        return try TemporaryKeys(
            source: "role \(role.arn)",
            now: answer.now,
            token: "SessionToken",
            mustExpire: true
        ) { Self.element($0, in: text) }
    }

    private static func error(in answer: CredentialServer.Answer) -> ServiceError? {
        guard answer.status != 200 else { return nil }
        let text = String(decoding: answer.body, as: UTF8.self)
        return element("Code", in: text).map { ServiceError(code: $0, message: element("Message", in: text) ?? "") }
    }

    private static func form(action: String, _ role: Role, _ more: [(String, String?)]) -> String {
        let fields: [(String, String?)] =
            [
                ("Action", action), ("Version", "2011-06-15"), ("RoleArn", role.arn), ("RoleSessionName", role.name),
                ("DurationSeconds", role.seconds.map(String.init)),
            ] + more
        return fields.compactMap { name, value in value.map { "\(name)=\(encode($0))" } }.joined(separator: "&")
    }

    private static func encode(_ text: String) -> String {
        var out = ""
        for byte in text.utf8 {
            switch Unicode.Scalar(byte) {
            case "A"..."Z", "a"..."z", "0"..."9", "-", "_", ".", "~": out.unicodeScalars.append(Unicode.Scalar(byte))
            default: out += "%" + hexadecimalText([byte].span).uppercased()
            }
        }
        return out
    }

    /// The text of the first element `name`: STS answers neither attributes nor sections where it is looked for.
    static func element(_ name: String, in xml: String) -> String? {
        guard let start = xml.firstRange(of: "<\(name)>"),
            let end = xml[start.upperBound...].firstRange(of: "</\(name)>")
        else { return nil }
        let text = xml[start.upperBound..<end.lowerBound]
        let trimmed = text.drop(while: \.isWhitespace)
        return String(trimmed)
            .replacing("&lt;", with: "<").replacing("&gt;", with: ">").replacing("&quot;", with: "\"")
            .replacing("&apos;", with: "'").replacing("&amp;", with: "&")
    }
}
