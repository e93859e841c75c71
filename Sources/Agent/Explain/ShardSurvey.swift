import Bytes
import Kinesis
import Platform

/// The shards of the stream, as far as they can be seen from here.
public enum ShardSurvey: Equatable, Sendable {
    case seen(count: Int)
    /// Why nobody answered, or not with shards.
    case notReachable(String)
    /// Why nobody was asked.
    case notAsked(String)

    /// What one shard takes in a second.
    static let bytesPerSecond = Limits.shardBytesPerSecond
    static let recordsPerSecond = Limits.shardRecordsPerSecond

    /// Asks Kinesis, for some seconds at most a call.
    static func ask(_ output: Configuration.Output) -> ShardSurvey {
        guard output.endpoint != .embedded else {
            return .notAsked("the embedded Kinesis makes 4 when the agent starts")
        }
        let endpoint = KinesisEndpoint(output)
        var options = HTTPClient.Options(url: endpoint.url)
        options.connectTimeout = min(output.connectTimeout, .seconds(3))
        options.timeout = min(output.timeout, .seconds(5))
        options.maxConnections = 1
        options.caFile = output.caFile.isEmpty ? nil : output.caFile
        options.proxy = output.httpProxy
        let wire: WireChoice =
            switch output.wire {
            case .auto: WireChoice()
            case .cbor: WireChoice(forced: .cbor)
            case .json: WireChoice(forced: .json)
            }
        let caller = KinesisCaller(
            endpoint,
            stream: output.stream,
            options: options,
            wire: wire,
            credentials: CredentialSource(output)
        )
        var loader = ShardMapLoader(stream: output.stream, chance: 0)
        while let parameters = loader.nextCall(now: .now) {
            do {
                let (value, input) = try caller.call("ListShards", parameters)
                switch loader.take(value, input.span, now: .now) {
                case .more: continue
                case .map(let map, _, _): return .seen(count: map.count)
                case .unusable(let reason): return .notReachable("the list of shards cannot be used: \(reason)")
                }
            } catch { return .notReachable("\(error)") }
        }
        return .notReachable("the list of shards has no end")
    }
}
