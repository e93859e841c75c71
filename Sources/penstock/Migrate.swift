import Agent
import ArgumentParser
import Platform

struct Migrate: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Turn an Amazon Kinesis Agent's configuration into ours.",
        discussion: """
            The same files, the same streams, the same records: what has no equal, or not quite, is a comment in the \
            configuration and a line on standard error. Secrets are not copied. An agent delivers to one stream: with several \
            streams --output penstock.toml writes penstock.STREAM.toml for each, and --stream names one of them.
            Exit codes: 0 done, 1 done but for what is NOT CARRIED OVER, 65 agent.json cannot be translated, 66 it cannot be \
            read, 73 the configuration cannot be written.
            """
    )

    @Argument(help: "agent.json, and further files with flows; default: those in agent.d beside it.")
    var files = ["/etc/aws-kinesis/agent.json"]

    @Option(name: .shortAndLong, help: "The file to write; default: standard output.")
    var output: String?

    @Option(help: "Write the configuration for this stream alone.")
    var stream: String?

    @Flag(help: "Replace files that are there.")
    var force = false

    func run() throws {
        let migration = try translated()
        for remark in migration.remarks { StandardError.write("\(remark)\n") }
        var configurations = migration.configurations
        if let stream {
            configurations.removeAll { $0.stream != stream }
            if configurations.isEmpty {
                let names = migration.configurations.map(\.stream).joined(separator: ", ")
                throw ValidationError("no flow delivers to the Kinesis stream \(stream): there are \(names)")
            }
        }
        if let output {
            try write(configurations, to: output, named: migration.configurations.count > 1 && stream == nil)
        } else if let only = configurations.first, configurations.count == 1 {
            StandardOutput.write(only.toml)
        } else if !configurations.isEmpty {
            throw ValidationError(
                "the flows deliver to \(configurations.count) streams, which takes as many agents: --output penstock.toml writes a "
                    + "file for each, --stream NAME writes one of \(configurations.map(\.stream).joined(separator: ", "))"
            )
        }
        if migration.isIncomplete { throw ExitCode(1) }
    }

    private func translated() throws -> Migration {
        var texts: [(name: String, text: [UInt8])] = []
        for file in files + (files.count == 1 ? Self.flows(beside: files[0]) : []) {
            do { texts.append((file, try Folder.read(file, limit: 4 << 20))) } catch {
                StandardError.write("penstock: \(file): cannot be read: \(error.reason)\n")
                throw Exit.noInput
            }
        }
        do { return try Migration(texts) } catch {
            StandardError.write("penstock: \(error)\n")
            throw Exit.badData
        }
    }

    /// The files of agent.d, which the Kinesis Agent reads as well.
    private static func flows(beside file: String) -> [String] {
        let folder = Folder.joined(Folder.parent(of: file), "agent.d")
        let paths = ((try? Folder.entries(of: folder)) ?? []).map { Folder.joined(folder, $0.name) }.sorted()
        return paths.filter { (try? FileStatus(of: $0))?.kind == .regular }
    }

    private func write(_ configurations: [Migration.StreamConfiguration], to output: String, named: Bool) throws {
        let paths = configurations.map { named ? Self.path(output, of: $0.stream) : output }
        // All or nothing: what is there may be in use.
        if !force, let path = paths.first(where: { (try? FileStatus(of: $0)) != nil }) {
            StandardError.write("penstock: \(path) is there already: name another, or replace it with --force\n")
            throw Exit.cannotWrite
        }
        for (configuration, path) in zip(configurations, paths) {
            do { try Folder.replace(path, with: Array(configuration.toml.utf8)) } catch {
                StandardError.write("penstock: \(error)\n")
                throw Exit.cannotWrite
            }
            StandardError.write(
                "\(path): for the stream \(configuration.stream); see penstock check --config \(path)\n"
            )
        }
    }

    /// `penstock.toml` → `penstock.app-logs.toml`.
    private static func path(_ output: String, of stream: String) -> String {
        output.hasSuffix(".toml") ? "\(output.dropLast(5)).\(stream).toml" : "\(output).\(stream)"
    }
}
