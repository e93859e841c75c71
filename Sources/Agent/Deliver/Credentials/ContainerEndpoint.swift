import Platform

/// The endpoint that ECS and EKS give to a container: the role of its task or pod.
///
/// Source: "Container credential provider" in the AWS SDKs and Tools reference guide.
package struct ContainerEndpoint {
    private let environment: (String) -> String?
    private let url: String
    private let server: CredentialServer

    /// Throws when there is none.
    init(_ environment: @escaping (String) -> String?, caFile: String?, _ patience: Patience) throws(CredentialFault) {
        if let path = environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            guard path.hasPrefix("/") else {
                throw .failed("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI must begin with /")
            }
            url = "http://169.254.170.2" + path
        } else if let full = environment("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            url = full
        } else {
            throw .absent("AWS_CONTAINER_CREDENTIALS_FULL_URI and _RELATIVE_URI are not set")
        }
        self.environment = environment
        guard Self.isAllowed(url) else {
            throw .failed(
                "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or http to this machine, 169.254.170.2, "
                    + "169.254.170.23 or [fd00:ec2::23]"
            )
        }
        var options = HTTPClient.Options(url: url)
        (options.connectTimeout, options.timeout) = (.seconds(2), .seconds(5))
        (options.proxy, options.caFile, options.largestAnswer) = (.none, caFile, 64 << 10)
        server = CredentialServer(options, retriesSilence: true, patience)
    }

    func keys() throws(CredentialFault) -> TemporaryKeys {
        var headers: [(String, String)] = []
        if let token = try token() { headers.append(("Authorization", token)) }
        let answer = try server.ask(.get, url, headers)
        guard answer.status == 200 else { throw .failed("\(host): HTTP \(answer.status) \(answer.message)") }
        return try TemporaryKeys(answered: answer, source: "container endpoint")
    }

    private var host: Substring { Self.host(of: url) }

    /// What proves to the endpoint who asks; a file is read anew each time, because it is replaced.
    private func token() throws(CredentialFault) -> String? {
        var token = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN")
        if let file = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            do {
                let text = String(decoding: try Folder.read(file, limit: 64 << 10), as: UTF8.self)
                token = text.last?.isNewline ?? false ? String(text.dropLast()) : text
            } catch { throw .failed("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: \(error)") }
        }
        // Else it could add headers of its own.
        guard !(token ?? "").contains(where: \.isNewline) else {
            throw .failed("the authorization token has a line break")
        }
        return token
    }

    private static func host(of url: String) -> Substring {
        let authority = url.drop { $0 != "/" }.dropFirst(2).prefix { $0 != "/" && $0 != "?" }
        if authority.hasPrefix("[") { return authority.prefix { $0 != "]" } + "]" }
        return authority.prefix { $0 != ":" }
    }

    /// A token in clear text must not leave the machine.
    package static func isAllowed(_ url: String) -> Bool {
        if url.hasPrefix("https://") { return true }
        // Before an @ stands a user, not the host that is called.
        guard url.hasPrefix("http://"), !url.contains("@") else { return false }
        let host = host(of: url)
        let numbers = host.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
        let isLoopback = numbers.count == 4 && numbers[0] == 127 && !numbers.contains(nil)
        return isLoopback
            || ["localhost", "[::1]", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"].contains(String(host))
    }
}
