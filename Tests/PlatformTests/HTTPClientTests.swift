import Bytes
import Foundation
import Glibc
import Platform
import Seeded
import Testing

/// A piece of a body, which stays where it is.
@safe
private final class Piece {
    private let memory: UnsafeMutableRawBufferPointer

    init(_ bytes: [UInt8]) {
        unsafe memory = .allocate(byteCount: bytes.count, alignment: 1)
        unsafe memory.copyBytes(from: bytes)
    }

    deinit { unsafe memory.deallocate() }

    func add(to transfer: Transfer, isBase64: Bool = false) {
        let bytes = unsafe UnsafeRawBufferPointer(memory)
        transfer.addBody(unsafe isBase64 ? BodyPiece(base64Of: bytes) : BodyPiece(bytes))
    }
}

@Suite(.serialized) struct HTTPClientTests {
    struct Answer {
        var number: Int
        var status: Int?
        var error: TransportError?
        var body: String
        var header: String?
    }

    /// Starts a call with each body, and waits until all have ended, bounded.
    static func call(
        _ client: HTTPClient,
        _ bodies: [[[UInt8]]],
        isBase64: Bool = false,
        within limit: Duration = .seconds(20)
    ) throws -> [Answer] {
        let bell = try Doorbell()
        let pieces = bodies.map { $0.map(Piece.init) }
        defer { withExtendedLifetime(pieces) {} }
        for (index, body) in pieces.enumerated() {
            let transfer = client.transfer()
            transfer.addHeader("X-Number", "\(index)")
            for piece in body { piece.add(to: transfer, isBase64: isBase64) }
            client.start(transfer, token: index)
        }
        var answers: [Answer] = []
        let end = Instant.now + limit
        while client.inFlight > 0, .now < end {
            client.wait(for: bell, atMost: .milliseconds(100))
            client.finished { transfer, outcome in
                var answer = Answer(number: transfer.number, body: "")
                switch outcome {
                case .answered(let status):
                    answer.status = status
                    answer.body = String(decoding: transfer.answer.array, as: UTF8.self)
                    answer.header = transfer.header("X-ANSWER")
                case .failed(let error): answer.error = error
                }
                answers.append(answer)
            }
        }
        #expect(client.inFlight == 0)
        client.cancelAll()
        return answers
    }

    @Test func `a connection is kept, and a body arrives piece after piece, without Expect`() throws {
        let server = try TestServer { connection in
            while let request = connection.receive() {
                connection.answer("\(request.body.count)", "x-Answer:  yes\r\nX-Other: no\r\n")
            }
        }
        defer { server.stop() }
        let client = HTTPClient(.init(url: server.url))
        let pieces: [[UInt8]] = [[1, 2, 3], [], [UInt8](repeating: 4, count: 3_000_000), [5]]
        for _ in 0..<5 {
            let answer = try #require(try Self.call(client, [pieces]).first)
            #expect(answer.status == 200 && answer.body == "3000004" && answer.header == "yes")
        }
        #expect(server.accepted == 1)
        #expect(server.requests.count == 5)
        #expect(server.requests.allSatisfy { $0.body == Array(pieces.joined()) })
        #expect(server.requests.allSatisfy { $0.head.hasPrefix("POST /path HTTP/1.1") })
        #expect(!server.requests.contains { $0.head.lowercased().contains("expect") })
        #expect(!server.requests.contains { $0.head.lowercased().contains("transfer-encoding") })
        // A body of nothing is a body too.
        #expect(try Self.call(client, [[]]).first?.body == "0")
    }

    @Test func `several calls are under way at once, and each gets its own answer`() throws {
        let server = try TestServer { connection in
            while let request = connection.receive() {
                Machine.sleep(.milliseconds(300))
                connection.answer(String(decoding: request.body, as: UTF8.self))
            }
        }
        defer { server.stop() }
        let client = HTTPClient(.init(url: server.url))
        let start = Instant.now
        let answers = try Self.call(client, (0..<8).map { [Array("body \($0)".utf8)] })
        #expect(.now - start < .milliseconds(2000))
        #expect(server.accepted == 8)
        #expect(answers.count == 8)
        #expect(answers.allSatisfy { $0.body == "body \($0.number)" })
    }

