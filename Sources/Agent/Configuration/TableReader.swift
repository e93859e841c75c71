/// Takes a table's keys one by one, noting every fault; what nobody took is unknown.
struct TableReader {
    let path: String
    let place: Place
    private let members: [TOMLNode.Member]
    private var known: Set<String> = []
    private let faults: FaultList
    private let environment: (String) -> String?

    /// Where faults are gathered while a file is read.
    final class FaultList {
        let file: String
        var faults: [Fault] = []
        init(file: String) { self.file = file }

        func add(_ place: Place, _ key: String, _ message: String, in other: String? = nil) {
            faults.append(Fault(file: other ?? file, place: place, key: key, message: message))
        }

        /// Nil when the text is no TOML, which is noted.
        func parse(_ text: [UInt8]) -> TOMLNode? {
            do { return try TOMLNode.parse(text) } catch {
                add(error.place, "", error.message)
                return nil
            }
        }
    }

    init(
        _ node: TOMLNode,
        path: String,
        faults: FaultList,
        environment: @escaping (String) -> String?
    ) {
        (self.path, place, self.faults, self.environment) = (path, node.place, faults, environment)
        if case .table(let members) = node.value {
            self.members = members
        } else {
            members = []
            faults.add(node.place, path, "must be a table, like [\(path)], not \(node.kind)")
        }
    }

    /// Notes a fault of this table, or of one of its keys.
    func fault(_ key: String? = nil, _ message: String) {
        let node = key.flatMap { key in members.first { $0.key == key } }
        faults.add(node?.node.place ?? place, full(key), message)
    }

    /// Notes a fault of a key anywhere in the file, or in another.
    func fault(at place: Place, in file: String? = nil, _ key: String, _ message: String) {
        faults.add(place, key, message, in: file)
    }

    var file: String { faults.file }

    /// Where a key's value stands; the table's place if it is not there.
    func place(of key: String) -> Place { members.first { $0.key == key }?.node.place ?? place }

    func has(_ key: String) -> Bool { members.contains { $0.key == key } }

    private func full(_ key: String?) -> String {
        guard let key else { return path }
        return path.isEmpty ? key : "\(path).\(key)"
    }

    /// The node of a key, which is known from now on.
    mutating func take(_ key: String) -> TOMLNode? {
        known.insert(key)
        return members.first { $0.key == key }?.node
    }

    /// The sub-tables of a key: each with its name and reader.
    mutating func tables(_ key: String) -> [(name: String, TableReader)] {
        guard let node = take(key) else { return [] }
        guard case .table(let members) = node.value else {
            fault(key, "must be a table of tables, like [\(full(key)).NAME], not \(node.kind)")
            return []
        }
        return members.map { member in
            (
                member.key,
                TableReader(member.node, path: "\(full(key)).\(member.key)", faults: faults, environment: environment)
            )
        }
    }

    mutating func table(_ key: String) -> TableReader? {
        take(key).map { TableReader($0, path: full(key), faults: faults, environment: environment) }
    }

    mutating func text(_ key: String, into value: inout String) {
        guard let node = take(key) else { return }
        guard case .text(let text) = node.value else { return fault(key, "must be a string, not \(node.kind)") }
        if let expanded = expand(text, key) { value = expanded }
    }

    mutating func texts(_ key: String, into value: inout [String]) {
        let texts = placedTexts(key).map(\.text)
        if has(key) { value = texts }
    }

    /// The strings of an array, each with its place.
    mutating func placedTexts(_ key: String) -> [(text: String, place: Place)] {
        guard let node = take(key) else { return [] }
        guard case .array(let nodes) = node.value else {
            fault(key, "must be an array of strings, like [\"…\"], not \(node.kind)")
            return []
        }
        return nodes.compactMap { node in
            guard case .text(let text) = node.value else {
                faults.add(node.place, full(key), "must hold strings only, not \(node.kind)")
                return nil
            }
            return expand(text, key).map { ($0, node.place) }
        }
    }

    func isEmptyArray(_ key: String) -> Bool {
        if case .array(let nodes)? = members.first(where: { $0.key == key })?.node.value {
            nodes.isEmpty
        } else {
            false
        }
    }

    mutating func bool(_ key: String, into value: inout Bool) {
        guard let node = take(key) else { return }
        guard case .bool(let bool) = node.value else { return fault(key, "must be true or false, not \(node.kind)") }
        value = bool
    }

