import Glibc
import Platform
import Testing

@Suite struct DatagramSocketTests {
    /// A sender needs no more than the file: it may be faster than whoever made it.
    @Test func `who sent through a Unix socket is known from its first datagram on`() throws {
        let scratch = try Scratch()
        let path = scratch.path + "/log.sock"
        let file = try UnixSocketFile(path, isDatagram: true, mode: 0o600, group: "")

        let sender = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
        defer { close(sender) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
        let sent = unsafe withUnsafePointer(to: &address) { address in
            unsafe address.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                unsafe sendto(sender, "first", 5, 0, address, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        #expect(sent == 5)

        let receiver = DatagramSocket(file)
        try receiver.tellOrigin(times: true)
        var batch = DatagramBatch(most: 4, longest: 64, tellsOrigin: true)
        let slots = UnsafeMutableRawBufferPointer.allocate(byteCount: 4 * 64, alignment: 16)
        defer { unsafe slots.deallocate() }
        #expect(try unsafe batch.receive(from: receiver, into: slots, stride: 64, head: 0) == 1)
        let name = UnsafeMutableRawBufferPointer.allocate(byteCount: DatagramBatch.longestSender, alignment: 16)
        defer { unsafe name.deallocate() }
        let count = unsafe batch.sender(0, into: name)
        let text = unsafe String(decoding: name[..<count], as: UTF8.self)
        #expect(text == "uid:\(Machine.userNumber) pid:\(Machine.processNumber)")
    }
}
