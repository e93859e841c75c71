internal import Bytes
internal import CText

/// What the last senders say about themselves, as it is written: host, application, process and MSGID, and the peer.
///
/// A sender is known by the bytes of its message from the host on, up to its text or its structured data, 64 at most, and by
/// the peer's name, 40 bytes at most. Both are compared to the last byte, so that nothing depends on what was met before.
/// There are 512 entries, of which a sender has four where it may stand; if they are taken, one in turn makes room. Finding
/// one costs some 80 instructions, not finding it 70, however many there are. The memory, 160 KiB, is taken with the first
/// sender.
@safe
struct SenderCache: ~Copyable {
    typealias Kind = ctext_sender_kind

    private var table: UnsafeMutablePointer<ctext_sender>?
    private var turn: UInt32 = 0

    /// Stands for the place of a host that is not there.
    private static let noHost = 255

    /// Bytes that are read behind a head's start.
    static let window = Int(ctext_sender_window)

    /// A sender that was found, until another one is learned.
    @safe
    struct Found {
        fileprivate let entry: UnsafePointer<ctext_sender>

        /// Bytes from the host on, with the space behind them.
        @inline(__always) var headCount: Int { unsafe Int(entry.pointee.head_count) }
        /// The host's place in a message of which the head begins at `start`.
        @inline(__always)
        func host(_ start: Int) -> SyslogMessage.Part {
            let first = unsafe Int(entry.pointee.host_start)
            guard first != SenderCache.noHost else { return .init() }
            return unsafe .init(start &+ first, start &+ first &+ Int(entry.pointee.host_count))
        }
        /// What is written of its fields, and with the peer and the message's key.
        @inline(__always) var fieldCount: Int { unsafe Int(entry.pointee.field_count) }
        @inline(__always) var textCount: Int { unsafe Int(entry.pointee.text_count) }
    }

    init() {}

    deinit { unsafe table?.deallocate() }

    /// Writes what is known about the sender behind `text`, without counting it; nil if it is not known.
    ///
    /// - Parameters:
    ///   - opening: a message's first bytes.
    ///   - start: where its host begins, behind another byte; `window` bytes are there.
    @unsafe @inline(__always)
    func write(
        _ opening: Span<UInt8>,
        _ start: Int,
        _ kind: Kind,
        _ peer: Span<UInt8>,
        to place: UnsafeMutableRawPointer
    ) -> Found? {
        guard let table = unsafe table else { return nil }
        let entry = unsafe opening.withUnsafeBytes { bytes in
            unsafe peer.withUnsafeBytes { peer in
                unsafe ctext_sender_find(
                    table,
                    bytes.baseAddress.unsafelyUnwrapped + start,
                    kind,
                    peer.baseAddress,
                    peer.count,
                    place
                )
            }
        }
        return unsafe entry.map { unsafe Found(entry: $0) }
    }

    /// Learns how a sender was written, if its head is one that `write` looks for; costs some 200 instructions.
    ///
    /// - Parameters:
    ///   - start: as for `write`.
    ///   - end: where the text or the structured data begins.
    ///   - fields: what was written of the fields.
    ///   - rest: what was written of the peer, and the message's key.
    @inline(never)
    mutating func learn(
        _ opening: Span<UInt8>,
        _ start: Int,
        _ end: Int,
        _ kind: Kind,
        host: SyslogMessage.Part,
        _ peer: Span<UInt8>,
        fields: Span<UInt8>,
        rest: Span<UInt8>
    ) {
        // Of what names nobody there is nothing to find.
        guard end > start, fields.count + rest.count <= Int(ctext_sender_longest_text) else { return }
        turn &+= 1
        unsafe opening.withUnsafeBytes { bytes in
            unsafe peer.withUnsafeBytes { peer in
                let head = unsafe bytes.baseAddress.unsafelyUnwrapped + start
                guard unsafe ctext_sender_head_count(head, kind, peer.count) == end - start else { return }
                let entry = unsafe ctext_sender_replace(memory(), head, kind, peer.baseAddress, peer.count, turn)!
                unsafe (entry.pointee.field_count, entry.pointee.text_count) = (
                    UInt8(fields.count), UInt8(fields.count + rest.count)
                )
                unsafe (entry.pointee.host_start, entry.pointee.host_count) = (
                    host == .init() ? UInt8(Self.noHost) : UInt8(host.range.lowerBound - start), UInt8(host.range.count)
                )
                unsafe withUnsafeMutableBytes(of: &entry.pointee.text) { text in
                    unsafe fields.withUnsafeBytes { unsafe text.copyMemory(from: $0) }
                    let behind = unsafe UnsafeMutableRawBufferPointer(rebasing: text[fields.count...])
                    unsafe rest.withUnsafeBytes { unsafe behind.copyMemory(from: $0) }
                }
            }
        }
    }

    @unsafe
    private mutating func memory() -> UnsafeMutablePointer<ctext_sender> {
        if let table = unsafe table { return unsafe table }
        let count = Int(ctext_sender_count)
        let size = count * MemoryLayout<ctext_sender>.stride
        let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 64)
        unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: size)
        let new = unsafe memory.bindMemory(to: ctext_sender.self, capacity: count)
        unsafe table = new
        return unsafe new
    }
}
