import ArgumentParser

/// The command.
///
/// Each subcommand has a file of its own.
@main
struct Penstock: ParsableCommand {
    static let version = "0.1.0"

    static let configuration = CommandConfiguration(
        commandName: "penstock",
        abstract: "Delivers log files to Amazon Kinesis Data Streams as KPL aggregates, without losing a line.",
        discussion: """
            A first look, with nothing but this binary:   penstock demo
            A configuration, checked and run:             penstock check && penstock run
            """,
        version: version,
        subcommands: [
            Run.self, Check.self, Explain.self, Migrate.self, Files.self, Top.self, Demo.self, Local.self,
            Read.self, Decode.self, Spool.self, Completion.self,
        ]
    )
}

/// Exit codes, as in sysexits.h.
enum Exit {
    static let badData = ExitCode(65)
    static let noInput = ExitCode(66)
    static let unavailable = ExitCode(69)
    static let cannotWrite = ExitCode(73)
    static let noPermission = ExitCode(77)
    static let badConfiguration = ExitCode(78)
}
