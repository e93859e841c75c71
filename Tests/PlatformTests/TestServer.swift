import Glibc
import Platform
import Synchronization
import Seeded

/// A server on loopback whose connections a closure answers, each on a thread of its own.
final class TestServer: Sendable {
    let port: Int
    private let listener: Int32
    private let accepting: Platform.Thread
    private let state: State

    final class State: Sendable {
        let connections = Mutex<[(descriptor: Int32, thread: Platform.Thread)]>([])
        let accepted = Atomic<Int>(0)
        let requests = Mutex<[Request]>([])
    }

    struct Request: Sendable {
        var connection: Int
        var head: String
        var body: [UInt8]
    }

    /// One side of an accepted connection.
    struct Connection: Sendable {
        let number: Int
        fileprivate let descriptor: Int32
        fileprivate let state: State

        /// The next request; nil when the client has gone.
        func receive() -> Request? {
            var bytes: [UInt8] = []
            while true {
                if let end = bytes.indices.first(where: { bytes[$0...].starts(with: Array("\r\n\r\n".utf8)) }) {
                    let head = String(decoding: bytes[..<end], as: UTF8.self)
                    let lines = head.lowercased().split(separator: "\r\n")
                    let length = lines.first { $0.hasPrefix("content-length: ") }.flatMap { Int($0.dropFirst(16)) } ?? 0
                    while bytes.count < end + 4 + length { guard more(&bytes) else { return nil } }
                    let body = Array(bytes[(end + 4)..<(end + 4 + length)])
                    let request = Request(connection: number, head: head, body: body)
                    state.requests.withLock { $0.append(request) }
                    return request
                }
                guard more(&bytes) else { return nil }
            }
        }

        private func more(_ bytes: inout [UInt8]) -> Bool {
            var room = [UInt8](repeating: 0, count: 1 << 16)
            let count = unsafe recv(descriptor, &room, room.count, 0)
            if count > 0 { bytes += room[..<count] }
            return count > 0
        }

        func send(_ text: String) {
            let bytes = Array(text.utf8)
            var at = 0
            while at < bytes.count {
                let count = unsafe bytes[at...].withUnsafeBytes {
                    unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                }
                if count <= 0 { return }
                at += count
            }
        }

        func answer(_ body: String, status: String = "200 OK", _ headers: String = "") {
            send("HTTP/1.1 \(status)\r\nContent-Length: \(body.utf8.count)\r\n\(headers)\r\n\(body)")
        }
    }

    init(_ serve: @escaping @Sendable (Connection) -> Void) throws(SystemError) {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        unsafe withUnsafeMutablePointer(to: &address) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe _ = bind(listener, $0, size)
                _ = listen(listener, 64)
                unsafe _ = getsockname(listener, $0, &size)
            }
        }
        let state = State()
        self.listener = listener
        self.state = state
        port = Int(UInt16(bigEndian: address.sin_port))
        accepting = Platform.Thread("accepts") {
            while true {
                let descriptor = accept(listener, nil, nil)
                guard descriptor >= 0 else { return }
                let number = state.accepted.add(1, ordering: .relaxed).newValue
                let connection = Connection(number: number, descriptor: descriptor, state: state)
                let thread = Platform.Thread("serves") {
                    serve(connection)
                    shutdown(descriptor, Int32(SHUT_RDWR))
                }
                state.connections.withLock { $0.append((descriptor, thread)) }
            }
        }
    }

    var url: String { "http://127.0.0.1:\(port)/path" }
    var accepted: Int { state.accepted.load(ordering: .relaxed) }
    var requests: [Request] { state.requests.withLock { $0 } }

    /// Ends every connection and thread.
    func stop() {
        shutdown(listener, Int32(SHUT_RDWR))
        accepting.join()
        for (descriptor, thread) in state.connections.withLock({ $0 }) {
            shutdown(descriptor, Int32(SHUT_RDWR))
            thread.join()
            close(descriptor)
        }
        close(listener)
    }
}
