import Bytes
import Kinesis
import Platform
import Synchronization

/// What the demo ships: numbered lines, from somewhere, until a while has passed.
protocol DemoSource: Sendable {
    /// Lines written, or sent, so far.
    var lines: Int { get }
    var isFinished: Bool { get }
    func run()
    func stop()
}

/// Sends datagrams as a fleet of devices does: numbered, at a rate, each device from its own port, and none looks back.
final class DeviceFleet: DemoSource {
    private let address: InternetAddress
    private let perSecond: Int
    private let duration: Duration
    private let sent = Atomic<Int>(0)
    private let finished = Atomic<Bool>(false)
    private let stopping = Atomic<Bool>(false)

    static let devices = 100
    /// Sent before the clock is looked at again.
    private static let burst = 200

    init(to address: InternetAddress, perSecond: Int, duration: Duration) {
        (self.address, self.perSecond, self.duration) = (address, perSecond, duration)
    }

    var lines: Int { sent.load(ordering: .acquiring) }
    var isFinished: Bool { finished.load(ordering: .acquiring) }

    func stop() { stopping.store(true, ordering: .relaxed) }

    func run() {
        defer { finished.store(true, ordering: .releasing) }
        var random = SplitMix64(seed: 7)
        var buffer = ByteWriter(capacity: 1 << 10)
        let senders = (0..<Self.devices).compactMap { _ in try? DatagramSender(to: address) }
        guard senders.count == Self.devices else { return }
        var number = 0
        let start = Instant.now
        var elapsed = Duration.zero
        while elapsed < duration, !stopping.load(ordering: .relaxed) {
            let due = Int(Double(perSecond) * elapsed.inSeconds)
            for _ in 0..<max(0, min(due - number, Self.burst)) {
                let device = Int(random.next() % UInt64(Self.devices))
                buffer.clear()
                Self.append(number, of: device, to: &buffer, &random)
                // What this machine did not take was not sent.
                if buffer.withBytes(nil, { senders[device].send($0) }) { number += 1 }
            }
            sent.store(number, ordering: .releasing)
            if due - number < Self.burst { Machine.sleep(.milliseconds(1)) }
            elapsed = .now - start
        }
    }

    private static func append(_ number: Int, of device: Int, to out: inout ByteWriter, _ random: inout SplitMix64) {
        let chance = random.next()
        let digits = String(number)
        out.append(text: String(repeating: "0", count: max(0, 10 - digits.count)))
        out.append(text: digits)
        out.append(
            text:
                " device=d-\(1000 + device) temperature=\(18 + chance % 10).\(chance >> 8 & 7) humidity=\(40 + chance >> 16 % 30)"
        )
        out.append(" battery=97 uptime=86400 signal=-71 firmware=\"1.4.2\"")
    }
}