    @Test func `of calls under way eight send large pieces, and as many again when these have ended`() throws {
        let server = try TestServer { connection in
            while connection.receive() != nil { connection.answer("here") }
        }
        defer { server.stop() }
        let client = HTTPClient(.init(url: server.url))
        let piece = Piece([UInt8](repeating: 7, count: 300 << 10))
        defer { withExtendedLifetime(piece) {} }
        func start(_ calls: Int, of pieces: Int) {
            for number in 0..<calls {
                let transfer = client.transfer()
                for _ in 0..<pieces { piece.add(to: transfer) }
                client.start(transfer, token: number)
            }
        }
        for _ in 0..<3 {
            start(12, of: 2)
            #expect(client.inFlight == 12 && client.largeSenders == HTTPClient.mostLargeSenders)
            let bell = try Doorbell()
            let end = Instant.now + .seconds(20)
            while client.inFlight > 0, .now < end {
                client.wait(for: bell, atMost: .milliseconds(100))
                client.finished { _, _ in }
            }
            #expect(client.inFlight == 0 && client.largeSenders == 0)
            start(3, of: 2)
            #expect(client.largeSenders == 3)
            client.cancelAll()
            #expect(client.largeSenders == 0)
        }
        // Short bodies leave it to others.
        let small = Piece([1, 2, 3])
        let transfer = client.transfer()
        small.add(to: transfer)
        client.start(transfer, token: 1)
        #expect(client.largeSenders == 0)
        client.cancelAll()
        withExtendedLifetime(small) {}
    }

    @Test func `an error's status and body are an answer`() throws {
        let server = try TestServer { connection in
            while connection.receive() != nil { connection.answer("why", status: "503 Gone away") }
        }
        defer { server.stop() }
        let answer = try #require(try Self.call(HTTPClient(.init(url: server.url)), [[[1]]]).first)
        #expect(answer.status == 503 && answer.body == "why" && answer.header == nil)
    }

    @Test func `a server that does not answer is given up after the timeout`() throws {
        let server = try TestServer { connection in
            _ = connection.receive()
            Machine.sleep(.seconds(3))
        }
        defer { server.stop() }
        var options = HTTPClient.Options(url: server.url)
        options.timeout = .milliseconds(300)
        let start = Instant.now
        let answer = try #require(try Self.call(HTTPClient(options), [[[1, 2, 3]]]).first)
        let error = try #require(answer.error)
        #expect(.now - start < .seconds(2))
        #expect(error.mayHaveArrived && !error.isPermanent)
    }

    @Test func `a refused connection says so, and that nothing can have arrived`() throws {
        let server = try TestServer { _ in }
        let url = server.url
        server.stop()
        let error = try #require(try Self.call(HTTPClient(.init(url: url)), [[[1, 2, 3]]]).first?.error)
        #expect(!error.mayHaveArrived && !error.isPermanent)
        #expect(error.message.contains("connect"))
        let bad = try #require(try Self.call(HTTPClient(.init(url: "ftp://127.0.0.1/")), [[[1]]]).first?.error)
        #expect(bad.isPermanent)
    }

    @Test func `an answer that is too large ends its call`() throws {
        let server = try TestServer { connection in
            while connection.receive() != nil { connection.answer(String(repeating: "x", count: 100_001)) }
        }
        defer { server.stop() }
        var options = HTTPClient.Options(url: server.url)
        options.largestAnswer = 100_000
        #expect(try Self.call(HTTPClient(options), [[[1]]]).first?.error != nil)
        options.largestAnswer = 100_001
        #expect(try Self.call(HTTPClient(options), [[[1]]]).first?.body.count == 100_001)
    }

