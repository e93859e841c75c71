import CLinux

/// Waits for very many descriptors at once; each has a token of its user's choice.
///
/// Belongs to one thread. A descriptor is told of as long as it has something, and those that have take turns.
public struct Epoll: ~Copyable {
    private let descriptor: Descriptor
    private var tokens: [UInt64]

    /// - Parameter most: tokens that one `wait` brings, 128 at most.
    public init(most: Int = 128) throws(SystemError) {
        descriptor = Descriptor(try check("epoll_create", nil, clinux_epoll()))
        tokens = Array(repeating: 0, count: most)
    }

    public func add(_ number: Int32, token: UInt64) throws(SystemError) {
        _ = try check("epoll_ctl", nil, clinux_epoll_set(descriptor.number, number, 1, 1, 0, token))
    }

    /// Waits for `number` to take output instead of having input, or the other way round.
    public func change(_ number: Int32, token: UInt64, waitsForRoom: Bool) {
        _ = clinux_epoll_set(descriptor.number, number, 0, waitsForRoom ? 0 : 1, waitsForRoom ? 1 : 0, token)
    }

    /// Needless before a descriptor is closed that nobody else has.
    public func remove(_ number: Int32) { _ = clinux_epoll_remove(descriptor.number, number) }

    /// Waits until there is something, or `most` has passed (nil: for ever), and lends the tokens.
    public mutating func wait(atMost most: Duration?, _ body: (Span<UInt64>) -> Void) {
        let room = Int32(tokens.count)
        let count = unsafe tokens.withUnsafeMutableBufferPointer {
            unsafe clinux_epoll_wait(descriptor.number, $0.baseAddress, room, most?.milliseconds ?? -1)
        }
        body(tokens.span.extracting(..<Int(max(0, count))))
    }
}
