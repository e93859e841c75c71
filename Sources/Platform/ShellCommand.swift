import Bytes
import CLinux
import Glibc

/// A command of the shell, run for what it prints.
public struct ShellCommand: Sendable {
    public let text: String
    /// Bytes it may print.
    private let limit: Int

    public init(_ text: String, limit: Int = 64 << 10) { (self.text, self.limit) = (text, limit) }

    /// Why there is no output.
    public enum Failure: Error, CustomStringConvertible {
        case system(SystemError)
        case exit(code: Int32)
        case tooLong(limit: Int)
        case timeout(Duration)
        /// Whoever waits wants it no more.
        case stopped

        public var description: String {
            switch self {
            case .system(let error): "\(error)"
            case .exit(let code): "it ended with code \(code)"
            case .tooLong(let limit): "it prints more than \(limit) bytes"
            case .timeout(let timeout): "it did not end within \(timeout.components.seconds) s"
            case .stopped: "it was broken off"
            }
        }
    }

    /// Runs it to its end and returns what it wrote to its standard output.
    ///
    /// It and what it has started are killed after `timeout`, and when the bell rings while `isStopped`.
    public func output(
        within timeout: Duration,
        bell: Doorbell,
        isStopped: () -> Bool = { false }
    ) throws(Failure) -> [UInt8] {
        let deadline = Instant.now + timeout
        var number: Int32 = -1
        let process: Int32
        do { process = try check("posix_spawn", "/bin/sh", unsafe clinux_start_shell(text, &number)) } catch {
            throw .system(error)
        }
        let pipe = Descriptor(number)
        do throws(Failure) {
            let bytes = try read(pipe, until: deadline, timeout, bell, isStopped)
            var code = clinux_exit_code(process)
            // What closed its output ends soon.
            while code == -EAGAIN, .now < deadline, !isStopped() {
                Machine.sleep(.milliseconds(5))
                code = clinux_exit_code(process)
            }
            guard code != -EAGAIN else { throw isStopped() ? .stopped : .timeout(timeout) }
            guard code == 0 else { throw .exit(code: code) }
            return bytes
        } catch {
            if case .exit = error { throw error }
            clinux_kill_group(process)
            while clinux_exit_code(process) == -EAGAIN { Machine.sleep(.milliseconds(1)) }
            throw error
        }
    }

    private func read(
        _ pipe: borrowing Descriptor,
        until deadline: Instant,
        _ timeout: Duration,
        _ bell: Doorbell,
        _ isStopped: () -> Bool
    ) throws(Failure) -> [UInt8] {
        var bytes: [UInt8] = []
        var room = [UInt8](repeating: 0, count: 4096)
        while true {
            guard !isStopped() else { throw .stopped }
            let left = deadline - .now
            guard left > .zero else { throw .timeout(timeout) }
            if bell.wait(or: pipe.number, atMost: left) { bell.wake() }
            var ready = pollfd(fd: pipe.number, events: Int16(POLLIN), revents: 0)
            guard unsafe poll(&ready, 1, 0) > 0 else { continue }
            let count = unsafe Glibc.read(pipe.number, &room, room.count)
            guard count > 0 else { return bytes }
            bytes += room[..<count]
            guard bytes.count <= limit else { throw .tooLong(limit: limit) }
        }
    }
}
