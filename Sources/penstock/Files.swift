import Agent
import ArgumentParser
import Kinesis
import Platform

struct Files: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show how much of each tailed file is in Kinesis, rotated ones too.",
        discussion: """
            Exits with 0 when every file shown is all delivered, and with 1 otherwise, so that a script can delete what it \
            wrote:
                penstock files --quiet /var/log/app/app.log.1 && rm /var/log/app/app.log.1
            """
    )

    @OptionGroup var source: ConfigurationOption

    @Argument(help: "Files to show; all if none is named.")
    var paths: [String] = []

    @Flag(help: "Print a JSON object a line.")
    var json = false

    @Flag(help: "Print nothing; the exit code tells.")
    var quiet = false

    func run() throws {
        let configuration = try source.load()
        let report: FileReport
        do { report = try FileReport(stateDirectory: configuration.agent.stateDirectory) } catch {
            StandardError.write("penstock: \(error)\n")
            throw Exit.unavailable
        }
        var files = report.files
        var isComplete = true
        // The state knows a file by its own name, not by a link's.
        let paths = paths.map { Folder.targets(of: $0).last ?? $0 }
        if !paths.isEmpty {
            // Of the files that had a rotated name one after the other, the present one is meant.
            let present = Set(files.lazy.filter { $0.size != nil }.map(\.path))
            files.removeAll { !paths.contains($0.path) || $0.size == nil && present.contains($0.path) }
            for path in paths where !files.contains(where: { $0.path == path }) {
                isComplete = false
                if !quiet { StandardError.write("penstock: \(path) is not tailed, or not by this name\n") }
            }
        }
        if !quiet { json ? printJSON(files) : printTable(files) }
        if !quiet, !json, paths.isEmpty {
            printAccounts(InputAccount.all(stateDirectory: configuration.agent.stateDirectory))
        }
        // A file that is gone cannot be waited for; who asks for one by name wants to know.
        guard isComplete, files.allSatisfy({ $0.isAllDelivered || $0.size == nil && paths.isEmpty }) else {
            throw ExitCode(1)
        }
    }

    /// Where each input's records are, as the agent wrote it down last.
    private func printAccounts(_ accounts: [InputAccount]) {
        guard !accounts.isEmpty else { return }
        let names = ["input", "read", "carried over"] + InputAccount.places
        var rows = [names]
        for account in accounts {
            rows.append(
                [account.input] + ([account.read, account.carriedOver] + account.records).map(DemoScreen.grouped)
            )
        }
        let widths = names.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        StandardOutput.write("\nrecords since the agent's last start: read + carried over = the sum of the others\n")
        for row in rows {
            let cells = row.indices.map { column -> String in
                let space = String(repeating: " ", count: widths[column] - row[column].count)
                return column == 0 ? row[column] + space : space + row[column]
            }
            StandardOutput.write("  " + cells.joined(separator: "  ") + "\n")
        }
    }

    private func printJSON(_ files: [FileReport.File]) {
        for file in files {
            let object = WireValue.object([
                "input": .text(file.input), "path": .text(file.path), "size": file.size.map { .integer(Int64($0)) },
                "delivered": .integer(Int64(file.delivered)), "lag": .integer(Int64(file.lag)),
                "allDelivered": .bool(file.isAllDelivered),
            ])
            StandardOutput.write(String(decoding: WireFormat.json.encode(object), as: UTF8.self) + "\n")
        }
    }

    private func printTable(_ files: [FileReport.File]) {
        func right(_ text: String, _ width: Int) -> String {
            String(repeating: " ", count: max(0, width - text.count)) + text
        }
        StandardOutput.write(right("size", 16) + right("delivered", 16) + right("lag", 14) + "  file\n")
        for file in files {
            let note = file.size == nil ? "  (gone)" : file.isAllDelivered ? "  all delivered" : ""
            let size = file.size.map { DemoScreen.grouped(Int($0)) } ?? "-"
            StandardOutput.write(
                right(size, 16) + right(DemoScreen.grouped(Int(file.delivered)), 16)
                    + right(DemoScreen.grouped(Int(file.lag)), 14) + "  \(file.path.printable)\(note)\n"
            )
        }
    }
}