    @Test(arguments: [false, true])
    func `a kept connection that has died is replaced, and the whole body sent again`(isBase64: Bool) throws {
        let server = try TestServer { connection in
            guard connection.receive() != nil else { return }
            connection.answer("first")
            // The first connection dies as the second request arrives.
            if connection.number == 1 { Machine.sleep(.milliseconds(200)) } else { _ = connection.receive() }
        }
        defer { server.stop() }
        let client = HTTPClient(.init(url: server.url))
        let body: [[UInt8]] = [[1, 2], [UInt8](repeating: 3, count: 200_000), [4]]
        #expect(try Self.call(client, [body], isBase64: isBase64).first?.body == "first")
        let second = try #require(try Self.call(client, [body], isBase64: isBase64).first)
        #expect(second.body == "first", "\(second)")
        #expect(server.accepted == 2)
        let wanted = isBase64 ? body.flatMap { [UInt8](Data($0).base64EncodedData()) } : Array(body.joined())
        #expect(server.requests.last?.body == wanted)
    }

    @Test func `calls that are broken off leave a client that works`() throws {
        let server = try TestServer { connection in
            while let request = connection.receive() {
                if request.body == [1] { Machine.sleep(.seconds(2)) }
                connection.answer("done")
            }
        }
        defer { server.stop() }
        let client = HTTPClient(.init(url: server.url))
        let body = Piece([1])
        defer { withExtendedLifetime(body) {} }
        let transfer = client.transfer()
        body.add(to: transfer)
        client.start(transfer, token: 9)
        client.cancelAll()
        #expect(client.inFlight == 0)
        #expect(try Self.call(client, [[[2]]]).first?.body == "done")
    }
}

/// A server with a certificate of its own making, by the openssl command.
final class TLSServer {
    let scratch: Scratch
    let port: Int
    private let process = Process()
    var certificate: String { scratch.path + "/cert.pem" }

    init() throws {
        scratch = try Scratch()
        let make = Process()
        make.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        make.arguments = [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost", "-keyout", scratch.path + "/key.pem", "-out",
            scratch.path + "/cert.pem",
        ]
        make.standardError = FileHandle.nullDevice
        try make.run()
        make.waitUntilExit()
        try #require(make.terminationStatus == 0)
        // A port that was free a moment ago.
        let probe = try TestServer { _ in }
        port = probe.port
        probe.stop()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        let script = """
            import http.server, ssl, sys
            class Answers(http.server.BaseHTTPRequestHandler):
                def do_POST(self):
                    self.rfile.read(int(self.headers["Content-Length"]))
                    self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
            server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answers)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(sys.argv[2], sys.argv[3])
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            server.serve_forever()
            """
        process.arguments = ["python3", "-c", script, "\(port)", certificate, scratch.path + "/key.pem"]
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
    }

    deinit {
        // A child has the signal mask of the thread that started it, and may not hear SIGTERM.
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }

    /// Calls until the server listens, which takes it a moment.
    func call(_ host: String, caFile: String?) throws -> HTTPClientTests.Answer {
        var options = HTTPClient.Options(url: "https://\(host):\(port)/")
        options.caFile = caFile
        var answer: HTTPClientTests.Answer?
        for _ in 0..<50 {
            answer = try HTTPClientTests.call(HTTPClient(options), [[[1]]]).first
            guard answer?.error?.message.contains("connect to") == true else { break }
            Machine.sleep(.milliseconds(100))
        }
        return try #require(answer)
    }
}

@Suite struct TLSTests {
    @Test func `a certificate nobody vouches for is refused, and so is another host's; a trusted one is taken`() throws
    {
        let server = try TLSServer()
        let stranger = try #require(server.call("localhost", caFile: nil).error)
        #expect(stranger.isPermanent && !stranger.mayHaveArrived, "\(stranger)")
        let trusted = try server.call("localhost", caFile: server.certificate)
        #expect(trusted.error == nil && trusted.status == 200, "\(trusted)")
        let other = try #require(server.call("127.0.0.1", caFile: server.certificate).error)
        #expect(other.isPermanent && !other.mayHaveArrived, "\(other)")
        #expect(try server.call("localhost", caFile: "/no/such/file").error?.isPermanent == true)
    }
}
