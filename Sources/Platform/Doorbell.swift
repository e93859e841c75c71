import CLinux
import Glibc
import Synchronization

/// Wakes one sleeping thread: rung by any thread, waited on by its owner.
///
/// A ring costs one atomic load while the owner is awake, and a system call only when it sleeps. The owner says that it
/// is about to sleep, looks once more for work, and only then waits: a ring in between is not missed.
public final class Doorbell: Sendable {
    private let event: Descriptor
    private let asleep = Atomic<Bool>(false)

    public init() throws(SystemError) { event = Descriptor(try check("eventfd", nil, clinux_eventfd())) }

    /// The descriptor to wait on, readable once the bell has rung.
    public var number: Int32 { event.number }

    /// Wakes the owner if it sleeps.
    ///
    /// Publish what it should see first.
    public func ring() {
        // A full fence: the publication must be visible before we look whether the owner sleeps.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        guard asleep.load(ordering: .relaxed), asleep.exchange(false, ordering: .relaxed) else { return }
        ringAlways()
    }

    /// Whether the owner waits, or is about to.
    public var isOwnerAsleep: Bool {
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        return asleep.load(ordering: .relaxed)
    }

    /// Announces that the owner will wait.
    ///
    /// Look for work again between this and waiting.
    public func prepareToSleep() {
        asleep.store(true, ordering: .relaxed)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
    }

    /// Ends the wait: rings that have been heard are forgotten.
    public func wake() {
        asleep.store(false, ordering: .relaxed)
        var count: UInt64 = 0
        unsafe _ = read(event.number, &count, 8)
    }

    /// Leaves a ring for an owner who may not have said that it sleeps.
    public func ringAlways() {
        var one: UInt64 = 1
        unsafe _ = write(event.number, &one, 8)
    }

    /// Waits until rung, until another descriptor is readable, or until `most` has passed; without an allocation.
    ///
    /// - Parameters:
    ///   - descriptor: another descriptor to wait for; negative for none.
    ///   - third: one more.
    ///   - most: nil waits for ever.
    /// - Returns: whether the bell was rung.
    @discardableResult
    public func wait(or descriptor: Int32 = -1, or third: Int32 = -1, atMost most: Duration? = nil) -> Bool {
        var polled = (
            pollfd(fd: event.number, events: Int16(POLLIN), revents: 0),
            pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: third, events: Int16(POLLIN), revents: 0)
        )
        unsafe withUnsafeMutableBytes(of: &polled) {
            unsafe _ = poll($0.assumingMemoryBound(to: pollfd.self).baseAddress, 3, most?.milliseconds ?? -1)
        }
        return polled.0.revents != 0
    }
}

extension Duration {
    /// Whole milliseconds, rounded up, for calls that wait: at least 0, at most an Int32.
    public var milliseconds: Int32 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        guard seconds < 2_000_000 else { return 2_000_000_000 }
        return Int32(seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
    }

    /// Seconds with their fraction.
    public var inSeconds: Double { self / .seconds(1) }
}
