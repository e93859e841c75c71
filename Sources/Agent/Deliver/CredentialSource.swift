public import Kinesis
public import Platform

/// Where an access key comes from: the environment, or the shared files, as the AWS SDKs read them.
public struct CredentialSource: Sendable {
    /// A profile of the shared files; empty: `AWS_PROFILE`, then `default`.
    let profile: String
    private let environment: @Sendable (String) -> String?

    public init(profile: String, environment: @escaping @Sendable (String) -> String? = Machine.environment) {
        (self.profile, self.environment) = (profile, environment)
    }

    public struct Missing: Error, CustomStringConvertible {
        public var description: String
    }

    /// Looks in every place in turn; the files are read again each time, so that a rotated key is found.
    public func load() throws(Missing) -> Credentials {
        if profile.isEmpty, let key = variable("AWS_ACCESS_KEY_ID"), let secret = variable("AWS_SECRET_ACCESS_KEY") {
            return Credentials(
                accessKeyID: key,
                secretAccessKey: secret,
                sessionToken: variable("AWS_SESSION_TOKEN")
            )
        }
        let name = profile.isEmpty ? variable("AWS_PROFILE") ?? "default" : profile
        let home = variable("HOME") ?? "/root"
        let files = [
            variable("AWS_SHARED_CREDENTIALS_FILE") ?? home + "/.aws/credentials",
            variable("AWS_CONFIG_FILE") ?? home + "/.aws/config",
        ]
        for file in files {
            guard let bytes = try? Folder.read(file, limit: 1 << 20) else { continue }
            let values = Self.section(name, of: String(decoding: bytes, as: UTF8.self))
            if let key = values["aws_access_key_id"], let secret = values["aws_secret_access_key"] {
                return Credentials(accessKeyID: key, secretAccessKey: secret, sessionToken: values["aws_session_token"])
            }
        }
        throw Missing(
            description: "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them under "
                + "[\(name)] in \(files[0])"
        )
    }

    private func variable(_ name: String) -> String? { environment(name).flatMap { $0.isEmpty ? nil : $0 } }

    /// The values of a profile: `[name]` in the credentials file, `[profile name]` in the config file.
    static func section(_ name: String, of text: String) -> [String: String] {
        var values: [String: String] = [:]
        var isInside = false
        for line in text.split(whereSeparator: \.isNewline) {
            let line = line.drop { $0 == " " || $0 == "\t" }
            if line.first == "[", let close = line.firstIndex(of: "]") {
                let words = line[..<close].dropFirst().split(separator: " ")
                isInside = words == [name[...]] || words == ["profile", name[...]]
            } else if isInside, line.first != "#", line.first != ";", let equals = line.firstIndex(of: "=") {
                let isBlank = { (character: Character) in character == " " || character == "\t" }
                let key = line[..<equals].split(whereSeparator: isBlank).first.map { $0.lowercased() } ?? ""
                let value = line[line.index(after: equals)...].split(whereSeparator: isBlank).first
                values[key] = value.map(String.init) ?? ""
            }
        }
        return values
    }
}
