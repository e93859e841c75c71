import Platform

/// The files that AWS's tools share: `~/.aws/config` and `~/.aws/credentials`.
///
/// Source: "Shared config and credentials files" in the AWS SDKs and Tools reference guide.
struct SharedFiles {
    /// Where keys are written, and where all else.
    let paths: (credentials: String, config: String)
    private let texts: [String]

    /// Reads both; one that is not there is empty.
    init(_ environment: (String) -> String?) {
        let home = environment("HOME") ?? "/root"
        paths = (
            environment("AWS_SHARED_CREDENTIALS_FILE") ?? home + "/.aws/credentials",
            environment("AWS_CONFIG_FILE") ?? home + "/.aws/config"
        )
        texts = [paths.credentials, paths.config].map { path in
            (try? Folder.read(path, limit: 1 << 20)).map { String(decoding: $0, as: UTF8.self) } ?? ""
        }
    }

    /// Nil when neither file has it.
    func profile(_ name: String) -> Profile? {
        let sections = texts.map { Self.section(name, of: $0) }
        guard sections.contains(where: { $0 != nil }) else { return nil }
        return Profile(sections: sections.map { $0 ?? [:] })
    }

    struct Profile {
        /// Of the credentials file, then of the config file.
        fileprivate var sections: [[String: String]]

        /// A value without what follows as a comment.
        subscript(key: String) -> String? { whole(key).map(Self.withoutComment).flatMap { $0.isEmpty ? nil : $0 } }

        /// A value as it stands in its line.
        func whole(_ key: String) -> String? { sections.lazy.compactMap { $0[key] }.first { !$0.isEmpty } }

        /// A key and its secret, from one of the files.
        var keys: (id: String, secret: String, token: String?)? {
            for section in sections {
                let profile = Profile(sections: [section])
                if let id = profile["aws_access_key_id"], let secret = profile["aws_secret_access_key"] {
                    return (id, secret, profile["aws_session_token"])
                }
            }
            return nil
        }

        private static func withoutComment(_ value: String) -> String {
            let comment = value.indices.first { index in
                "#;".contains(value[index])
                    && (index == value.startIndex || value[value.index(before: index)].isWhitespace)
            }
            return value[..<(comment ?? value.endIndex)].trimmed
        }
    }

    /// The values of a profile: `[name]` in the credentials file, `[profile name]` in the config file.
    private static func section(_ name: String, of text: String) -> [String: String]? {
        var values: [String: String]?
        var (isInside, isNested) = (false, false)
        for line in text.split(whereSeparator: \.isNewline) {
            let isIndented = line.first?.isWhitespace ?? false
            let line = line.trimmed
            if line.first == "[", let close = line.firstIndex(of: "]") {
                var title = line[..<close].dropFirst().trimmed
                if let word = title.split(whereSeparator: \.isWhitespace).first, word == "profile", word != title {
                    title = title.dropFirst(word.count).trimmed.filter { $0 != "\"" && $0 != "'" }
                }
                isInside = title == name
                if isInside { values = values ?? [:] }
            } else if isInside, line.first != "#", line.first != ";", let equals = line.firstIndex(of: "=") {
                // Values of values, like those under `s3 =`.
                if isIndented, isNested { continue }
                let value = line[line.index(after: equals)...].trimmed
                values?[line[..<equals].trimmed.lowercased()] = value
                isNested = value.isEmpty
            }
        }
        return values
    }
}

extension StringProtocol {
    /// Without white space at both ends.
    fileprivate var trimmed: String {
        let rest = drop(while: \.isWhitespace)
        return String(
            rest.prefix(
                (rest.lastIndex { !$0.isWhitespace }).map { rest.distance(from: rest.startIndex, to: $0) + 1 } ?? 0
            )
        )
    }
}
