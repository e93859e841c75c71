package import Platform

/// A file pattern: `*` and `?` within a name, `[a-z]` and `[!a-z]`, `**` as a name for any depth of folders.
package struct Glob: Sendable, Equatable {
    package let pattern: String
    private let names: [Substring]

    package init(_ pattern: String) {
        self.pattern = pattern
        let names = pattern.split(separator: "/")
        // `/a/**` means the files in any depth of it.
        self.names = names.last == "**" ? names + ["*"] : names
    }

    /// A search of the file system, a step at a time.
    ///
    /// Links are followed; a folder is entered once a path.
    package struct Walk {
        private enum Frame {
            case folder(String, ArraySlice<Substring>, depth: Int)
            /// The folder has been told: whoever watches it misses nothing that comes after it was listed.
            case told(String, ArraySlice<Substring>, depth: Int)
            case entries(String, [Folder.Entry], next: Int, ArraySlice<Substring>, depth: Int)
        }

        package enum Found {
            /// A file that fits; it may be gone, or no file.
            case file(String, mayBeLink: Bool)
            /// A folder in which files may appear.
            case folder(String)
            /// A folder that cannot be listed.
            case fault(SystemError)
            /// Nothing yet.
            case step
        }

        private var frames: [Frame]

        fileprivate init(_ folders: [(String, ArraySlice<Substring>)]) {
            frames = folders.reversed().map { .folder($0.0, $0.1, depth: 0) }
        }

        /// Goes one step further; nil at the end.
        package mutating func next() -> Found? {
            guard let frame = frames.popLast() else { return nil }
            switch frame {
            case .folder(let folder, let rest, let depth):
                // A loop of links would have no end.
                guard let name = rest.first, depth < 40 else { return .step }
                let path = Folder.joined(folder, String(name))
                if !Glob.isPattern(name), rest.count > 1, (try? FileStatus(of: path))?.kind == .folder {
                    frames.append(.folder(path, rest.dropFirst(), depth: depth + 1))
                    return .step
                }
                frames.append(.told(folder, rest, depth: depth))
                return .folder(folder)
            case .told(let folder, let rest, let depth): return list(folder, rest, depth)
            case .entries(let folder, let entries, let next, let rest, let depth):
                guard next < entries.count else { return .step }
                frames.append(.entries(folder, entries, next: next + 1, rest, depth: depth))
                return look(at: entries[next], in: folder, rest, depth)
            }
        }

        private mutating func list(_ folder: String, _ rest: ArraySlice<Substring>, _ depth: Int) -> Found {
            let (name, later) = (rest.first!, rest.dropFirst())
            if !Glob.isPattern(name) {
                let path = Folder.joined(folder, String(name))
                let kind = (try? FileStatus(of: path))?.kind
                if later.isEmpty { return kind == nil ? .step : .file(path, mayBeLink: true) }
                // It may have appeared since.
                if kind == .folder { frames.append(.folder(path, later, depth: depth + 1)) }
                return .step
            }
            do {
                let entries = try Folder.entries(of: folder).sorted { $0.name < $1.name }
                frames.append(.entries(folder, entries, next: 0, rest, depth: depth))
                if name == "**" { frames.append(.folder(folder, later, depth: depth + 1)) }
                return .step
            } catch { return .fault(error) }
        }

        private mutating func look(
            at entry: Folder.Entry,
            in folder: String,
            _ rest: ArraySlice<Substring>,
            _ depth: Int
        ) -> Found {
            let (name, later) = (rest.first!, rest.dropFirst())
            let isDeeper = name == "**"
            guard isDeeper ? !entry.name.hasPrefix(".") : Glob.matches(name, entry.name) else { return .step }
            let path = Folder.joined(folder, entry.name)
            if !isDeeper, later.isEmpty { return .file(path, mayBeLink: entry.mayBeLink) }
            if entry.mayBeFolder, (try? FileStatus(of: path))?.kind == .folder {
                frames.append(.folder(path, isDeeper ? rest : later, depth: depth + 1))
            }
            return .step
        }
    }

    /// Searches the file system.
    package func walk() -> Walk { Walk([("/", names[...])]) }

    /// Searches what lies in `folder`.
    package func walk(in folder: String) -> Walk {
        let parts = folder.split(separator: "/")
        return Walk(Self.rests(names[...], parts[...]).map { (folder, $0) })
    }

    /// What is left of a pattern when its beginning fits a folder's path, in each way in which it can.
    private static func rests(
        _ pattern: ArraySlice<Substring>,
        _ path: ArraySlice<Substring>
    ) -> [ArraySlice<Substring>] {
        guard let name = path.first else { return [pattern] }
        guard let first = pattern.first else { return [] }
        if first == "**" {
            let deeper = name.hasPrefix(".") ? [] : rests(pattern, path.dropFirst())
            return rests(pattern.dropFirst(), path) + deeper
        }
        return matches(first, String(name)) ? rests(pattern.dropFirst(), path.dropFirst()) : []
    }

    /// Whether a path fits the pattern, without looking at the file system.
    package func matches(_ path: String) -> Bool { Self.matches(names[...], path.split(separator: "/")[...]) }

    private static func matches(_ pattern: ArraySlice<Substring>, _ path: ArraySlice<Substring>) -> Bool {
        guard let first = pattern.first else { return path.isEmpty }
        if first == "**" {
            return (path.startIndex...path.endIndex).contains { matches(pattern.dropFirst(), path[$0...]) }
        }
        guard let name = path.first, matches(first, String(name)) else { return false }
        return matches(pattern.dropFirst(), path.dropFirst())
    }

    static func isPattern(_ name: Substring) -> Bool { name.contains { "*?[".contains($0) } }

    /// Whether `name` fits one part of a pattern.
    ///
    /// As in a shell, `*` and `?` leave out names that begin with a dot.
    static func matches(_ pattern: Substring, _ name: String) -> Bool {
        if name.hasPrefix("."), !pattern.hasPrefix(".") { return false }
        // A star alone, as in *.log, is nearly every pattern, and there may be very many names.
        let bytes = pattern.utf8
        if let star = bytes.firstIndex(of: UInt8(ascii: "*")),
            !bytes.contains(where: { $0 == UInt8(ascii: "?") || $0 == UInt8(ascii: "[") }),
            !bytes[bytes.index(after: star)...].contains(UInt8(ascii: "*"))
        {
            let (before, after) = (bytes[..<star], bytes[bytes.index(after: star)...])
            return name.utf8.count >= before.count + after.count && name.utf8.starts(with: before)
                && name.utf8.suffix(after.count).elementsEqual(after)
        }
        return matches(Array(pattern.unicodeScalars)[...], Array(name.unicodeScalars)[...])
    }

    private static func matches(_ pattern: ArraySlice<Unicode.Scalar>, _ name: ArraySlice<Unicode.Scalar>) -> Bool {
        var (pattern, name) = (pattern, name)
        // After a star: where to go on when what follows does not fit, one character further each time.
        var retry: (pattern: ArraySlice<Unicode.Scalar>, name: ArraySlice<Unicode.Scalar>)?
        while !name.isEmpty || !pattern.isEmpty {
            if pattern.first == "*" {
                pattern.removeFirst()
                retry = (pattern, name)
                continue
            }
            if let scalar = name.first, let rest = one(pattern, scalar) {
                pattern = rest
                name.removeFirst()
                continue
            }
            guard let again = retry, !again.name.isEmpty else { return false }
            retry = (again.pattern, again.name.dropFirst())
            (pattern, name) = (again.pattern, again.name.dropFirst())
        }
        return true
    }

    /// What is left of `pattern` when its first element fits `scalar`.
    private static func one(_ pattern: ArraySlice<Unicode.Scalar>, _ scalar: Unicode.Scalar) -> ArraySlice<
        Unicode.Scalar
    >? {
        guard let first = pattern.first else { return nil }
        if first == "?" { return pattern.dropFirst() }
        guard first == "[", let close = pattern.dropFirst(2).firstIndex(of: "]") else {
            return first == scalar ? pattern.dropFirst() : nil
        }
        var set = pattern[(pattern.startIndex + 1)..<close]
        let inverted = set.first == "!" || set.first == "^"
        if inverted { set.removeFirst() }
        var fits = false
        while let low = set.popFirst() {
            if set.first == "-", set.count >= 2 {
                set.removeFirst()
                let high = set.removeFirst()
                fits = fits || (low.value...max(low.value, high.value)).contains(scalar.value)
            } else {
                fits = fits || low == scalar
            }
        }
        return fits != inverted ? pattern[(close + 1)...] : nil
    }
}
