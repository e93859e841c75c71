/// A part of AWS with domains and accounts of its own.
public struct Partition: Equatable, Sendable {
    /// As ARNs name it: `aws`, `aws-cn`.
    public let name: String
    /// What its regions' names begin with.
    let prefix: String
    let domain: String
    let dualStackDomain: String
    /// Whether an account has endpoints of its own.
    var hasAccountEndpoints = true
    /// Whether its usual endpoints are the FIPS ones.
    var isAlwaysFIPS = false

    // botocore 1.43's partitions.json and the rule set of Kinesis, which Tests/Interop compares with this table.
    static let all = [
        Partition(
            name: "aws-cn",
            prefix: "cn-",
            domain: "amazonaws.com.cn",
            dualStackDomain: "api.amazonwebservices.com.cn"
        ),
        Partition(
            name: "aws-us-gov",
            prefix: "us-gov-",
            domain: "amazonaws.com",
            dualStackDomain: "api.aws",
            isAlwaysFIPS: true
        ),
        Partition(
            name: "aws-eusc",
            prefix: "eusc-",
            domain: "amazonaws.eu",
            dualStackDomain: "api.amazonwebservices.eu"
        ),
        Partition(
            name: "aws-iso",
            prefix: "us-iso-",
            domain: "c2s.ic.gov",
            dualStackDomain: "api.aws.ic.gov",
            hasAccountEndpoints: false
        ),
        Partition(
            name: "aws-iso-b",
            prefix: "us-isob-",
            domain: "sc2s.sgov.gov",
            dualStackDomain: "api.aws.scloud",
            hasAccountEndpoints: false
        ),
        Partition(
            name: "aws-iso-e",
            prefix: "eu-isoe-",
            domain: "cloud.adc-e.uk",
            dualStackDomain: "api.cloud-aws.adc-e.uk"
        ),
        Partition(
            name: "aws-iso-f",
            prefix: "us-isof-",
            domain: "csp.hci.ic.gov",
            dualStackDomain: "api.aws.hci.ic.gov"
        ),
        Partition(name: "aws", prefix: "", domain: "amazonaws.com", dualStackDomain: "api.aws"),
    ]

    /// The partition that a region lies in; a region that nobody knows yet lies in `aws`.
    public init(region: String) { self = Self.all.first { region.hasPrefix($0.prefix) }! }

    private init(
        name: String,
        prefix: String,
        domain: String,
        dualStackDomain: String,
        hasAccountEndpoints: Bool = true,
        isAlwaysFIPS: Bool = false
    ) {
        (self.name, self.prefix, self.domain, self.dualStackDomain) = (name, prefix, domain, dualStackDomain)
        (self.hasAccountEndpoints, self.isAlwaysFIPS) = (hasAccountEndpoints, isAlwaysFIPS)
    }
}

/// The addresses of AWS services in a region.
public struct RegionalEndpoints: Equatable, Sendable {
    public var region: String
    /// Endpoints whose cryptography is validated by FIPS 140.
    public var isFIPS: Bool
    /// Endpoints that have IPv6 addresses, too.
    public var isDualStack: Bool

    public init(region: String, isFIPS: Bool = false, isDualStack: Bool = false) {
        (self.region, self.isFIPS, self.isDualStack) = (region, isFIPS, isDualStack)
    }

    /// The address that the environment names for a service in place of AWS's, as the SDKs read it.
    public static func override(of service: String, _ environment: (String) -> String?) -> String? {
        guard environment("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")?.lowercased() != "true" else { return nil }
        return ["AWS_ENDPOINT_URL_" + service.uppercased(), "AWS_ENDPOINT_URL"].lazy.compactMap(environment)
            .first { !$0.isEmpty }
    }

    /// `https://kinesis.eu-west-1.amazonaws.com`.
    public func url(of service: String) -> String {
        let partition = Partition(region: region)
        let isNamed = isFIPS && (isDualStack || !partition.isAlwaysFIPS)
        return "https://\(service)\(isNamed ? "-fips" : "").\(region).\(domain(of: partition))"
    }

    /// What a call to Kinesis is about: its records, or the stream.
    public enum Plane: String, Sendable { case data, control }

    /// `https://123456789012.data-kinesis.eu-west-1.amazonaws.com`; the region's where accounts have none.
    public func kinesis(account: String, _ plane: Plane) -> String {
        let partition = Partition(region: region)
        guard partition.hasAccountEndpoints, !account.isEmpty else { return url(of: "kinesis") }
        let fips = isFIPS ? "-fips" : ""
        return "https://\(account).\(plane.rawValue)-kinesis\(fips).\(region).\(domain(of: partition))"
    }

    private func domain(of partition: Partition) -> String {
        isDualStack ? partition.dualStackDomain : partition.domain
    }
}

/// The parts of an address that a request is signed with.
public struct ServiceURL: Equatable, Sendable, CustomStringConvertible {
    public let text: String

    public init(_ text: String) { self.text = text }

    /// What stands in the Host header: a port only where it is not the scheme's own.
    public var host: String {
        let usual = text.hasPrefix("https") ? ":443" : ":80"
        let host = afterScheme.prefix { $0 != "/" && $0 != "?" }
        return String(host.hasSuffix(usual) ? host.dropLast(usual.count) : host)
    }

    /// The path, "/" where it has none.
    public var path: String {
        let path = afterScheme.drop { $0 != "/" && $0 != "?" }.prefix { $0 != "?" }
        return path.isEmpty ? "/" : String(path)
    }

    private var afterScheme: Substring { text.drop { $0 != "/" }.dropFirst(2) }

    public var description: String { text }
}
