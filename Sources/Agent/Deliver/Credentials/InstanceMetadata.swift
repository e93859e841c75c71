import Kinesis
import Platform

/// The instance's metadata service (IMDSv2): the role of this machine, and its region.
///
/// Source: "Use the Instance Metadata Service" in the EC2 user guide. Version 1, which asks for no token, is never used.
struct InstanceMetadata {
    private let server: CredentialServer
    private let url: String

    /// Throws when it is switched off.
    init(_ environment: (String) -> String?, _ patience: Patience) throws(CredentialFault) {
        guard environment("AWS_EC2_METADATA_DISABLED")?.lowercased() != "true" else {
            throw .absent("AWS_EC2_METADATA_DISABLED is true")
        }
        let isIPv6 = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE")?.lowercased() == "ipv6"
        let usual = isIPv6 ? "http://[fd00:ec2::254]" : "http://169.254.169.254"
        let url = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT") ?? usual
        self.url = url.hasSuffix("/") ? String(url.dropLast()) : url
        var options = HTTPClient.Options(url: url)
        // Where nobody answers, keys and region together may cost 2 s.
        (options.connectTimeout, options.timeout) = (.seconds(1), .seconds(1))
        (options.proxy, options.largestAnswer) = (.none, 64 << 10)
        server = CredentialServer(options, retriesSilence: false, patience)
    }

    func keys() throws(CredentialFault) -> TemporaryKeys {
        let path = "/latest/meta-data/iam/security-credentials/"
        var token = try token()
        let role = try get(path, &token)
        guard role.status == 200, !role.name.isEmpty else {
            throw .absent("the instance has no role (HTTP \(role.status))")
        }
        let name = role.name
        let answer = try get(path + name, &token)
        let value = try? WireFormat.json.read(answer.body.span)
        if let code = value?["Code"]?.text(in: answer.body.span), code != "Success" {
            throw .failed("the role \(name): \(code) \(value?["Message"]?.text(in: answer.body.span) ?? "")")
        }
        guard answer.status == 200 else { throw .failed("the role \(name): HTTP \(answer.status)") }
        return try TemporaryKeys(answered: answer, source: "instance metadata, role \(name)")
    }

    func region() throws(CredentialFault) -> String {
        var token = try token()
        let answer = try get("/latest/meta-data/placement/region", &token)
        guard answer.status == 200, !answer.name.isEmpty else { throw .failed("HTTP \(answer.status)") }
        return answer.name
    }

    private func get(_ path: String, _ token: inout String) throws(CredentialFault) -> CredentialServer.Answer {
        let answer = try server.ask(.get, url + path, [("X-aws-ec2-metadata-token", token)])
        // It was restarted, and knows the token no more.
        guard answer.status == 401 else { return answer }
        token = try self.token()
        return try server.ask(.get, url + path, [("X-aws-ec2-metadata-token", token)])
    }

    private func token() throws(CredentialFault) -> String {
        let answer = try server.ask(
            .put,
            url + "/latest/api/token",
            [("X-aws-ec2-metadata-token-ttl-seconds", "21600"), ("Content-Type", "")]
        )
        guard answer.status == 200, !answer.body.isEmpty else {
            throw .failed("\(url) gives no token of IMDSv2: HTTP \(answer.status)")
        }
        return String(decoding: answer.body, as: UTF8.self)
    }
}
