/// The text of a configuration, written line by line with comments above what they are about.
struct TOMLText {
    private(set) var text = ""

    private static let width = 118

    /// A comment; broken into lines.
    mutating func comment(_ words: String) {
        var line = "#"
        // Nothing in a comment may end it.
        let words = String(
            String.UnicodeScalarView(words.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7f ? " " : $0 })
        )
        for word in words.split(separator: " ") {
            if line.count + 1 + word.count > Self.width, line != "#" {
                text += line + "\n"
                line = words.hasPrefix("- ") ? "#  " : "#"
            }
            line += " " + word
        }
        text += line + "\n"
    }

    mutating func blank() { text += "\n" }

    mutating func table(_ name: String) { text += "[\(name)]\n" }

    mutating func add(_ key: String, _ value: String) { text += "\(key) = \(Self.quoted(value))\n" }

    mutating func add(_ key: String, _ value: Int) { text += "\(key) = \(value)\n" }

    mutating func add(_ key: String, _ value: Bool) { text += "\(key) = \(value)\n" }

    mutating func add(_ key: String, _ values: [String]) {
        let line = "\(key) = [\(values.map(Self.quoted).joined(separator: ", "))]\n"
        if line.count <= Self.width {
            text += line
        } else {
            text += "\(key) = [\n" + values.map { "    \(Self.quoted($0)),\n" }.joined() + "]\n"
        }
    }

    /// A literal string where there is something to escape and nothing that forbids it, like `'^\d'`.
    static func quoted(_ value: String) -> String {
        let scalars = value.unicodeScalars
        if scalars.contains("\\"), !scalars.contains(where: { $0 == "'" || $0.value < 0x20 || $0.value == 0x7f }) {
            return "'\(value)'"
        }
        var out = "\""
        for scalar in scalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case _ where scalar.value < 0x20 || scalar.value == 0x7f:
                let digits = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }
}
