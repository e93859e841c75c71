import CLinux
import Glibc

/// The terminal behind standard output and input, taken over for a full screen: given back as it was when this ends.
public struct Terminal: ~Copyable {
    private var before: termios

    /// Nil where either is no terminal.
    public init?() {
        guard isatty(0) == 1, isatty(1) == 1 else { return nil }
        var settings = termios()
        guard unsafe tcgetattr(0, &settings) == 0 else { return nil }
        before = settings
        // Keys come one by one and unseen; signals by keys stay.
        settings.c_lflag &= ~tcflag_t(ICANON | ECHO)
        unsafe _ = tcsetattr(0, TCSAFLUSH, &settings)
        // The other screen, without a cursor and without wrapping.
        StandardOutput.write("\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l")
    }

    deinit {
        StandardOutput.write("\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l")
        var before = before
        unsafe _ = tcsetattr(0, TCSAFLUSH, &before)
    }

    /// Rows and columns now.
    public var size: (rows: Int, columns: Int) {
        let size = clinux_terminal_size(1)
        guard size > 0, size >> 16 > 0, size & 0xffff > 0 else { return (24, 80) }
        return (Int(size >> 16), Int(size & 0xffff))
    }

    /// Waits until a key is hit, `other` is readable, or `most` has passed.
    public func wait(or other: Int32, atMost most: Duration) {
        var polled = (
            pollfd(fd: 0, events: Int16(POLLIN), revents: 0), pollfd(fd: other, events: Int16(POLLIN), revents: 0)
        )
        unsafe withUnsafeMutableBytes(of: &polled) {
            unsafe _ = poll($0.assumingMemoryBound(to: pollfd.self).baseAddress, 2, most.milliseconds)
        }
    }

    /// The next key that was hit; nil where there is none, and `q` where the terminal is gone.
    public func key() -> UInt8? {
        var polled = pollfd(fd: 0, events: Int16(POLLIN), revents: 0)
        guard unsafe poll(&polled, 1, 0) > 0 else { return nil }
        var byte: UInt8 = 0
        return unsafe read(0, &byte, 1) == 1 ? byte : UInt8(ascii: "q")
    }
}
