import Admin
import Agent
import ArgumentParser
import Bytes
import Kinesis
import Platform

struct Top: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Watch a running agent: rates, inputs, shards, files, sockets, spool, the last warnings.",
        discussion: """
            Asks the agent's admin server, whose address and token stand in the configuration. q ends it. Where the output is \
            no terminal it prints what there is once, without colours, and ends.
            Exit codes: 0 done, 69 no agent answers, 77 the token is not accepted, 78 bad configuration.
            """
    )

    @OptionGroup var source: ConfigurationOption

    @Option(help: "The admin server's address; default: agent.admin of the configuration.")
    var url: String?

    @Option(help: "A file with the token; default: agent.admin_token_file.")
    var tokenFile: String?

    @Option(help: "How often to look.")
    var every = "1s"

    @Flag(help: "Print the status as JSON, once.")
    var json = false

    func run() throws {
        guard let period = Units.duration(every), period >= .milliseconds(100), period <= .seconds(3600) else {
            throw ValidationError("--every takes 100ms to 1h")
        }
        let signals = try StopSignals()
        let site = try reader()
        if json {
            let first = try look(site)
            return StandardOutput.write(first.bytes.span)
        }
        if let terminal = Terminal() { return watch(site, terminal, period, signals) }
        // Rates need two looks.
        let first = try look(site)
        let bell = try Doorbell()
        bell.wait(or: signals.number, atMost: min(period, .seconds(1)))
        let second = try look(site)
        let screen = TopScreen(second, before: first, rows: .max, columns: .max)
        StandardOutput.write(screen.lines.map { $0.plain + "\n" }.joined())
    }

    private func reader() throws -> StatusReader {
        if let url { return try StatusReader(url: url, tokenFile: tokenFile ?? "") }
        let agent = try source.load().agent
        guard let admin = agent.admin else {
            StandardError.write("penstock: agent.admin is \"\": this agent has no admin server\n")
            throw Exit.badConfiguration
        }
        return try StatusReader(url: "http://\(admin.reachable)", tokenFile: tokenFile ?? agent.adminTokenFile)
    }

    private func look(_ site: StatusReader) throws -> StatusSample {
        do { return try site.look() } catch {
            StandardError.write("penstock: \(error)\n")
            throw error.isRefusal ? Exit.noPermission : Exit.unavailable
        }
    }

    /// Draws until q is hit, or a signal comes.
    private func watch(
        _ site: StatusReader,
        _ terminal: consuming Terminal,
        _ period: Duration,
        _ signals: borrowing StopSignals
    ) {
        var (last, before): (StatusSample?, StatusSample?)
        var fault: StatusFault?
        var next = Instant.now
        var drawn = (rows: 0, columns: 0)
        while signals.next() == nil {
            let size = terminal.size
            if .now >= next {
                do throws(StatusFault) {
                    let sample = try site.look()
                    (before, last, fault) = (last, sample, nil)
                } catch { fault = error }
                next = .now + period
                drawn = (0, 0)
            }
            if drawn != size {
                draw(last, before, fault, size)
                drawn = size
            }
            // Soon enough for a size that has changed.
            terminal.wait(or: signals.number, atMost: min(.milliseconds(200), max(.zero, next - .now)))
            while let key = terminal.key() {
                if key == UInt8(ascii: "q") || key == UInt8(ascii: "Q") { return }
                if key == UInt8(ascii: " ") { next = .now }
            }
        }
    }

    private func draw(
        _ last: StatusSample?,
        _ before: StatusSample?,
        _ fault: StatusFault?,
        _ size: (rows: Int, columns: Int)
    ) {
        var lines: [StyledLine] = []
        if let fault { lines.append(.init([.init("no answer: \(fault)", .bad)])) }
        if let last {
            let rows = size.rows - lines.count
            lines += TopScreen(last, before: before, rows: rows, columns: size.columns).lines
        }
        // From the top, each line to its end, and nothing below: no flicker.
        let text = lines.prefix(size.rows).map { $0.styled(columns: size.columns) + "\u{1b}[K" }.joined(
            separator: "\r\n"
        )
        StandardOutput.write("\u{1b}[H\(text)\u{1b}[J")
    }
}

extension InternetAddress {
    /// Where this machine reaches what listens here.
    fileprivate var reachable: String {
        if host == "0.0.0.0" { return "127.0.0.1:\(port)" }
        if host == "::" { return "[::1]:\(port)" }
        return "\(self)"
    }
}
