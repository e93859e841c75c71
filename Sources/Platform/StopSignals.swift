import CLinux
import Glibc

/// SIGTERM, SIGINT and SIGHUP as something to wait on.
///
/// Make it before the first thread: threads inherit the mask that keeps the signals from killing the process.
public struct StopSignals: ~Copyable, Sendable {
    private let descriptor: Descriptor

    public init() throws(SystemError) {
        descriptor = Descriptor(try check("signalfd", nil, clinux_stop_signals()))
    }

    /// Readable when a signal has come.
    public var number: Int32 { descriptor.number }

    /// Whether a signal has come.
    public var isPending: Bool {
        var polled = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
        return unsafe poll(&polled, 1, 0) > 0
    }

    /// The name of the signal that has come, if any.
    public func next() -> String? {
        switch clinux_next_signal(descriptor.number) {
        case SIGTERM: "SIGTERM"
        case SIGINT: "SIGINT"
        case SIGHUP: "SIGHUP"
        default: nil
        }
    }
}
