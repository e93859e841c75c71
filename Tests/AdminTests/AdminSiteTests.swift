import Admin
import Agent
import Foundation
import Seeded
import Testing

/// What is answered to whom; the figures themselves are compared by the tests of the whole agent.
@Suite struct AdminSiteTests {
    private static let token = Array("a-secret-of-length-24-...".utf8)

    /// A site that must not look at any agent.
    private static func site(token: [UInt8]? = nil) -> AdminSite {
        AdminSite(token: token) { fatalError("asked the agent") }
    }

    private static func get(
        _ target: String,
        method: String = "GET",
        host: String? = "127.0.0.1:9600",
        authorization: String? = nil
    ) -> AdminSite.Request {
        .init(method: method, target: target, host: host, authorization: authorization)
    }

    @Test func `nothing can be changed`() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", ""] {
            #expect(Self.site().answer(Self.get("/", method: method)).status == 405)
        }
    }

    @Test func `an unknown path is told the known ones`() {
        for target in ["/x", "", "*", "//", "/metrics/", "/../etc/passwd", "/status.json", "http://127.0.0.1/status?"] {
            let answer = Self.site().answer(Self.get(target))
            #expect(answer.status == 404)
            #expect(String(decoding: answer.body, as: UTF8.self).contains("/metrics"))
        }
    }

    @Test func `the page is one document that asks for nothing from elsewhere`() {
        let answer = Self.site().answer(Self.get("/"))
        let text = String(decoding: answer.body, as: UTF8.self)
        #expect(answer.status == 200 && answer.type.hasPrefix("text/html"))
        #expect(text.contains("<html") && text.contains("fetch("))
        #expect(!text.contains("src=\"http") && !text.contains("href=\"http") && !text.contains("@import"))
    }

    @Test func `without a token only this machine's own names are answered`() {
        let own = [
            "localhost", "LOCALHOST:9600", "127.0.0.1", "127.0.0.1:9600", "127.1.2.3:80", "[::1]", "[::1]:9600",
        ]
        for host in own { #expect(Self.site().answer(Self.get("/", host: host)).status == 200, "\(host)") }
        let others = [
            "example.com", "localhost.example.com", "127.0.0.1.example.com", "10.0.0.1:9600", "[::2]", "", "localhostx",
        ]
        for host in others { #expect(Self.site().answer(Self.get("/", host: host)).status == 403, "\(host)") }
    }

    @Test func `with a token only who knows it is answered`() {
        let (site, word) = (Self.site(token: Self.token), String(decoding: Self.token, as: UTF8.self))
        func status(_ authorization: String?, _ target: String = "/x", host: String = "gateway-7.example.com") -> Int {
            site.answer(Self.get(target, host: host, authorization: authorization)).status
        }
        #expect(status("Bearer \(word)") == 404)
        #expect(status("bearer  \(word)") == 404)
        for wrong in ["Bearer", "Bearer ", "Bearer \(word)x", "Bearer \(word.dropLast())", "Basic \(word)", word] {
            #expect(status(wrong) == 401, "\(wrong)")
        }
        #expect(status(nil) == 401 && status(nil, host: "127.0.0.1") == 401)
        // Addresses get into logs: a word there is none.
        for path in ["/status", "/metrics", "/config", "/readyz"] {
            #expect(status(nil, "\(path)?token=\(word)") == 401)
            #expect(status(nil, path) == 401)
        }
        // The page, which tells nothing by itself and asks for the word.
        #expect(status(nil, "/") == 200)
    }

    @Test func `whatever is asked is answered`() {
        var random = Random()
        let characters = Array("/?&=%#ab token status metrics:@[]\u{0}\r\n\u{ff}é")
        for _ in 0..<20_000 {
            let target = String((0..<random.below(24)).map { _ in characters[random.below(characters.count)] })
            let host = String((0..<random.below(12)).map { _ in characters[random.below(characters.count)] })
            let token = random.below(2) == 0 ? Self.token : nil
            let request = Self.get(target, host: host, authorization: random.below(2) == 0 ? target : nil)
            let status = Self.site(token: token).answer(request).status
            #expect([200, 401, 403, 404].contains(status))
        }
    }
}
