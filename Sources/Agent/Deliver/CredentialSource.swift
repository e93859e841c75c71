public import Kinesis
public import Platform

/// Where an access key comes from, in the order of the AWS SDKs.
///
/// The first source that is set up is the one: if it fails no other is tried, so that nothing is written in the name of
/// somebody who was not meant.
public struct CredentialSource: Sendable {
    /// A profile of the shared files; empty: the environment first, then `AWS_PROFILE`, then `default`.
    public var profile: String
    /// A role to take on with what was found; empty: none.
    public var roleARN = ""
    public var externalID = ""
    /// Where STS is asked.
    public var endpoints = RegionalEndpoints(region: "us-east-1")
    /// How STS is reached.
    public var proxy = HTTPClient.Proxy.environment
    public var caFile: String?
    private let environment: @Sendable (String) -> String?

    public init(profile: String = "", environment: @escaping @Sendable (String) -> String? = Machine.environment) {
        self.profile = profile
        self.environment = { name in environment(name).flatMap { $0.isEmpty ? nil : $0 } }
    }

    /// No keys, and what was tried.
    public struct Missing: Error, CustomStringConvertible {
        public var description: String
    }

    /// Looks in every place in turn, and waits for the answers; files are read again each time.
    public func load() throws(Missing) -> TemporaryKeys { try load(Self.patience()) }

    func load(_ patience: Patience) throws(Missing) -> TemporaryKeys {
        let lookup = CredentialLookup(self, environment, patience)
        typealias Step = (name: String, keys: () throws(CredentialFault) -> TemporaryKeys)
        let ofEnvironment: [Step] = [
            ("environment", lookup.environmentKeys),
            ("web identity", lookup.webIdentityKeys),
        ]
        let ofMachine: [Step] = [
            ("profile \(lookup.profileName)", lookup.profileKeys),
            ("container", lookup.containerKeys),
            ("instance metadata", lookup.instanceKeys),
        ]
        var tried: [String] = []
        for step in (profile.isEmpty ? ofEnvironment : []) + ofMachine {
            do { return try lookup.takeOnRole(with: try step.keys()) } catch {
                switch error {
                case .absent(let reason): tried.append("\(step.name): \(reason)")
                case .failed(let reason):
                    throw Missing(description: (tried + ["\(step.name): \(reason)"]).joined(separator: "; "))
                }
            }
        }
        throw Missing(description: tried.joined(separator: "; "))
    }

    /// The region that the profile names, or else the one this instance is in.
    public func region() -> String? {
        let lookup = CredentialLookup(self, environment, Self.patience())
        if let region = lookup.profile?["region"] { return region }
        return try? lookup.instance().region()
    }

    /// Whether the environment or the shared files have keys, without asking anybody.
    public var hasKeysAtHand: Bool {
        let lookup = CredentialLookup(self, environment, Self.patience())
        return (try? lookup.environmentKeys()) != nil || lookup.profile?.keys != nil
    }

    private static func patience() -> Patience {
        guard let bell = try? Doorbell() else { preconditionFailure("the system has no descriptor left") }
        return Patience(bell: bell) { false }
    }
}

/// One walk through the sources.
private struct CredentialLookup {
    let source: CredentialSource
    let environment: (String) -> String?
    let patience: Patience
    let files: SharedFiles

    init(_ source: CredentialSource, _ environment: @escaping (String) -> String?, _ patience: Patience) {
        (self.source, self.environment, self.patience) = (source, environment, patience)
        files = SharedFiles(environment)
    }

    var profileName: String { source.profile.isEmpty ? environment("AWS_PROFILE") ?? "default" : source.profile }

    var profile: SharedFiles.Profile? { files.profile(profileName) }

    // MARK: the sources, in their order

    func environmentKeys() throws(CredentialFault) -> TemporaryKeys {
        guard let id = environment("AWS_ACCESS_KEY_ID") else { throw .absent("AWS_ACCESS_KEY_ID is not set") }
        guard let secret = environment("AWS_SECRET_ACCESS_KEY") else {
            throw .absent("AWS_SECRET_ACCESS_KEY is not set")
        }
        let token = environment("AWS_SESSION_TOKEN")
        return TemporaryKeys(
            Credentials(accessKeyID: id, secretAccessKey: secret, sessionToken: token),
            source: "environment"
        )
    }

    func webIdentityKeys() throws(CredentialFault) -> TemporaryKeys {
        guard let file = environment("AWS_WEB_IDENTITY_TOKEN_FILE") else {
            throw .absent("AWS_WEB_IDENTITY_TOKEN_FILE is not set")
        }
        guard let arn = environment("AWS_ROLE_ARN") else { throw .failed("AWS_ROLE_ARN is not set") }
        return try keys(for: Role(arn: arn, sessionName: environment("AWS_ROLE_SESSION_NAME")), tokenFile: file)
    }

    func profileKeys() throws(CredentialFault) -> TemporaryKeys { try keys(of: profileName, reachedFrom: []) }

    func containerKeys() throws(CredentialFault) -> TemporaryKeys {
        try ContainerEndpoint(environment, caFile: source.caFile, patience).keys()
    }

    func instanceKeys() throws(CredentialFault) -> TemporaryKeys { try instance().keys() }

    // MARK: what they are made of

    func instance() throws(CredentialFault) -> InstanceMetadata { try InstanceMetadata(environment, patience) }

