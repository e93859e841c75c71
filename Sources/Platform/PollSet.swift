internal import Glibc

// Concurrency: belongs to the thread that waits.

/// A bell and a few descriptors that one thread waits for together, without an allocation a wait.
@safe
public struct PollSet: ~Copyable {
    private let bell: Doorbell
    private let polled: UnsafeMutableBufferPointer<pollfd>

    public init(_ bell: Doorbell, _ descriptors: [Int32]) {
        self.bell = bell
        unsafe polled = .allocate(capacity: descriptors.count + 1)
        unsafe polled.initializeElement(at: 0, to: pollfd(fd: bell.number, events: Int16(POLLIN), revents: 0))
        for (index, number) in descriptors.enumerated() {
            unsafe polled.initializeElement(at: index + 1, to: pollfd(fd: number, events: Int16(POLLIN), revents: 0))
        }
    }

    deinit { unsafe polled.deallocate() }

    /// Says whether to wait for a descriptor.
    public func want(_ index: Int, _ wanted: Bool) {
        let number = unsafe polled[index + 1].fd
        // poll() leaves out what is negative.
        if (number >= 0) != wanted { unsafe polled[index + 1].fd = ~number }
    }

    /// Waits until the bell rings, one of the wanted descriptors has something, or `most` has passed; nil: for ever.
    public func wait(atMost most: Duration?) {
        unsafe _ = poll(polled.baseAddress, nfds_t(polled.count), most?.milliseconds ?? -1)
    }
}
