import CLinux
import Glibc

/// A thread with a name, which its starter must join, once.
public final class Thread: Sendable {
    private let thread: pthread_t

    /// Starts `body` on a new thread.
    ///
    /// - Parameter name: what `ps -L` and `top -H` show; 15 bytes at most.
    public init(_ name: String, _ body: @escaping @Sendable () -> Void) {
        var thread = pthread_t()
        let start = unsafe Unmanaged.passRetained(Start(name: name, body: body))
        let failed = unsafe pthread_create(
            &thread,
            nil,
            { context in
                let start = unsafe Unmanaged<Start>.fromOpaque(context!).takeRetainedValue()
                unsafe clinux_name_thread(start.name)
                start.body()
                return nil
            },
            start.toOpaque()
        )
        precondition(failed == 0, "the system has no thread left")
        self.thread = thread
    }

    /// Names the calling thread, which somebody else has started.
    public static func nameCurrent(_ name: String) { unsafe clinux_name_thread(name) }

    /// Waits until the thread has ended.
    public func join() { _ = pthread_join(thread, nil) }

    private final class Start: Sendable {
        let name: String
        let body: @Sendable () -> Void
        init(name: String, body: @escaping @Sendable () -> Void) { (self.name, self.body) = (name, body) }
    }
}