    /// The keys of the role that the configuration names on top, where it names one.
    func takeOnRole(with keys: TemporaryKeys) throws(CredentialFault) -> TemporaryKeys {
        guard !source.roleARN.isEmpty else { return keys }
        let role = Role(arn: source.roleARN, externalID: source.externalID.isEmpty ? nil : source.externalID)
        return try tokenService().keys(for: role, with: keys.credentials)
    }

    private func keys(of name: String, reachedFrom path: [String]) throws(CredentialFault) -> TemporaryKeys {
        guard !path.contains(name) else {
            throw .failed("source_profile leads in a circle: \((path + [name]).joined(separator: ", "))")
        }
        guard let profile = files.profile(name) else {
            let message =
                "[\(name)] is not in \(files.paths.credentials), nor [profile \(name)] in \(files.paths.config)"
            // Somebody has asked for it by name.
            let isNamed = !path.isEmpty || !source.profile.isEmpty || environment("AWS_PROFILE") != nil
            throw isNamed ? .failed(message) : .absent(message)
        }
        if let arn = profile["role_arn"] { return try keys(for: role(arn, of: profile), profile, name, path) }
        if let keys = staticKeys(of: profile, name) { return keys }
        if let command = profile.whole("credential_process") { return try keys(printedBy: command) }
        if profile["sso_session"] != nil || profile["sso_start_url"] != nil {
            throw .failed(
                "[\(name)] signs in by SSO, which needs a person: let the AWS CLI do it, with credential_process = "
                    + "aws configure export-credentials --profile \(name) --format process in another profile"
            )
        }
        throw .absent("[\(name)] has no keys, no role_arn and no credential_process")
    }

    private func staticKeys(of profile: SharedFiles.Profile, _ name: String) -> TemporaryKeys? {
        profile.keys.map { keys in
            TemporaryKeys(
                Credentials(accessKeyID: keys.id, secretAccessKey: keys.secret, sessionToken: keys.token),
                source: "profile \(name)"
            )
        }
    }

    private func role(_ arn: String, of profile: SharedFiles.Profile) throws(CredentialFault) -> Role {
        guard profile["mfa_serial"] == nil else { throw .failed("mfa_serial asks for a code, which needs a person") }
        var role = Role(arn: arn, externalID: profile["external_id"], sessionName: profile["role_session_name"])
        if let text = profile["duration_seconds"] {
            guard let seconds = Int(text), (900...43_200).contains(seconds) else {
                throw .failed("duration_seconds must be 900 to 43200")
            }
            role.seconds = seconds
        }
        return role
    }

    /// The keys of a profile's role, by those that the profile says.
    private func keys(
        for role: Role,
        _ profile: SharedFiles.Profile,
        _ name: String,
        _ path: [String]
    ) throws(CredentialFault) -> TemporaryKeys {
        let base: TemporaryKeys
        switch (profile["source_profile"], profile["credential_source"], profile["web_identity_token_file"]) {
        case (name?, _, _):
            guard let own = staticKeys(of: profile, name) else {
                throw .failed("[\(name)] is its own source, without keys")
            }
            base = own
        case (let other?, _, _):
            base = try required { () throws(CredentialFault) in try keys(of: other, reachedFrom: path + [name]) }
        case (nil, "Environment", _): base = try required(environmentKeys)
        case (nil, "EcsContainer", _): base = try required(containerKeys)
        case (nil, "Ec2InstanceMetadata", _): base = try required(instanceKeys)
        case (nil, let other?, _):
            throw .failed("credential_source \"\(other)\" is none of Environment, EcsContainer, Ec2InstanceMetadata")
        case (nil, nil, let file?): return try keys(for: role, tokenFile: file)
        case (nil, nil, nil):
            throw .failed(
                "[\(name)] has a role_arn without source_profile, credential_source or web_identity_token_file"
            )
        }
        return try tokenService().keys(for: role, with: base.credentials)
    }

    /// What a profile builds on must be there.
    private func required(
        _ keys: () throws(CredentialFault) -> TemporaryKeys
    ) throws(CredentialFault) -> TemporaryKeys {
        do { return try keys() } catch {
            switch error {
            case .absent(let reason), .failed(let reason): throw .failed(reason)
            }
        }
    }

    private func keys(for role: Role, tokenFile: String) throws(CredentialFault) -> TemporaryKeys {
        let token: String
        do {
            token = String(decoding: try Folder.read(tokenFile, limit: 64 << 10), as: UTF8.self)
        } catch { throw .failed("the web identity token: \(error)") }
        return try tokenService().keys(for: role, webIdentity: String(token.filter { !$0.isNewline }))
    }

    private func keys(printedBy command: String) throws(CredentialFault) -> TemporaryKeys {
        let output: [UInt8]
        do {
            output = try ShellCommand(command).output(
                within: .seconds(60),
                bell: patience.bell,
                isStopped: patience.isOver
            )
        } catch { throw .failed("credential_process: \(error); run it by hand to see why") }
        return try TemporaryKeys(printed: output)
    }

    private func tokenService() -> SecurityTokenService {
        let url = RegionalEndpoints.override(of: "sts", environment) ?? source.endpoints.url(of: "sts")
        var options = HTTPClient.Options(url: url)
        (options.connectTimeout, options.timeout) = (.seconds(3), .seconds(10))
        (options.proxy, options.caFile, options.largestAnswer) = (source.proxy, source.caFile, 1 << 20)
        return SecurityTokenService(ServiceURL(url), region: source.endpoints.region, options, patience)
    }
}
