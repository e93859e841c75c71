import Glibc
import Kinesis
import LocalKinesis
import Testing

/// A blocking connection to this machine.
final class Wire {
    private let descriptor: Int32

    init(port: Int) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = unsafe withUnsafePointer(to: &address) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe connect(descriptor, $0, size) }
        }
        try #require(result == 0)
    }

    deinit { close(descriptor) }

    func send(_ text: String, _ body: [UInt8] = []) {
        let bytes = Array(text.utf8) + body
        var at = 0
        while at < bytes.count {
            let sent = unsafe bytes[at...].withUnsafeBytes {
                unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if sent <= 0 { return }
            at += sent
        }
    }

    /// One answer: its head, and as much body as it says.
    func receive() -> (head: String, body: [UInt8]) {
        var bytes: [UInt8] = []
        while true {
            let text = String(decoding: bytes, as: UTF8.self)
            if let end = bytes.indices.first(where: { bytes[$0...].starts(with: Array("\r\n\r\n".utf8)) }) {
                let lines = text.lowercased().split(separator: "\r\n")
                let length = lines.first { $0.hasPrefix("content-length: ") }.flatMap { Int($0.dropFirst(16)) } ?? 0
                if bytes.count >= end + 4 + length {
                    return (String(decoding: bytes[..<end], as: UTF8.self), Array(bytes[(end + 4)...]))
                }
            }
            var room = [UInt8](repeating: 0, count: 65_536)
            let got = unsafe recv(descriptor, &room, room.count, 0)
            if got <= 0 { return (text, []) }
            bytes += room[..<got]
        }
    }

    func call(_ operation: String, _ value: WireValue, _ format: WireFormat) throws -> (head: String, answer: WireValue)
    {
        let body = format.encode(value)
        send(
            "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: Kinesis_20131202.\(operation)\r\n"
                + "Content-Type: \(format.contentType)\r\nContent-Length: \(body.count)\r\n\r\n",
            body
        )
        let (head, answer) = receive()
        return (head, try format.read(answer.span))
    }
}

@Suite(.serialized) struct SocketTests {
    static func start(_ change: (inout LocalKinesis.Options) -> Void = { _ in }) throws -> LocalKinesis {
        var options = LocalKinesis.Options()
        options.streams = [("s", 2)]
        change(&options)
        return try LocalKinesis.start(options)
    }

    @Test(arguments: WireFormat.allCases)
    func `calls go back and forth on one connection`(format: WireFormat) throws {
        let kinesis = try Self.start()
        defer { kinesis.stop() }
        #expect(kinesis.url == "http://127.0.0.1:\(kinesis.port)")
        let wire = try Wire(port: kinesis.port)
        let record = WireValue.object([
            "Data": .data(.init(repeating: 5, count: 700_000)), "PartitionKey": .text("k"),
        ])
        for _ in 0..<3 {
            let request = WireValue.object(["StreamName": .text("s"), "Records": .list([record, record])])
            let (head, answer) = try wire.call("PutRecords", request, format)
            #expect(head.hasPrefix("HTTP/1.1 200 OK"))
            #expect(head.contains("Content-Type: \(format.contentType)"))
            for name in ["x-amzn-RequestId", "x-amz-id-2", "Date", "Content-Length"] {
                #expect(head.contains("\r\n\(name): "))
            }
            #expect(answer["Records"]?.list?.count == 2)
        }
        let (head, _) = try wire.call("DescribeStream", .object(["StreamName": .text("none")]), format)
        #expect(head.hasPrefix("HTTP/1.1 400 "))
        let figures = kinesis.figures()
        #expect(figures.calls == 4)
        #expect(figures.errors == 1)
        #expect(figures.recordsStored == 6)
        #expect(figures.bytesStored == 6 * 700_001)
    }

    @Test func `a client that asks for leave to send gets it`() throws {
        let kinesis = try Self.start()
        defer { kinesis.stop() }
        let wire = try Wire(port: kinesis.port)
        wire.send(
            "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: Kinesis_20131202.ListStreams\r\n"
                + "Content-Type: application/x-amz-json-1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n"
                + "Connection: close\r\n\r\n"
        )
        #expect(wire.receive().head.hasPrefix("HTTP/1.1 100 Continue"))
        wire.send("{}")
        let answer = wire.receive()
        #expect(answer.head.hasPrefix("HTTP/1.1 200 OK"))
        // The connection ends with the answer, as asked.
        #expect(wire.receive().head == "")
    }

    @Test func `a body no call can have is answered, not kept`() throws {
        let kinesis = try Self.start()
        defer { kinesis.stop() }
        let wire = try Wire(port: kinesis.port)
        let size = 16 << 20
        wire.send(
            "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: Kinesis_20131202.PutRecords\r\n"
                + "Content-Type: application/x-amz-cbor-1.1\r\nContent-Length: \(size)\r\n\r\n",
            .init(repeating: 0, count: size)
        )
        #expect(wire.receive().head.hasPrefix("HTTP/1.1 413 "))
        let (head, _) = try wire.call("ListStreams", .object([:]), .json)
        #expect(head.hasPrefix("HTTP/1.1 200 "))
    }

    @Test func `a port that is taken is named`() throws {
        let kinesis = try Self.start()
        defer { kinesis.stop() }
        #expect(throws: LocalKinesis.StartFault.portTaken(host: "127.0.0.1", port: kinesis.port)) {
            try Self.start { $0.port = kinesis.port }
        }
        #expect(throws: LocalKinesis.StartFault.self) { try Self.start { $0.host = "192.0.2.1" } }
        #expect(throws: LocalKinesis.StartFault.self) { try Self.start { $0.streams = [("no spaces", 1)] } }
    }

    @Test func `after stop the port is free, and open connections are closed`() throws {
        let kinesis = try Self.start()
        let wire = try Wire(port: kinesis.port)
        _ = try wire.call("ListStreams", .object([:]), .json)
        kinesis.stop()
        kinesis.stop()
        #expect(wire.receive().head == "")
        let second = try Self.start { $0.port = kinesis.port }
        second.stop()
    }
}
