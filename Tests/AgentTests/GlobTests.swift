import Agent
import Bytes
import Kinesis
import Logging
import Platform
import Seeded
import Testing

@Suite struct GlobTests {
    /// The plainest matching of one name: character by character, every way tried.
    static func slowly(_ pattern: ArraySlice<Character>, _ name: ArraySlice<Character>) -> Bool {
        guard let first = pattern.first else { return name.isEmpty }
        let rest = pattern.dropFirst()
        switch first {
        case "*": return (name.startIndex...name.endIndex).contains { slowly(rest, name[$0...]) }
        case "?": return !name.isEmpty && slowly(rest, name.dropFirst())
        case "[":
            guard let close = rest.dropFirst().firstIndex(of: "]") else { fallthrough }
            guard let character = name.first else { return false }
            var set = Array(rest[..<close])
            let inverted = set.first == "!"
            if inverted { set.removeFirst() }
            var fits = false
            while !set.isEmpty {
                if set.count >= 3, set[1] == "-" {
                    fits = fits || (set[0] <= character && character <= set[2])
                    set.removeFirst(3)
                } else {
                    let member = set.removeFirst()
                    fits = fits || member == character
                }
            }
            return fits != inverted && slowly(rest[(close + 1)...], name.dropFirst())
        default: return name.first == first && slowly(rest, name.dropFirst())
        }
    }

    static func slowly(_ pattern: [String], _ path: [String]) -> Bool {
        guard let first = pattern.first else { return path.isEmpty }
        let rest = Array(pattern.dropFirst())
        if first == "**" { return (0...path.count).contains { slowly(rest, Array(path.dropFirst($0))) } }
        guard let name = path.first else { return false }
        if name.hasPrefix("."), !first.hasPrefix(".") { return false }
        return slowly(Array(first)[...], Array(name)[...]) && slowly(rest, Array(path.dropFirst()))
    }

    @Test func `matches what trying every way matches`() {
        var random = Random()
        let parts = ["a", "b", "ab", "*", "**", "?", "[ab]", "[!a]", "[a-c]", ".", "*a", "a*b", "*.*", "[", "b?"]
        let names = ["a", "b", "ab", "aab", "abb", ".a", "a.b", "c", "abab", "b.", "[", "-"]
        var matched = 0
        for _ in 0..<4000 {
            let pattern = (0...random.below(4)).map { _ in
                random.oneIn(3)
                    ? parts[random.below(parts.count)]
                    : parts[random.below(parts.count)] + parts[random.below(parts.count)]
            }
            let path = (0...random.below(4)).map { _ in names[random.below(names.count)] }
            // `**` stands for folders only as a whole name; in one name it is two stars, and as the last one files.
            var plain = pattern
            if plain.last == "**" { plain.append("*") }
            let text = "/" + pattern.joined(separator: "/")
            let wanted = Self.slowly(plain, path)
            matched += wanted ? 1 : 0
            #expect(
                Glob(text).matches("/" + path.joined(separator: "/")) == wanted,
                "\(text) \(path) PENSTOCK_SEED=\(random.seed)"
            )
        }
        #expect(matched > 50, random.note)
    }

    /// All that a search finds: files, and folders where some may appear.
    static func found(_ walk: Glob.Walk) -> (files: [String], folders: [String]) {
        var (walk, files, folders) = (walk, [String](), [String]())
        while let found = walk.next() {
            switch found {
            case .file(let path, _): files.append(path)
            case .folder(let path): folders.append(path)
            case .fault, .step: break
            }
        }
        return (files, folders)
    }

    static func found(_ pattern: String, in folder: String) -> [String] {
        let found = Self.found(Glob(folder + pattern).walk())
        return found.files.map { String($0.dropFirst(folder.count)) }
    }

    @Test func `finds files at any depth, and leaves out what begins with a dot`() throws {
        let scratch = try Scratch()
        for folder in ["/a", "/a/b", "/a/b/c", "/.hidden", "/z"] { try Folder.create(scratch.path + folder) }
        for file in ["x.log", "a/x.log", "a/b/x.log", "a/b/c/x.log", "a/y.txt", ".hidden/x.log", "a/.x.log"] {
            try scratch.write(file, "")
        }
        #expect(Self.found("/*.log", in: scratch.path) == ["/x.log"])
        #expect(Self.found("/*/*.log", in: scratch.path) == ["/a/x.log"])
        #expect(
            Set(Self.found("/**/*.log", in: scratch.path)) == ["/x.log", "/a/x.log", "/a/b/x.log", "/a/b/c/x.log"]
        )
        #expect(Set(Self.found("/a/**/x.*", in: scratch.path)) == ["/a/x.log", "/a/b/x.log", "/a/b/c/x.log"])
        #expect(Self.found("/a/**", in: scratch.path).contains("/a/b/c/x.log"))
        #expect(Self.found("/a/[xy].???", in: scratch.path) == ["/a/x.log", "/a/y.txt"])
        #expect(Self.found("/.hidden/*", in: scratch.path) == ["/.hidden/x.log"])
        #expect(Self.found("/a/.x.log", in: scratch.path) == ["/a/.x.log"])
        #expect(Self.found("/none/*.log", in: scratch.path) == [])
    }

    @Test func `watches folders where a file may appear, and says what it cannot list`() throws {
        let scratch = try Scratch()
        #expect(Self.found(Glob(scratch.path + "/later/*.log").walk()).folders == [scratch.path])
        try scratch.write("file", "")
        #expect(Self.found(Glob("/proc/1/nothing-here/*").walk()).files == [])
        try Folder.create(scratch["a"])
        let found = Self.found(Glob(scratch.path + "/*/*.log").walk())
        #expect(found.folders == [scratch.path, scratch["a"]])
    }

    @Test func `a search of one folder finds what the search of everything finds in it`() throws {
        let scratch = try Scratch()
        for folder in ["/a", "/a/b", "/a/b/c", "/a/x", "/b"] { try Folder.create(scratch.path + folder) }
        for file in ["x.log", "a/x.log", "a/b/x.log", "a/b/c/x.log", "a/x/x.log", "b/x.log"] {
            try scratch.write(file, "")
        }
        for pattern in [
            "/*.log", "/**/*.log", "/*/*/*.log", "/a/**/b/*.log", "/a/b/x.log", "/**/b/**/x.log", "/[ab]/**",
        ] {
            let glob = Glob(scratch.path + pattern)
            let all = Set(Self.found(glob.walk()).files)
            for folder in ["", "/a", "/a/b", "/a/b/c", "/b"] {
                let path = scratch.path + folder
                let within = Set(Self.found(glob.walk(in: path)).files)
                #expect(within == all.filter { $0.hasPrefix(path + "/") }, "\(pattern) in \(folder)")
            }
        }
    }

    @Test func `a loop of links has an end`() throws {
        let scratch = try Scratch()
        try scratch.link("loop", to: scratch.path)
        try scratch.write("x.log", "")
        #expect(Self.found("/**/x.log", in: scratch.path).contains("/x.log"))
    }
}
