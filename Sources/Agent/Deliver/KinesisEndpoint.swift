public import Kinesis

/// Where Kinesis is, and how to reach it.
public struct KinesisEndpoint: Sendable, Equatable {
    /// Where records are put and read.
    let data: ServiceURL
    /// Where shards are listed, and everything else.
    let control: ServiceURL
    public let region: String

    public init(url: String, region: String) {
        (data, control, self.region) = (ServiceURL(url), ServiceURL(url), region)
    }

    /// The region's public endpoint; for a stream that is named by its ARN, the endpoints of its account.
    public init(_ endpoints: RegionalEndpoints, stream: StreamName) {
        region = endpoints.region
        if case .arn(let arn) = stream {
            let parts = arn.split(separator: ":", omittingEmptySubsequences: false)
            let account = parts.count == 6 ? String(parts[4]) : ""
            data = ServiceURL(endpoints.kinesis(account: account, .data))
            control = ServiceURL(endpoints.kinesis(account: account, .control))
        } else {
            data = ServiceURL(endpoints.url(of: "kinesis"))
            control = data
        }
    }

    /// `https://kinesis.eu-west-1.amazonaws.com`.
    public var url: String { data.text }

    /// Where the stream itself is asked about: the same, but for a stream that is named by its ARN.
    public var controlURL: String { control.text }

    /// Where an operation is called; which are which stands in the service's model.
    func url(of operation: String) -> ServiceURL {
        switch operation {
        case "PutRecord", "PutRecords", "GetRecords", "GetShardIterator", "SubscribeToShard": data
        default: control
        }
    }
}
