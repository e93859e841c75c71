import Kinesis

/// An agent.json: an object of the Amazon Kinesis Agent's configuration, read as that agent reads it.
///
/// It takes `//` and `/* */` comments, takes numbers and booleans as strings, too, and of a key that comes twice the last.
struct AgentFile {
    /// As it is called in remarks.
    let name: String
    /// What stands before a key's name in remarks: `flows[0].`.
    let path: String
    private let input: [UInt8]
    private let members: [WireValue.Member]

    /// Reads a whole file.
    init(_ name: String, _ text: [UInt8]) throws(MigrationFault) {
        var text = text
        if text.starts(with: [0xef, 0xbb, 0xbf]) { text.replaceSubrange(..<3, with: [0x20, 0x20, 0x20]) }
        text = Self.withoutComments(text)
        let value: WireValue
        do { value = try WireFormat.json.read(text.span) } catch {
            let place = Self.place(of: error.offset, in: text)
            throw MigrationFault(
                "\(name):\(place.line):\(place.column): \(error.reason.rawValue): repair the JSON there; // and /* */ may "
                    + "stand in it, a comma behind the last member or a name without quotes may not"
            )
        }
        guard let members = value.members else {
            throw MigrationFault("\(name):1:1: must be a JSON object, as /etc/aws-kinesis/agent.json is")
        }
        self.init(name: name, path: "", input: text, members)
    }

    private init(name: String, path: String, input: [UInt8], _ members: [WireValue.Member]) {
        (self.name, self.path, self.input) = (name, path, input)
        var last: [String: Int] = [:]
        for (index, member) in members.enumerated() { last[member.name] = index }
        self.members = members.indices.filter { last[members[$0].name] == $0 }.map { members[$0] }
    }

    /// The names of its keys, in their order; null is as good as nothing.
    var keys: [String] { members.filter { $0.value != .null }.map(\.name) }

    private func value(_ key: String) -> WireValue? {
        members.first { $0.name == key }.flatMap { $0.value == .null ? nil : $0.value }
    }

    private func fault(_ key: String, _ message: String) -> MigrationFault {
        MigrationFault("\(name): \(path)\(key): \(message)")
    }

    /// A string; nil where there is none, or an empty one.
    func text(_ key: String) throws(MigrationFault) -> String? {
        guard let value = value(key) else { return nil }
        guard let text = scalar(value) else { throw fault(key, "must be a string") }
        return text.isEmpty ? nil : text
    }

    func integer(_ key: String) throws(MigrationFault) -> Int? {
        guard let text = try text(key) else { return nil }
        guard let number = Int(text) else { throw fault(key, "\"\(text)\" must be a whole number") }
        return number
    }

    func bool(_ key: String) throws(MigrationFault) -> Bool? {
        guard let text = try text(key) else { return nil }
        guard let value = Bool(text.lowercased()) else { throw fault(key, "\"\(text)\" must be true or false") }
        return value
    }

    /// One of some words.
    func word(_ key: String, of words: [String]) throws(MigrationFault) -> String? {
        guard let text = try text(key) else { return nil }
        guard words.contains(text) else {
            throw fault(key, "\"\(text)\" is none of \(words.joined(separator: ", "))")
        }
        return text
    }

    /// A string, or an array of them.
    func texts(_ key: String) throws(MigrationFault) -> [String] {
        guard case .list(let values)? = value(key) else { return try text(key).map { [$0] } ?? [] }
        var texts: [String] = []
        for value in values {
            guard let text = scalar(value) else { throw fault(key, "must hold strings only") }
            texts.append(text)
        }
        return texts
    }

    /// An array of objects.
    func objects(_ key: String) throws(MigrationFault) -> [AgentFile] {
        guard let value = value(key) else { return [] }
        guard case .list(let values) = value else { throw fault(key, "must be an array of objects") }
        var objects: [AgentFile] = []
        for (index, value) in values.enumerated() {
            guard let members = value.members else { throw fault("\(key)[\(index)]", "must be an object") }
            objects.append(AgentFile(name: name, path: "\(path)\(key)[\(index)].", input: input, members))
        }
        return objects
    }

    private func scalar(_ value: WireValue) -> String? {
        switch value {
        case .text, .slice: value.text(in: input.span)
        case .integer(let number): "\(number)"
        case .number(let number): "\(number)"
        case .bool(let value): "\(value)"
        case .null, .data, .time, .list, .map: nil
        }
    }

    /// The text with spaces in place of comments, so that everything else stays where it is.
    private static func withoutComments(_ text: [UInt8]) -> [UInt8] {
        var out = text
        var (at, isInString) = (0, false)
        while at < text.count {
            let (byte, next) = (text[at], at + 1 < text.count ? text[at + 1] : 0)
            switch byte {
            case UInt8(ascii: "\\") where isInString: at += 1
            case UInt8(ascii: "\""): isInString.toggle()
            case UInt8(ascii: "/") where !isInString && next == UInt8(ascii: "/"):
                while at < text.count, text[at] != 10 {
                    out[at] = 0x20
                    at += 1
                }
            case UInt8(ascii: "/") where !isInString && next == UInt8(ascii: "*"):
                var end = at + 2
                while end + 1 < text.count, text[end] != UInt8(ascii: "*") || text[end + 1] != UInt8(ascii: "/") {
                    end += 1
                }
                // One without an end stays, and is a fault where it begins.
                guard end + 1 < text.count else { return out }
                for index in at...end + 1 where text[index] != 10 { out[index] = 0x20 }
                at = end + 1
            default: break
            }
            at += 1
        }
        return out
    }

    private static func place(of offset: Int, in text: [UInt8]) -> Place {
        let before = text.prefix(offset)
        let line = before.lastIndex(of: 10).map { $0 + 1 } ?? 0
        return Place(line: before.count { $0 == 10 } + 1, column: offset - line + 1)
    }
}

/// Why a configuration of the Kinesis Agent cannot be translated at all, and what to do.
public struct MigrationFault: Error, Equatable, Sendable, CustomStringConvertible {
    public let description: String

    init(_ description: String) { self.description = description }
}
