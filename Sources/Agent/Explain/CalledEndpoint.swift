import Kinesis
import Platform

/// An address that the agent will call, and what for.
public struct CalledEndpoint: Equatable, Sendable {
    public var service: String
    public var url: String
    public var purpose: String

    /// All of a configuration's, without calling any.
    static func all(of output: Configuration.Output, _ environment: @escaping (String) -> String?) -> [CalledEndpoint] {
        guard output.endpoint != .embedded else {
            let purpose = "everything; made by the agent at its start, on loopback"
            return [CalledEndpoint(service: "kinesis", url: "the embedded Kinesis", purpose: purpose)]
        }
        let endpoint = KinesisEndpoint(output)
        var all: [CalledEndpoint] = []
        if endpoint.controlURL == endpoint.url {
            all.append(.init(service: "kinesis", url: endpoint.url, purpose: "records and shards"))
        } else {
            all.append(.init(service: "kinesis", url: endpoint.url, purpose: "records"))
            all.append(.init(service: "kinesis", url: endpoint.controlURL, purpose: "shards"))
        }
        if let proxy = proxy(of: output, environment) {
            all.append(.init(service: "proxy", url: proxy, purpose: "through it go Kinesis and STS, but for NO_PROXY"))
        }
        let trail = CredentialTrail(output, environment)
        for call in trail.calls + (output.roleARN.isEmpty ? [] : [trail.tokenService("to take on \(output.roleARN)")])
        where !all.contains(call) {
            all.append(call)
        }
        return all
    }
}

extension CalledEndpoint {
    /// Through what calls go, as curl finds it; without user and password.
    private static func proxy(of output: Configuration.Output, _ environment: (String) -> String?) -> String? {
        let names = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        let isOfEnvironment = KinesisEndpoint(output).url.hasPrefix("https://")
        let usual = isOfEnvironment ? names.lazy.compactMap(environment).first { !$0.isEmpty } : nil
        guard let proxy = output.proxy.isEmpty ? usual : output.proxy else { return nil }
        let start = proxy.firstRange(of: "://")?.upperBound ?? proxy.startIndex
        let host = proxy[start...].lastIndex(of: "@").map { proxy.index(after: $0) } ?? start
        return "\(start == proxy.startIndex ? "http://" : proxy[..<start])\(proxy[host...])"
    }
}

/// Which services are asked for a key: the way of `CredentialSource`, walked without asking.
private struct CredentialTrail {
    private let output: Configuration.Output
    private let environment: (String) -> String?
    private let files: SharedFiles
    private(set) var calls: [CalledEndpoint] = []

    init(_ output: Configuration.Output, _ environment: @escaping (String) -> String?) {
        self.output = output
        let environment: (String) -> String? = { name in environment(name).flatMap { $0.isEmpty ? nil : $0 } }
        self.environment = environment
        files = SharedFiles(environment)
        if output.profile.isEmpty {
            if environment("AWS_ACCESS_KEY_ID") != nil, environment("AWS_SECRET_ACCESS_KEY") != nil { return }
            if environment("AWS_WEB_IDENTITY_TOKEN_FILE") != nil {
                calls.append(tokenService("for the key of a web identity"))
                return
            }
        }
        let name = output.profile.isEmpty ? environment("AWS_PROFILE") ?? "default" : output.profile
        if follow(profile: name, []) { return }
        if askContainer() { return }
        askInstance()
    }

    func tokenService(_ purpose: String) -> CalledEndpoint {
        let endpoints = RegionalEndpoints(region: output.region, isFIPS: output.fips, isDualStack: output.dualStack)
        let url = RegionalEndpoints.override(of: "sts", environment) ?? endpoints.url(of: "sts")
        return CalledEndpoint(service: "sts", url: url, purpose: purpose)
    }

    /// Whether a profile says where the key is.
    private mutating func follow(profile name: String, _ path: [String]) -> Bool {
        guard !path.contains(name), let profile = files.profile(name) else { return false }
        if let role = profile["role_arn"] {
            if let source = profile["source_profile"], source != name { _ = follow(profile: source, path + [name]) }
            switch profile["credential_source"] {
            case "EcsContainer": _ = askContainer()
            case "Ec2InstanceMetadata": askInstance()
            default: break
            }
            calls.append(tokenService("to take on \(role) of the profile \(name)"))
            return true
        }
        return profile.keys != nil || profile.whole("credential_process") != nil
    }

    private mutating func askContainer() -> Bool {
        let purpose = "for the key of the task's or pod's role"
        if environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != nil {
            calls.append(.init(service: "container", url: "http://169.254.170.2", purpose: purpose))
        } else if let url = environment("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            // Its path may be a secret.
            let service = ServiceURL(url)
            let scheme = url.hasPrefix("https") ? "https" : "http"
            calls.append(.init(service: "container", url: "\(scheme)://\(service.host)", purpose: purpose))
        } else {
            return false
        }
        return true
    }

    private mutating func askInstance() {
        guard environment("AWS_EC2_METADATA_DISABLED")?.lowercased() != "true" else { return }
        let isIPv6 = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE")?.lowercased() == "ipv6"
        let usual = isIPv6 ? "http://[fd00:ec2::254]" : "http://169.254.169.254"
        let url = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT") ?? usual
        calls.append(.init(service: "instance metadata", url: url, purpose: "for the key of the instance's role"))
    }
}
