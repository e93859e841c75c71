internal import CLinux
internal import Glibc

// Concurrency: belongs to its collector's thread.

/// Receives many datagrams with one call, each into a slot of its user's memory.
@safe
public struct DatagramBatch: ~Copyable {
    private let batch: OpaquePointer
    private let lengths: UnsafePointer<UInt32>
    public let most: Int
    private let overflow: Int
    private var stride = 0
    private var head = 0

    /// - Parameters:
    ///   - most: datagrams of a call.
    ///   - longest: bytes of one that are kept, whatever the slots.
    ///   - tellsOrigin: whether it shall be known who sent each, and when it came.
    public init(most: Int, longest: Int, tellsOrigin: Bool) {
        (self.most, overflow) = (most, longest)
        // There is no agent without memory.
        unsafe batch = clinux_datagrams_make(UInt32(most), longest, tellsOrigin ? 1 : 0)!
        unsafe lengths = clinux_datagrams_lengths(batch)
    }

    deinit { unsafe clinux_datagrams_free(batch) }

    /// Receives what waits in a socket.
    ///
    /// - Parameters:
    ///   - slots: memory for them; the bytes of the n-th begin at n times `stride`, behind `head` bytes.
    /// - Returns: how many came; 0 if none waits.
    public mutating func receive(
        from socket: DatagramSocket,
        into slots: UnsafeMutableRawBufferPointer,
        stride: Int,
        head: Int
    ) throws(SystemError) -> Int {
        let count = min(most, slots.count / stride)
        (self.stride, self.head) = (stride, head)
        while true {
            let result = unsafe clinux_datagrams_receive(
                batch,
                socket.number,
                slots.baseAddress,
                stride,
                head,
                UInt32(count)
            )
            if result >= 0 { return Int(result) }
            switch -result {
            case EINTR: continue
            case EAGAIN: return 0
            // What an earlier answer of ours met on its way: nothing that was sent to us.
            case ECONNREFUSED, EHOSTUNREACH, ENETUNREACH: continue
            case let code: throw SystemError(call: "recvmmsg", code: code)
            }
        }
    }

    /// Bytes of the datagram, also if there was no room for all of them.
    @inline(__always)
    public func length(_ index: Int) -> Int {
        precondition(index < most)
        return unsafe Int(lengths[index])
    }

    /// Whether the slot has all of it.
    public func fits(_ index: Int) -> Bool { length(index) <= stride - head }

    /// Lends the bytes of a datagram, which are put together in `memory` if its slot has only some of them.
    ///
    /// They are fewer than its length if it was longer than its slot and its overflow.
    public func withBytes<Result>(
        _ index: Int,
        of slots: UnsafeMutableRawBufferPointer,
        joinedIn memory: inout [UInt8],
        _ body: (Span<UInt8>) -> Result
    ) -> Result {
        let (count, inSlot) = (min(length(index), stride - head + overflow), stride - head)
        let slot = unsafe UnsafeRawBufferPointer(
            start: slots.baseAddress! + index * stride + head,
            count: min(count, inSlot)
        )
        guard count > inSlot else { return unsafe body(Span(_unsafeBytes: slot)) }
        let rest = unsafe UnsafeRawBufferPointer(
            start: clinux_datagrams_overflow(batch, UInt32(index)),
            count: count - inSlot
        )
        memory.removeAll(keepingCapacity: true)
        unsafe memory.append(contentsOf: slot)
        unsafe memory.append(contentsOf: rest)
        return body(memory.span)
    }

    /// Moves the datagrams together, each behind its length in four bytes, which its slot's head must have room for.
    ///
    /// Every slot must have all of its datagram.
    /// - Returns: bytes used.
    @inline(__always)
    public func pack(_ count: Int, in slots: UnsafeMutableRawBufferPointer) -> Int {
        precondition(head == 4 && count <= most)
        let base = slots.baseAddress!
        var out = unsafe base
        for index in 0..<count {
            let length = unsafe lengths[index]
            let from = unsafe base + index * stride + 4
            unsafe out.storeBytes(of: length, as: UInt32.self)
            unsafe memmove(out + 4, from, Int(length))
            unsafe out += 4 + Int(length)
        }
        return unsafe out - base
    }

    /// Gives memory that only long datagrams needed back to the system.
    public mutating func trim() { unsafe clinux_datagrams_trim(batch) }

    /// Bytes that the text of a sender takes at most.
    public static let longestSender = 64

    /// Who sent a datagram, written into `text`: an address in digits, or `uid:… pid:…` of a Unix socket's.
    ///
    /// - Returns: its length; 0 if it is not known.
    public func sender(_ index: Int, into text: UnsafeMutableRawBufferPointer) -> Int {
        precondition(text.count >= Self.longestSender && index < most)
        return unsafe Int(
            clinux_datagrams_sender(batch, UInt32(index), text.baseAddress!.assumingMemoryBound(to: CChar.self))
        )
    }

    /// When it came, in nanoseconds since 1970; 0 if it is not known.
    public func time(_ index: Int) -> Int64 {
        precondition(index < most)
        return unsafe clinux_datagrams_time(batch, UInt32(index))
    }
}
