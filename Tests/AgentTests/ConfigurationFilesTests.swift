import Agent
import Platform
import Testing

@Suite struct ConfigurationFilesTests {
    /// The faults of a main file with files in conf.d beside it, the folder's path left out.
    static func faults(_ scratch: Scratch) -> [String] {
        do {
            _ = try Configuration(file: scratch["penstock.toml"])
            return []
        } catch { return error.faults.map { $0.description.replacing(scratch.path + "/", with: "") } }
    }

    static func scratch(_ files: [String: String]) throws -> Scratch {
        let scratch = try Scratch()
        try Folder.create(scratch["conf.d"])
        for (name, text) in files { try scratch.write(name, text) }
        return scratch
    }

    static func input(_ name: String, _ rest: String = "") -> String {
        "[inputs.\(name)]\ntype = \"file\"\npaths = [\"/var/log/\(name).log\"]\n\(rest)"
    }

    static let output = "[outputs.stream]\ntype = \"kinesis\"\nstream = \"logs\"\nregion = \"eu-west-1\"\n"

    @Test func `inputs of conf d come after the main file's, in the order of the files' names`() throws {
        let scratch = try Self.scratch([
            "penstock.toml": Self.input("main") + Self.output, "conf.d/b.toml": Self.input("two") + Self.input("three"),
            "conf.d/a.toml": Self.input("one"), "conf.d/empty.toml": "", "conf.d/.hidden.toml": "no toml at all",
            "conf.d/a.toml~": "nor this", "conf.d/README": "nor this",
        ])
        let configuration = try Configuration(file: scratch["penstock.toml"])
        #expect(configuration.inputs.map(\.name) == ["main", "one", "two", "three"])
        #expect(configuration.inputs[1].file == scratch["conf.d/a.toml"] && configuration.inputs[1].place.line == 3)
        // They share what is shared.
        #expect(configuration.inputs.allSatisfy { $0.sharers == 4 && $0.maxOpenFiles == 1024 })
    }

    @Test func `the main file needs no input where conf d has one, and an output may name it`() throws {
        let scratch = try Self.scratch([
            "penstock.toml": Self.output + "from = [\"one\"]\n", "conf.d/a.toml": Self.input("one"),
        ])
        #expect(Self.faults(scratch) == [])
        scratch.remove("conf.d/a.toml")
        #expect(Self.faults(scratch).contains { $0.contains("needs an input") })
    }

    @Test func `faults are told all at once, each with its own file, line and column`() throws {
        let scratch = try Self.scratch([
            "penstock.toml": Self.input("main") + Self.output + "lingr = \"1s\"\n",
            "conf.d/a.toml": Self.input("one", "start_att = \"end\"\n"),
            "conf.d/b.toml": "[inputs.two\n",
            "conf.d/c.toml": "\n[agent]\nstate_dir = \"/tmp\"\n" + Self.output,
        ])
        let faults = Self.faults(scratch)
        #expect(
            faults.map { String($0.prefix { $0 != " " }) } == [
                "penstock.toml:8:1:", "conf.d/a.toml:4:1:", "conf.d/b.toml:1:12:", "conf.d/c.toml:2:2:",
                "conf.d/c.toml:4:2:",
            ],
            "\(faults)"
        )
        #expect(
            faults.last == "conf.d/c.toml:4:2: outputs: only [inputs.NAME] may stand here: move it to penstock.toml"
        )
    }

    @Test func `a name that two files have is refused with both places`() throws {
        let scratch = try Self.scratch([
            "penstock.toml": Self.output + Self.input("app"), "conf.d/a.toml": "\n" + Self.input("app"),
            "conf.d/b.toml": Self.input("app"),
        ])
        #expect(
            Self.faults(scratch) == [
                "conf.d/a.toml:2:1: inputs.app: penstock.toml:5:1 has an input of this name already: rename one of them",
                "conf.d/b.toml:1:1: inputs.app: penstock.toml:5:1 has an input of this name already: rename one of them",
            ]
        )
    }

    @Test func `two files that listen on one address are told apart`() throws {
        let socket = "type = \"syslog\"\nlisten = [\"udp://127.0.0.1:5514\"]\n"
        let scratch = try Self.scratch([
            "penstock.toml": Self.output + "[inputs.one]\n" + socket, "conf.d/a.toml": "[inputs.two]\n" + socket,
        ])
        #expect(
            Self.faults(scratch) == [
                "conf.d/a.toml:3:10: inputs.two.listen: inputs.one has udp://127.0.0.1:5514 already"
            ]
        )
    }

    @Test func `a folder in conf d that is named like a file is told, and an unreadable syntax beside it`() throws {
        let scratch = try Self.scratch(["penstock.toml": Self.output + "oops\n", "conf.d/b.toml": Self.input("one")])
        try Folder.create(scratch["conf.d/a.toml"])
        let faults = Self.faults(scratch)
        #expect(faults.count == 2 && faults[0].hasPrefix("penstock.toml:5:"), "\(faults)")
        #expect(faults.last?.hasPrefix("conf.d/a.toml:0:0: cannot be read: ") ?? false, "\(faults)")
    }

    @Test func `an input that moves to another file is the same`() throws {
        let scratch = try Self.scratch(["penstock.toml": Self.input("app") + Self.output])
        let before = try Configuration(file: scratch["penstock.toml"])
        scratch.remove("penstock.toml")
        try scratch.write("penstock.toml", Self.output)
        try scratch.write("conf.d/app.toml", "\n\n" + Self.input("app"))
        let after = try Configuration(file: scratch["penstock.toml"])
        #expect(before.inputs != after.inputs && before.inputs[0].isSame(as: after.inputs[0]))
    }
}
