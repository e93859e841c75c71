/// The file name of a `filePattern`: a glob as Java's `FileSystem.getPathMatcher` has it, translated into ours.
///
/// Java's `*`, `?` and sets take a dot at a name's beginning, too; `{a,b}` is one or the other; `\` takes a meaning away.
package struct JavaGlob {
    private enum Element: Equatable {
        case star
        case any
        case literal(Unicode.Scalar)
        case set(inverted: Bool, [ClosedRange<Unicode.Scalar>])
    }

    /// Without alternatives: each is a pattern of its own.
    private let patterns: [[Element]]

    /// Why a text is no glob, or cannot be translated.
    package struct Fault: Error { package var message: String }

    /// More of them than this are a mistake.
    private static let mostPatterns = 256

    package init(_ text: some StringProtocol) throws(Fault) {
        var parser = Parser(text: Array(text.unicodeScalars))
        patterns = try parser.patterns(most: Self.mostPatterns)
    }

    /// Our patterns for the same names: those of names that begin with a dot are patterns of their own.
    package var translated: (names: [String], hidden: [String]) {
        get throws(Fault) {
            var (names, hidden): ([String], [String]) = ([], [])
            for pattern in patterns {
                let name = try Self.text(pattern)
                if !names.contains(name) { names.append(name) }
                for pattern in Self.hidden(pattern[...]) {
                    let name = try Self.text(pattern)
                    if !hidden.contains(name) { hidden.append(name) }
                }
            }
            return (names, hidden)
        }
    }

    /// Whether some name with this ending, in any case, may fit: false only if none does.
    package func mayEnd(with ending: String) -> Bool {
        patterns.contains { pattern in
            // Only what stands literally at its end can rule an ending out.
            for (element, letter) in zip(pattern.reversed(), ending.unicodeScalars.reversed()) {
                guard case .literal(let literal) = element else { return true }
                guard literal.properties.lowercaseMapping == String(letter) else { return false }
            }
            return true
        }
    }

    /// Whether a name that begins with a dot may fit.
    package var mayBeHidden: Bool {
        patterns.contains { pattern in
            guard let first = pattern.first else { return false }
            return first == .literal(".") || !Self.hidden(pattern[...]).isEmpty
        }
    }

    /// The patterns of the names that fit and begin with a dot, where ours would leave them out.
    private static func hidden(_ pattern: ArraySlice<Element>) -> [[Element]] {
        let rest = pattern.dropFirst()
        switch pattern.first {
        case nil, .literal?: return []
        case .any?: return [[.literal(".")] + rest]
        case .set(let inverted, let ranges)?:
            return ranges.contains { $0.contains(".") } != inverted ? [[.literal(".")] + rest] : []
        case .star?:
            let empty = rest.first == .literal(".") ? [Array(rest)] : hidden(rest)
            return [[.literal("."), .star] + rest] + empty
        }
    }

    private static func text(_ pattern: [Element]) throws(Fault) -> String {
        var text = ""
        for element in pattern {
            switch element {
            case .star: text += "*"
            case .any: text += "?"
            case .literal(let scalar): text += escaped(scalar)
            case .set(let inverted, let ranges): text += try set(inverted, ranges)
            }
        }
        // ${ would be the environment's.
        return text.replacing("${", with: "[$]{")
    }

    /// A letter that stands for itself in our patterns.
    static func escaped(_ scalar: Unicode.Scalar) -> String {
        "*?[".unicodeScalars.contains(scalar) ? "[\(scalar)]" : "\(scalar)"
    }

    private static func set(_ inverted: Bool, _ ranges: [ClosedRange<Unicode.Scalar>]) throws(Fault) -> String {
        if !inverted, ranges.count == 1, ranges[0].lowerBound == ranges[0].upperBound {
            return escaped(ranges[0].lowerBound)
        }
        func text(_ range: ClosedRange<Unicode.Scalar>) -> String {
            range.lowerBound == range.upperBound ? "\(range.lowerBound)" : "\(range.lowerBound)-\(range.upperBound)"
        }
        func isSign(_ range: ClosedRange<Unicode.Scalar>) -> Bool { range.lowerBound == "!" || range.lowerBound == "^" }
        // A hyphen stands for itself only at the end, ! and ^ anywhere but at the beginning.
        let hyphen: ClosedRange<Unicode.Scalar> = "-"..."-"
        let others = ranges.filter { $0 != hyphen }
        let ordered = others.filter { !isSign($0) } + others.filter(isSign)
        var texts = ordered.map(text)
        if ranges.contains(hyphen) {
            if texts.isEmpty || (!inverted && isSign(ordered[0])) {
                texts.insert("-", at: 0)
            } else {
                texts.append("-")
            }
        }
        if !inverted, texts[0] != "-", let first = ordered.first, isSign(first) {
            throw Fault(message: "a set of ! and ^ alone cannot be written: list the names in patterns of their own")
        }
        return "[\(inverted ? "!" : "")\(texts.joined())]"
    }

    private struct Parser {
        let text: [Unicode.Scalar]
        var at = 0

        mutating func patterns(most: Int) throws(Fault) -> [[Element]] {
            var whole: [[Element]] = [[]]
            // Inside braces: the alternatives so far, the last one being read.
            var alternatives: [[Element]]?
            func add(_ element: Element) {
                if alternatives == nil {
                    for index in whole.indices { whole[index].append(element) }
                } else {
                    alternatives![alternatives!.count - 1].append(element)
                }
            }
            while at < text.count {
                let scalar = text[at]
                at += 1
                switch scalar {
                case "*": add(.star)
                case "?": add(.any)
                case "[": add(try set())
                case "\\":
                    guard at < text.count else { throw Fault(message: "ends with a \\ that has nothing to escape") }
                    add(.literal(text[at]))
                    at += 1
                case "{":
                    guard alternatives == nil else { throw Fault(message: "has braces within braces") }
                    alternatives = [[]]
                case ",":
                    if alternatives == nil { add(.literal(scalar)) } else { alternatives!.append([]) }
                case "}":
                    guard let ends = alternatives else {
                        add(.literal(scalar))
                        break
                    }
                    alternatives = nil
                    guard whole.count * ends.count <= most else {
                        throw Fault(message: "has more than \(most) alternatives")
                    }
                    whole = whole.flatMap { begin in ends.map { begin + $0 } }
                default: add(.literal(scalar))
                }
            }
            guard alternatives == nil else { throw Fault(message: "has a { without its }") }
            // Two stars are no more than one within a name; alone they would be any depth of folders to us.
            return whole.map { pattern in
                pattern.indices.filter { $0 == 0 || pattern[$0] != .star || pattern[$0 - 1] != .star }.map {
                    pattern[$0]
                }
            }
        }

        private mutating func set() throws(Fault) -> Element {
            var ranges: [ClosedRange<Unicode.Scalar>] = []
            let inverted = at < text.count && text[at] == "!"
            if inverted { at += 1 }
            if at < text.count, text[at] == "-" {
                ranges.append("-"..."-")
                at += 1
            }
            while at < text.count, text[at] != "]" {
                let low = text[at]
                at += 1
                if at + 1 < text.count, text[at] == "-", text[at + 1] != "]" {
                    let high = text[at + 1]
                    guard low <= high else { throw Fault(message: "has a range that ends before it begins") }
                    ranges.append(low...high)
                    at += 2
                } else {
                    ranges.append(low...low)
                }
            }
            guard at < text.count, !ranges.isEmpty else { throw Fault(message: "has a [ without its ]") }
            at += 1
            return .set(inverted: inverted, ranges)
        }
    }
}
