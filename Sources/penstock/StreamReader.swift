import Agent
import Kinesis
import Platform

/// Reads a stream shard by shard through the plain API: for commands, without leases.
struct StreamReader {
    private let caller: KinesisCaller
    private let stream: StreamName

    /// Where to begin.
    enum Start {
        case trimHorizon
        case latest
        case at(milliseconds: Int64)
    }

    struct Record {
        var partitionKey: [UInt8]
        var sequenceNumber: String
        var data: [UInt8]
    }

    struct Page {
        var records: [Record]
        /// Where to go on; nil at the end of a closed shard.
        var next: String?
        /// At that end: what the shard became.
        var children: [ShardWalk.Member]
        var millisecondsBehind: Int64
    }

    init(
        _ endpoint: KinesisEndpoint,
        stream: StreamName,
        credentials: CredentialSource,
        proxy: HTTPClient.Proxy = .environment
    ) {
        self.stream = stream
        var options = HTTPClient.Options(url: endpoint.url)
        options.timeout = .seconds(30)
        options.maxConnections = 2
        (options.proxy, options.caFile) = (proxy, credentials.caFile)
        caller = KinesisCaller(
            endpoint,
            stream: stream,
            options: options,
            wire: WireChoice(),
            credentials: credentials
        )
    }

    /// Every shard that the stream still has records of, closed ones too.
    func shards() throws(CallFailure) -> [ShardWalk.Member] {
        var shards: [ShardWalk.Member] = []
        var token: String?
        repeat {
            let (value, input) = try caller.call(
                "ListShards",
                token.map { .object(["NextToken": .text($0)]) } ?? .object([stream.member: .text(stream.text)])
            )
            for shard in value["Shards"]?.list ?? [] {
                let parents = ["ParentShardId", "AdjacentParentShardId"].compactMap { shard[$0] }
                shards.append(try Self.member(shard, parents, input.span))
            }
            token = value["NextToken"]?.text(in: input.span)
        } while token != nil
        return shards
    }

    /// A shard as ListShards and GetRecords tell of it.
    private static func member(
        _ shard: WireValue,
        _ parents: [WireValue],
        _ input: Span<UInt8>
    ) throws(CallFailure) -> ShardWalk.Member {
        func id(_ value: WireValue?) -> ShardID? { value?.text(in: input).flatMap(ShardID.init) }
        func hash(_ name: String) -> HashKey? {
            shard["HashKeyRange"]?[name]?.text(in: input).flatMap(HashKey.init(decimal:))
        }
        guard let name = id(shard["ShardId"]), let start = hash("StartingHashKey"), let end = hash("EndingHashKey"),
            start <= end
        else { throw .distrusted("the answer has a shard that cannot be read") }
        let isOpen = shard["SequenceNumberRange"]?["EndingSequenceNumber"]?.text(in: input) == nil
        return .init(Shard(id: name, range: start...end, isOpen: isOpen), parents: parents.compactMap { id($0) })
    }

    func iterator(of shard: ShardID, from start: Start) throws(CallFailure) -> String {
        let (type, time): (String, WireValue?) =
            switch start {
            case .trimHorizon: ("TRIM_HORIZON", nil)
            case .latest: ("LATEST", nil)
            case .at(let milliseconds): ("AT_TIMESTAMP", .time(milliseconds: milliseconds))
            }
        let (value, input) = try caller.call(
            "GetShardIterator",
            .object([
                stream.member: .text(stream.text), "ShardId": .text("\(shard)"), "ShardIteratorType": .text(type),
                "Timestamp": time,
            ])
        )
        guard let iterator = value["ShardIterator"]?.text(in: input.span) else {
            throw .distrusted("GetShardIterator answered no iterator")
        }
        return iterator
    }

    /// The next records of a shard; waits and tries again when the shard is read too often.
    func page(at iterator: String) throws(CallFailure) -> Page {
        var backoff = Backoff(first: .milliseconds(200), longest: .seconds(2))
        for _ in 0..<20 {
            do {
                let answer = try caller.call("GetRecords", .object(["ShardIterator": .text(iterator)]))
                return try Self.page(answer, caller.lastFormat)
            } catch {
                guard case .service(let fault) = error, fault.kind == .throttled else { throw error }
                Machine.sleep(backoff.next(chance: .random(in: 0...1)))
            }
        }
        throw .distrusted("GetRecords is throttled and stays so")
    }

    private static func page(
        _ answer: (value: WireValue, input: [UInt8]),
        _ format: WireFormat
    ) throws(CallFailure) -> Page {
        let input = answer.input.span
        var records: [Record] = []
        for record in answer.value["Records"]?.list ?? [] {
            guard let data = record["Data"]?.data(in: input, as: format) else {
                throw .distrusted("GetRecords answered a record without data")
            }
            records.append(
                Record(
                    partitionKey: Array((record["PartitionKey"]?.text(in: input) ?? "").utf8),
                    sequenceNumber: record["SequenceNumber"]?.text(in: input) ?? "",
                    data: data
                )
            )
        }
        var children: [ShardWalk.Member] = []
        for child in answer.value["ChildShards"]?.list ?? [] {
            children.append(try member(child, child["ParentShards"]?.list ?? [], input))
        }
        return Page(
            records: records,
            next: answer.value["NextShardIterator"]?.text(in: input),
            children: children,
            millisecondsBehind: answer.value["MillisBehindLatest"]?.integer ?? 0
        )
    }
}
