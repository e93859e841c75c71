package import Agent
internal import Kinesis
internal import Platform

/// What the admin server answers to a request: rules without a socket.
package struct AdminSite: Sendable {
    package struct Answer: Equatable {
        package var status: Int
        package var type: String
        package var body: [UInt8]

        static func text(_ status: Int, _ text: String) -> Self {
            Answer(status: status, type: "text/plain; charset=utf-8", body: Array("\(text)\n".utf8))
        }
    }

    package struct Request {
        var method: String
        /// Path and query.
        var target: String
        var host: String?
        var authorization: String?

        package init(method: String, target: String, host: String?, authorization: String?) {
            (self.method, self.target, self.host, self.authorization) = (method, target, host, authorization)
        }
    }

    /// What must be known; nil: nothing.
    let token: [UInt8]?
    let status: @Sendable () -> AgentStatus

    package init(token: [UInt8]?, status: @escaping @Sendable () -> AgentStatus) {
        (self.token, self.status) = (token, status)
    }

    static let paths = "/ /metrics /healthz /readyz /status /config"

    package func answer(_ request: Request) -> Answer {
        let path = request.target.prefix { $0 != "?" }
        guard request.method == "GET" || request.method == "HEAD" else {
            return .text(405, "only GET and HEAD: nothing can be changed here")
        }
        // Whether the process lives may be known to whoever reaches it: probes send no words. Nor does a browser with its
        // first request: the page tells nothing by itself, and asks for the word.
        let isOpen = path == "/healthz" || path == "/" && token != nil
        if !isOpen, let refusal = refusal(of: request) { return refusal }
        switch path {
        case "/": return Answer(status: 200, type: "text/html; charset=utf-8", body: Self.page)
        case "/metrics":
            return Answer(status: 200, type: Metrics.contentType, body: Array(Metrics(status()).text.utf8))
        case "/healthz":
            let status = status()
            guard status.isAlive else { return .text(503, status.unreadiness ?? "") }
            return .text(200, "alive")
        case "/readyz":
            let status = status()
            guard let reason = status.unreadiness else { return .text(200, "delivering") }
            return .text(503, reason)
        case "/status": return .json(status().document)
        case "/config": return .json(status().configuration.document)
        default: return .text(404, "there is \(Self.paths)")
        }
    }

    /// Why a request is not answered; nil: it is.
    private func refusal(of request: Request) -> Answer? {
        guard let token else {
            // A page from elsewhere can have its name point to this machine; it cannot change the name it asks by.
            guard let host = request.host, !Self.isLocal(host) else { return nil }
            return .text(403, "asked as \(host): use the address in agent.admin, or set admin_token_file")
        }
        if let given = request.authorization.flatMap(Self.bearer), Self.equal(Array(given.utf8), token) { return nil }
        return .text(401, "needs the header: Authorization: Bearer, and the word in admin_token_file")
    }

    /// `localhost:9600`, `127.0.0.1`, `[::1]:9600`.
    static func isLocal(_ host: String) -> Bool {
        if host.lowercased() == "localhost" || host.lowercased().hasPrefix("localhost:") { return true }
        let address = InternetAddress(host) ?? InternetAddress("\(host):80")
        return address?.isLoopback ?? false
    }

    private static func bearer(_ header: String) -> Substring? {
        guard header.lowercased().hasPrefix("bearer ") else { return nil }
        return header.dropFirst("bearer ".count).drop { $0 == " " }
    }

    /// Compares in a time that does not depend on where they differ.
    static func equal(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        guard left.count == right.count else { return false }
        return zip(left, right).reduce(0) { $0 | ($1.0 ^ $1.1) } == 0
    }

    /// The status page, which asks for the rest by itself.
    static let page = PackageResources.status_html
}

extension AdminSite.Answer {
    fileprivate static func json(_ value: WireValue) -> Self {
        .init(status: 200, type: "application/json", body: WireFormat.json.encode(value) + [10])
    }
}
