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

    /// What a search found: files that match, and every folder whose content matters to the pattern.
    package struct Found {
        package var files: [String] = []
        package var folders: [String] = []
        /// Folders that could not be listed.
        package var faults: [SystemError] = []

        package init() {}
    }

    /// Searches the file system.
    ///
    /// Links are followed; a folder is entered once a path.
    package func search(into found: inout Found) { search("", names[...], &found, depth: 0) }

    private func search(_ folder: String, _ rest: ArraySlice<Substring>, _ found: inout Found, depth: Int) {
        guard let name = rest.first else { return }
        let later = rest.dropFirst()
        // A loop of links would have no end.
        guard depth < 40 else { return }
        if !Self.isPattern(name) {
            let path = folder + "/" + name
            if later.isEmpty {
                found.folders.append(folder.isEmpty ? "/" : folder)
                if (try? FileStatus(of: path)) != nil { found.files.append(path) }
            } else if (try? FileStatus(of: path))?.kind == .folder {
                search(path, later, &found, depth: depth + 1)
            } else {
                // It may appear: watch where it would.
                found.folders.append(folder.isEmpty ? "/" : folder)
            }
            return
        }
        let entries: [Folder.Entry]
        do { entries = try Folder.entries(of: folder.isEmpty ? "/" : folder) } catch {
            found.faults.append(error)
            return
        }
        found.folders.append(folder.isEmpty ? "/" : folder)
        if name == "**" { search(folder, later, &found, depth: depth + 1) }
        for entry in entries.sorted(by: { $0.name < $1.name }) {
            let path = folder + "/" + entry.name
            if name == "**" {
                if !entry.name.hasPrefix("."), entry.mayBeFolder, (try? FileStatus(of: path))?.kind == .folder {
                    search(path, rest, &found, depth: depth + 1)
                }
            } else if Self.matches(name, entry.name) {
                if later.isEmpty {
                    found.files.append(path)
                } else if entry.mayBeFolder, (try? FileStatus(of: path))?.kind == .folder {
                    search(path, later, &found, depth: depth + 1)
                }
            }
        }
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