    mutating func integer(_ key: String, in range: ClosedRange<Int>, into value: inout Int) {
        guard let node = take(key) else { return }
        guard case .integer(let integer) = node.value else {
            return fault(key, "must be an integer, not \(node.kind)")
        }
        guard let integer = Int(exactly: integer), range.contains(integer) else {
            return fault(key, "\(integer) is not within \(range.lowerBound) to \(range.upperBound)")
        }
        value = integer
    }

    /// One of some words; false when it is another.
    @discardableResult
    mutating func choice<Choice: RawRepresentable & CaseIterable>(
        _ key: String,
        into value: inout Choice
    ) -> Bool where Choice.RawValue == String {
        var text = value.rawValue
        self.text(key, into: &text)
        if let choice = Choice(rawValue: text) {
            value = choice
            return true
        }
        let choices = Choice.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
        fault(key, "\"\(text)\" is none of \(choices)")
        return false
    }

    /// A number of bytes: `"50KiB"`, or an integer.
    mutating func size(_ key: String, in range: ClosedRange<Int>, into value: inout Int) {
        guard let node = take(key) else { return }
        var size: Int?
        switch node.value {
        case .integer(let integer): size = Int(exactly: integer)
        case .text(let text): size = expand(text, key).flatMap(Units.bytes)
        case .table, .array, .number, .bool, .time: break
        }
        guard let size else { return fault(key, "must be a size like \"512KiB\", \"1MiB\" or \"2GB\"") }
        guard range.contains(size) else {
            return fault(
                key,
                "must be within \(Units.text(bytes: range.lowerBound)) to \(Units.text(bytes: range.upperBound))"
            )
        }
        value = size
    }

    /// A duration: `"100ms"`.
    mutating func duration(_ key: String, in range: ClosedRange<Duration>, into value: inout Duration) {
        guard let node = take(key) else { return }
        var duration: Duration?
        if case .text(let text) = node.value { duration = expand(text, key).flatMap(Units.duration) }
        guard let duration else {
            return fault(key, "must be a duration with its unit, like \"100ms\", \"10s\" or \"5m\"")
        }
        guard range.contains(duration) else {
            return fault(
                key,
                "must be within \(Units.text(duration: range.lowerBound)) to \(Units.text(duration: range.upperBound))"
            )
        }
        value = duration
    }

    /// Replaces `${NAME}` by the environment's.
    private func expand(_ text: String, _ key: String) -> String? {
        var (out, rest) = ("", text[...])
        while let start = rest.firstRange(of: "${") {
            out += rest[..<start.lowerBound]
            guard let end = rest[start.upperBound...].firstIndex(of: "}") else {
                fault(key, "\"${\" without \"}\"")
                return nil
            }
            let name = String(rest[start.upperBound..<end])
            guard let value = environment(name) else {
                fault(key, "the environment has no \(name): set it, or write the value here")
                return nil
            }
            out += value
            rest = rest[rest.index(after: end)...]
        }
        return out + rest
    }

    /// Notes every key that nobody took, with the nearest known one.
    func finish() {
        for member in members where !known.contains(member.key) {
            let near = known.map { ($0, Self.distance(member.key, $0)) }.min { ($0.1, $0.0) < ($1.1, $1.0) }
            var message = "there is no such key"
            if let near, near.1 <= max(2, member.key.count / 2) {
                message += "; did you mean \"\(near.0)\"?"
            } else if !known.isEmpty {
                message += "; here are: \(known.sorted().joined(separator: ", "))"
            }
            faults.add(member.place, full(member.key), message)
        }
    }

    /// How many letters must be changed, added, left out or swapped to make one word of the other.
    static func distance(_ left: String, _ right: String) -> Int {
        let (left, right) = (Array(left.utf8.prefix(64)), Array(right.utf8.prefix(64)))
        var previous: [Int] = []
        var row = Array(0...right.count)
        for i in left.indices {
            var next = [i + 1]
            for j in right.indices {
                var cost = min(row[j] + (left[i] == right[j] ? 0 : 1), row[j + 1] + 1, next[j] + 1)
                if i > 0, j > 0, left[i] == right[j - 1], left[i - 1] == right[j] {
                    cost = min(cost, previous[j - 1] + 1)
                }
                next.append(cost)
            }
            (previous, row) = (row, next)
        }
        return row[right.count]
    }
}
