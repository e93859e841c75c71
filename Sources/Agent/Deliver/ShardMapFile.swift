package import Kinesis
import Platform

/// The last good shard map on disk: with it an agent starts, aggregates and spools while Kinesis cannot be reached.
package enum ShardMapFile {
    private static let version = 1

    package static func path(_ stateDirectory: String, _ output: String) -> String {
        stateDirectory + "/shards-" + Spool.plainName(output)
    }

    /// - Parameters:
    ///   - stream: the stream and where it is: the map of another is none.
    ///   - recordBytes: what the stream has told of its records' limit.
    package static func encode(_ map: ShardMap, of stream: String, recordBytes: Int? = nil) -> [UInt8] {
        let body = WireFormat.json.encode(
            .object([
                "stream": .text(stream), "recordBytes": recordBytes.map { .integer(Int64($0)) },
                "shards": .list(
                    map.shards.map { shard in
                        .object([
                            "id": .text(shard.id.description), "start": .text(shard.range.lowerBound.description),
                            "end": .text(shard.range.upperBound.description),
                        ])
                    }
                ),
            ])
        )
        return Array("penstock-shards \(version) \(SHA256.hexadecimal(of: body))\n".utf8) + body + [10]
    }

    /// The map at `path`; nil when there is none of this stream that can be read: Kinesis will tell.
    package static func load(_ path: String, of stream: String) -> ShardMap? {
        guard let (value, body) = read(path, of: stream) else { return nil }
        let shards = (value["shards"]?.list ?? []).compactMap { shard -> Shard? in
            func text(_ name: String) -> String? { shard[name]?.text(in: body.span) }
            guard let id = text("id").flatMap({ ShardID($0) }),
                let start = text("start").flatMap(HashKey.init(decimal:)),
                let end = text("end").flatMap(HashKey.init(decimal:)), start <= end
            else { return nil }
            return Shard(id: id, range: start...end)
        }
        return try? ShardMap(shards)
    }

    /// What the stream had told of its records' limit, beside that map.
    package static func recordBytes(_ path: String, of stream: String) -> Int? {
        guard let bytes = read(path, of: stream)?.value["recordBytes"]?.integer else { return nil }
        return (Limits.recordBytes...Limits.largestRecordBytes).contains(Int(bytes)) ? Int(bytes) : nil
    }

    private static func read(_ path: String, of stream: String) -> (value: WireValue, body: [UInt8])? {
        guard let bytes = try? Folder.read(path), let end = bytes.firstIndex(of: 10) else { return nil }
        let head = String(decoding: bytes[..<end], as: UTF8.self).split(separator: " ")
        let body = Array(bytes[(end + 1)...].dropLast())
        guard head.count == 3, head[0] == "penstock-shards", head[1] == "\(version)",
            SHA256.hexadecimal(of: body) == head[2], let value = try? WireFormat.json.read(body.span),
            value["stream"]?.text(in: body.span) == stream
        else { return nil }
        return (value, body)
    }
}
