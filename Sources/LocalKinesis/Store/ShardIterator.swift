internal import Bytes
internal import Kinesis

/// What a shard iterator's text stands for: a place in a shard, and when it was given out.
struct ShardIterator: Equatable, Sendable {
    var stream: String
    var shard: ShardID
    /// Seconds since 1970 at which the shard was created: a stream made anew under an old name has other records.
    var created: Int64
    /// The index of the next record to read.
    var position: UInt64
    /// Milliseconds since 1970 at which it was given out.
    var issued: Int64

    init(stream: String, shard: ShardID, created: Int64, position: UInt64, issued: Int64) {
        (self.stream, self.shard, self.created, self.position) = (stream, shard, created, position)
        self.issued = issued
    }

    /// Opaque to clients: base64.
    var text: String {
        OpaqueText.encode(["iterator", "\(issued)", "\(shard.number)", "\(created)", "\(position)", stream])
    }

    init?(text: String) {
        guard let parts = OpaqueText.decode(text, count: 6), parts[0] == "iterator", let issued = Int64(parts[1]),
            let shard = UInt64(parts[2]), let created = Int64(parts[3]), let position = UInt64(parts[4]),
            issued >= 0, !parts[5].isEmpty
        else { return nil }
        self.init(
            stream: parts[5],
            shard: ShardID(number: shard),
            created: created,
            position: position,
            issued: issued
        )
    }
}

/// Fields in a text that clients hand back unread: iterators and page tokens.
enum OpaqueText {
    static func encode(_ fields: [String]) -> String {
        var out = ByteWriter()
        Base64.encode(Array(fields.joined(separator: "/").utf8).span, to: &out)
        return String(decoding: out.array, as: UTF8.self)
    }

    /// - Parameter count: fields; the last may contain slashes.
    static func decode(_ text: String, count: Int) -> [String]? {
        guard let bytes = Base64.decode(Array(text.utf8).span) else { return nil }
        let fields = String(decoding: bytes, as: UTF8.self)
            .split(separator: "/", maxSplits: count - 1, omittingEmptySubsequences: false)
        return fields.count == count ? fields.map(String.init) : nil
    }
}
