import CZlib

/// A gzip file, inflated from its start on: any number of members, in bounded memory.
@safe
public final class GzipFile {
    private let file: ReadableFile
    private let stream: UnsafeMutablePointer<z_stream>
    private let room: UnsafeMutableRawBufferPointer
    private var offset: UInt64 = 0
    private var isBetweenMembers = false

    /// Why it gives no more.
    public enum Fault: Error, Equatable, CustomStringConvertible {
        case system(SystemError)
        /// It ends too early, or is not gzip's work.
        case damaged(String)

        public var description: String {
            switch self {
            case .system(let error): "\(error)"
            case .damaged(let reason): "is a damaged .gz: \(reason)"
            }
        }
    }

    public init(_ path: String) throws(Fault) {
        do { file = try ReadableFile(path) } catch { throw .system(error) }
        unsafe stream = .allocate(capacity: 1)
        unsafe stream.initialize(to: z_stream())
        unsafe room = .allocate(byteCount: 64 << 10, alignment: 16)
        // 15 bits of window, and a gzip header.
        let result = unsafe czlib_inflate_init(stream, 15 + 16)
        precondition(result == Z_OK, "zlib has no memory")
    }

    deinit {
        unsafe inflateEnd(stream)
        unsafe stream.deallocate()
        unsafe room.deallocate()
    }

    /// The next bytes, `count` at most; none at the end.
    public func bytes(_ count: Int) throws(Fault) -> [UInt8] {
        var failure: Fault?
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { room, used in
            do throws(Fault) { used = unsafe try read(into: UnsafeMutableRawBufferPointer(room)) } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return bytes
    }

    /// Inflates the next bytes into `out` and returns how many; 0 at the end.
    private func read(into out: UnsafeMutableRawBufferPointer) throws(Fault) -> Int {
        guard out.count > 0 else { return 0 }
        unsafe stream.pointee.next_out = out.baseAddress!.assumingMemoryBound(to: UInt8.self)
        unsafe stream.pointee.avail_out = UInt32(out.count)
        while unsafe stream.pointee.avail_out == UInt32(out.count) {
            if unsafe stream.pointee.avail_in == 0 {
                let count: Int
                do { count = unsafe try file.read(into: room, at: offset) } catch { throw .system(error) }
                if count == 0 {
                    if isBetweenMembers { return 0 }
                    throw .damaged("it ends in the middle")
                }
                offset += UInt64(count)
                unsafe stream.pointee.next_in = room.baseAddress!.assumingMemoryBound(to: UInt8.self)
                unsafe stream.pointee.avail_in = UInt32(count)
            }
            // gzip pads with zeros on some media, and whatever else follows a member is none.
            if isBetweenMembers, unsafe stream.pointee.next_in.pointee != 0x1f { return 0 }
            isBetweenMembers = false
            switch unsafe inflate(stream, Z_NO_FLUSH) {
            case Z_OK, Z_BUF_ERROR: break
            case Z_STREAM_END:
                unsafe _ = inflateReset(stream)
                isBetweenMembers = true
            default:
                throw .damaged(
                    unsafe stream.pointee.msg.map { unsafe String(cString: $0) } ?? "its data is not deflate's"
                )
            }
        }
        return unsafe out.count - Int(stream.pointee.avail_out)
    }
}
