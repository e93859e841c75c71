import Platform

/// A regular expression of Java, translated into PCRE2's for the beginning of a line.
///
/// The Kinesis Agent tries `multiLineStartPattern` at the beginning of each line (`lookingAt`), whatever follows.
package struct JavaExpression {
    /// Fits the lines that Java's fits at their beginning.
    package private(set) var translated = ""
    /// It may look at the line's end, which is not in what our expression sees.
    package private(set) var namesLineEnd = false

    /// What of it has no equal.
    package struct Fault: Error { package var message: String }

    private let text: [Unicode.Scalar]
    private var at = 0
    private var depth = 0
    private var hasAlternatives = false
    private var looksAtEnd = false
    private var isUnicode = false
    private var hasComments = false

    package init(_ text: String) throws(Fault) {
        self.text = Array(text.unicodeScalars)
        while let scalar = next() { try translate(scalar) }
        guard !hasComments || !self.text.contains("#") else { throw Fault(message: "has comments, by (?x)") }
        let isAnchored = translated.hasPrefix("^")
        if hasAlternatives {
            translated = "^(?:\(translated))"
        } else if !isAnchored {
            translated = "^" + translated
        }
        // Java's $ stands before a CR LF, too, of which our lines still have the CR.
        if looksAtEnd { translated = "(*ANYCRLF)" + translated }
        if isUnicode { translated = "(*UCP)" + translated }
        do { _ = try Expression(translated) } catch {
            throw Fault(message: "is no expression to PCRE2: \(error.message)")
        }
    }

    private mutating func next() -> Unicode.Scalar? {
        guard at < text.count else { return nil }
        at += 1
        return text[at - 1]
    }

    private func peek(_ offset: Int = 0) -> Unicode.Scalar? { at + offset < text.count ? text[at + offset] : nil }

    private mutating func append(_ scalars: some StringProtocol) { translated += scalars }

    private mutating func translate(_ scalar: Unicode.Scalar) throws(Fault) {
        switch scalar {
        case "\\": try escape(inSet: false)
        case "[": try set()
        case "(":
            depth += 1
            append("(")
            if peek() == "?" { try group() }
        case ")":
            depth -= 1
            append(")")
        case "|":
            if depth == 0 { hasAlternatives = true }
            append("|")
        case "$":
            looksAtEnd = true
            append("$")
        case "\n":
            namesLineEnd = true
            append("\\n")
        default: append("\(scalar)")
        }
    }

    /// Flags, or the kind of a group, behind `(`.
    private mutating func group() throws(Fault) {
        var end = 1
        while let scalar = peek(end), scalar == "-" || scalar.properties.isAlphabetic { end += 1 }
        guard let close = peek(end), close == ")" || close == ":", end > 1 else { return }
        var flags = ""
        for scalar in text[at + 1..<at + end] {
            switch scalar {
            // Unix lines and Unicode case are PCRE2's way.
            case "d", "u": continue
            case "U":
                isUnicode = true
                continue
            case "x": hasComments = true
            case "-", "i", "m", "s": break
            default: throw Fault(message: "has the flag \(scalar)")
            }
            flags.unicodeScalars.append(scalar)
        }
        at += end + 1
        if flags.hasSuffix("-") { flags.removeLast() }
        if close == ")" {
            depth -= 1
            append("?\(flags.isEmpty ? ":" : flags))")
        } else {
            append("?\(flags):")
        }
    }

    private mutating func set() throws(Fault) {
        append("[")
        if peek() == "^" { append(String(next()!)) }
        var isFirst = true
        while let scalar = next() {
            switch scalar {
            case "]" where !isFirst:
                append("]")
                return
            case "[": throw Fault(message: "has a character class within another")
            case "&" where peek() == "&": throw Fault(message: "has an intersection of character classes (&&)")
            case "\\": try escape(inSet: true)
            // ${ would be the environment's.
            case "{" where translated.hasSuffix("$"): append("\\{")
            case "\n":
                namesLineEnd = true
                append("\\n")
            default: append("\(scalar)")
            }
            isFirst = false
        }
        throw Fault(message: "has a [ without its ]")
    }

    private mutating func escape(inSet: Bool) throws(Fault) {
        guard let scalar = next() else { throw Fault(message: "ends with a \\ that has nothing to escape") }
        switch scalar {
        case "Q": try quote(inSet: inSet)
        case "u": try unicode()
        case "p", "P": try property(isInverted: scalar == "P", inSet: inSet)
        case "0": try octal()
        case "N": throw Fault(message: "names a character (\\N)")
        case "$" where peek() == "{" && !inSet: append("[$]")
        // PCRE2 10.42's machine code does not find them in letters beyond ASCII.
        case "S" where !inSet, "W" where !inSet, "D" where !inSet: append("[^\\\(String(scalar).lowercased())]")
        case "n", "R":
            namesLineEnd = true
            append("\\\(scalar)")
        case "Z":
            looksAtEnd = true
            append("\\Z")
        default: append("\\\(scalar)")
        }
    }

    /// Up to `\E`, or the end.
    private mutating func quote(inSet: Bool) throws(Fault) {
        while let scalar = next() {
            if scalar == "\\", peek() == "E" {
                at += 1
                return
            }
            guard scalar != "\n" else { throw Fault(message: "quotes a line end") }
            let isWord = scalar.properties.isAlphabetic || scalar.properties.numericType != nil || scalar.value >= 0x80
            if scalar == "$", peek() == "{", !inSet {
                append("[$]")
            } else {
                append(isWord ? "\(scalar)" : "\\\(scalar)")
            }
        }
    }

    private mutating func unicode() throws(Fault) {
        var value = try hexadecimal4()
        if (0xd800..<0xdc00).contains(value), peek() == "\\", peek(1) == "u" {
            at += 2
            let low = try hexadecimal4()
            guard (0xdc00..<0xe000).contains(low) else { throw Fault(message: "has half a surrogate") }
            value = 0x10000 + (value - 0xd800) << 10 + (low - 0xdc00)
        }
        append("\\x{\(String(value, radix: 16))}")
    }

    private mutating func hexadecimal4() throws(Fault) -> UInt32 {
        let digits = String(String.UnicodeScalarView(text[at..<min(at + 4, text.count)]))
        guard digits.count == 4, let value = UInt32(digits, radix: 16) else {
            throw Fault(message: "has a \\u without four hexadecimal digits")
        }
        at += 4
        return value
    }

    private mutating func octal() throws(Fault) {
        var digits = ""
        while digits.count < 3, let scalar = peek(), ("0"..."7").contains(scalar),
            digits.count < 2 || digits.first! <= "3"
        {
            digits.unicodeScalars.append(scalar)
            at += 1
        }
        guard !digits.isEmpty else { throw Fault(message: "has a \\0 without octal digits") }
        append("\\o{\(digits)}")
    }

    /// Classes of Java that PCRE2 knows as POSIX's.
    private static let posix = [
        "Lower": "lower", "Upper": "upper", "Alpha": "alpha", "Digit": "digit", "Alnum": "alnum", "Punct": "punct",
        "Graph": "graph", "Print": "print", "Blank": "blank", "Cntrl": "cntrl", "XDigit": "xdigit", "Space": "space",
        "ASCII": "ascii",
    ]

    private mutating func property(isInverted: Bool, inSet: Bool) throws(Fault) {
        let sign = isInverted ? "P" : "p"
        guard peek() == "{", let close = text[at...].firstIndex(of: "}") else {
            guard let letter = next() else { throw Fault(message: "ends with \\\(sign)") }
            return append("\\\(sign)\(letter)")
        }
        let name = String(String.UnicodeScalarView(text[at + 1..<close]))
        at = close + 1
        if let class_ = Self.posix[name] {
            let inner = "[:\(isInverted ? "^" : "")\(class_):]"
            return append(inSet ? inner : "[\(inner)]")
        }
        // IsLatin and IsL are Latin and L to PCRE2; what it does not know fails when it compiles the whole.
        append("\\\(sign){\(name.hasPrefix("Is") ? String(name.dropFirst(2)) : name)}")
    }
}
