import Agent
import ArgumentParser
import Kinesis
import Platform

struct Spool: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Look into the spool: what waits on the disk because Kinesis could not take it.",
        subcommands: [List.self, Verify.self, Repair.self, Export.self]
    )

    /// The reports of a configuration's spools.
    private static func reports(_ source: ConfigurationOption, verifying: Bool = false) throws -> [SpoolReport] {
        let configuration = try source.load()
        do {
            return try SpoolReport.all(stateDirectory: configuration.agent.stateDirectory, verifying: verifying)
        } catch {
            StandardError.write("penstock: \(error)\n")
            throw Exit.cannotWrite
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show the segments, and how many records in them are owed to Kinesis."
        )

        @OptionGroup var source: ConfigurationOption

        @Flag(help: "Print a JSON object a segment.")
        var json = false

        func run() throws {
            let reports = try Spool.reports(source)
            for report in reports { json ? printJSON(report) : printTable(report) }
            if reports.isEmpty, !json { print("there is no spool: nothing was ever spooled") }
        }

        private func printJSON(_ report: SpoolReport) {
            for segment in report.segments {
                let inputs = segment.inputs.sorted { $0.key < $1.key }.map { name, amount in
                    WireValue.object([
                        "input": .text(name), "records": .integer(Int64(amount.records)),
                        "bytes": .integer(Int64(amount.bytes)),
                    ])
                }
                let object = WireValue.object([
                    "output": .text(report.output), "segment": .text(segment.path),
                    "size": .integer(Int64(segment.size)),
                    "created": .integer(segment.created / 1000), "owed": .integer(Int64(segment.owed)),
                    "inputs": .list(inputs), "damaged": .integer(Int64(segment.damaged)),
                    "torn": .integer(Int64(segment.torn)), "closed": .bool(segment.isClosed),
                    "setAside": .bool(segment.isSetAside),
                ])
                StandardOutput.write(String(decoding: WireFormat.json.encode(object), as: UTF8.self) + "\n")
            }
        }

        private func printTable(_ report: SpoolReport) {
            func right(_ text: String, _ width: Int) -> String {
                String(repeating: " ", count: max(0, width - text.count)) + text
            }
            let now = Machine.wallMilliseconds()
            print("output \(report.output): \(report.folder)")
            print(right("size", 16) + right("records", 12) + right("lines", 14) + right("age", 10) + "  segment")
            var total = (size: 0, owed: 0, lines: 0)
            for segment in report.segments {
                let lines = segment.inputs.values.reduce(0) { $0 + $1.records }
                total = (total.size + segment.size, total.owed + segment.owed, total.lines + lines)
                var notes = segment.isClosed ? "" : "  open"
                if segment.isSetAside { notes = "  set aside" }
                if segment.damaged > 0 { notes += "  \(segment.damaged) bytes damaged" }
                if segment.torn > 0 { notes += "  \(segment.torn) bytes not finished" }
                print(
                    right(DemoScreen.grouped(segment.size), 16) + right(DemoScreen.grouped(segment.owed), 12)
                        + right(DemoScreen.grouped(lines), 14)
                        + right(segment.created == 0 ? "-" : "\(max(0, now - segment.created) / 1000) s", 10)
                        + "  \(segment.path.split(separator: "/").last ?? "")\(notes)"
                )
            }
            print(
                right(DemoScreen.grouped(total.size), 16) + right(DemoScreen.grouped(total.owed), 12)
                    + right(DemoScreen.grouped(total.lines), 14) + right("", 10) + "  in all"
            )
        }
    }

    struct Verify: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Read every record and compare its checksum.",
            discussion: "Exits with 65 when something is damaged."
        )

        @OptionGroup var source: ConfigurationOption

        func run() throws {
            var (records, damaged) = (0, 0)
            for report in try Spool.reports(source, verifying: true) {
                for segment in report.segments {
                    records += segment.owed
                    guard segment.damaged > 0 || segment.isSetAside else { continue }
                    damaged += 1
                    print("\(segment.path): \(segment.damaged) bytes are damaged; \(segment.owed) records are whole")
                }
                if report.restBytes > 0 {
                    print(
                        "\(report.folder): \(report.restBytes) bytes of damaged segments, delivered as far as they went"
                    )
                }
            }
            print("\(records) records are whole")
            if damaged > 0 {
                StandardError.write(
                    "penstock: \(damaged) segments are damaged; stop the agent and run penstock spool repair\n"
                )
                throw Exit.badData
            }
        }
    }

    struct Repair: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Save the whole records of segments that were set aside; no agent may run.",
            discussion:
                "Torn ends are cut off by every start of an agent. The damaged file stays, with .rest at its end."
        )

        @OptionGroup var source: ConfigurationOption

        func run() throws {
            let configuration = try source.load()
            do {
                let repaired = try SpoolReport.repair(stateDirectory: configuration.agent.stateDirectory)
                for each in repaired {
                    print("\(each.path): \(each.records) records saved, \(each.lostBytes) bytes lost")
                }
                if repaired.isEmpty { print("nothing to repair") }
            } catch {
                StandardError.write("penstock: \(error)\n")
                throw Exit.cannotWrite
            }
        }
    }

    struct Export: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print the records that wait, the oldest first; they stay in the spool."
        )

        @OptionGroup var source: ConfigurationOption

        @Option(help: "raw, json or hex.")
        var format = RecordFormat.raw

        @Option(help: "Stop after so many records.")
        var limit: Int?

        func run() throws {
            var printer = RecordPrinter(format: format, inflates: false)
            let most = limit ?? .max
            do {
                for report in try Spool.reports(source) {
                    try report.records { key, data in
                        printer.print(data, from: .init(partitionKey: key.partitionKey), most: most - printer.count)
                        return printer.count < most
                    }
                }
            } catch let fault as SpoolReport.Unreadable {
                printer.flush()
                StandardError.write("penstock: \(fault)\n")
                throw Exit.badData
            }
            printer.flush()
        }
    }
}
