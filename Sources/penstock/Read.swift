import Agent
import ArgumentParser
import Kinesis
import Platform

struct Read: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Print the records of a stream, taken out of their aggregates.",
        discussion: """
            Reads every shard from --from to its present end; with --follow, on and on. A shard that came out of a split or a \
            merge is read behind those it was made of.
            """
    )

    @Argument(help: "The stream's name or ARN; none with --dead-letters.")
    var stream: String?

    @Flag(help: "Print the dead letters instead: records that could not be sent as they are.")
    var deadLetters = false

    @OptionGroup var source: ConfigurationOption

    @OptionGroup var place: PlaceOptions

    @Option(help: "Where to begin: trim-horizon, latest, or a time like 2026-11-21T08:00:00Z.")
    var from = "trim-horizon"

    @Option(help: "raw, json or hex.")
    var format = RecordFormat.raw

    @Flag(help: "Go on with what comes, until stopped.")
    var follow = false

    @Flag(inversion: .prefixedNo, help: "Inflate records that are gzip, and part blocks into their lines.")
    var gunzip = true

    @Flag(help: "Print aggregates as well that the KCL drops: one of their records lies outside the shard's range.")
    var misplaced = false

    @Option(help: "Stop after so many records.")
    var limit: Int?

    func run() throws {
        if deadLetters { return try readDeadLetters() }
        guard let stream else { throw ValidationError("name a stream, or --dead-letters") }
        let start = try start()
        let signals = try StopSignals()
        let name = stream.hasPrefix("arn:") ? StreamName.arn(stream) : .name(stream)
        let endpoint = try place.resolved(for: name)
        let reader = StreamReader(
            endpoint,
            stream: name,
            credentials: place.credentials(in: endpoint.region)
        )
        var printer = RecordPrinter(format: format, inflates: gunzip, printsMisplaced: misplaced)
        do {
            try read(reader, start, signals, &printer)
        } catch let failure as CallFailure {
            printer.flush()
            StandardError.write("penstock: \(stream): \(failure)\n")
            throw Exit.unavailable
        }
        printer.flush()
        if printer.misplaced.aggregates > 0 {
            StandardError.write(
                "penstock: \(printer.misplaced.aggregates) aggregates with \(printer.misplaced.records) records hold a record "
                    + "outside the range of the shard they were read from: the KCL drops them whole"
                    + (misplaced ? "\n" : ", and so they are left out here; --misplaced prints them\n")
            )
            throw Exit.badData
        }
    }

    /// Prints the dead letters of a configuration's state directory, the oldest first.
    private func readDeadLetters() throws {
        let folder = DeadLetterFolder(stateDirectory: try source.load().agent.stateDirectory)
        var printer = DeadLetterPrinter(format: format, inflates: gunzip)
        var unreadable = 0
        do {
            try folder.lines { line, read in
                if let read {
                    printer.print(line, read.time, read.letter, most: (limit ?? .max) - printer.count)
                } else {
                    unreadable += 1
                }
                return printer.count < limit ?? .max
            }
        } catch {
            printer.flush()
            StandardError.write("penstock: \(error)\n")
            throw Exit.cannotWrite
        }
        printer.flush()
        guard unreadable == 0 else {
            StandardError.write("penstock: \(unreadable) lines of \(folder.path) cannot be read\n")
            throw Exit.badData
        }
    }

    private func start() throws -> StreamReader.Start {
        switch from.lowercased().replacing("_", with: "-") {
        case "trim-horizon": return .trimHorizon
        case "latest": return .latest
        default:
            guard let milliseconds = Timestamp.milliseconds(from) else {
                throw ValidationError("--from takes trim-horizon, latest, or a time like 2026-11-21T08:00:00Z")
            }
            return .at(milliseconds: milliseconds)
        }
    }

    private func read(
        _ reader: StreamReader,
        _ start: StreamReader.Start,
        _ signals: borrowing StopSignals,
        _ printer: inout RecordPrinter
    ) throws {
        var walk = ShardWalk()
        let listed = try reader.shards()
        if case .latest = start { walk.add(listed.filter(\.shard.isOpen)) } else { walk.add(listed) }
        var start = start
        var iterators: [(shard: Shard, iterator: String)] = []
        let bell = try Doorbell()
        while true {
            for shard in walk.takeReady() {
                iterators.append((shard, try reader.iterator(of: shard.id, from: start)))
            }
            // What a shard becomes later is new from its first record on.
            if case .latest = start { start = .trimHorizon }
            guard !iterators.isEmpty else { return }
            var isQuiet = true
            var next: [(shard: Shard, iterator: String)] = []
            for (shard, iterator) in iterators {
                let page = try reader.page(at: iterator)
                for record in page.records {
                    let origin = RecordPrinter.Origin(
                        partitionKey: record.partitionKey,
                        shard: shard,
                        sequenceNumber: record.sequenceNumber
                    )
                    printer.print(record.data.span, from: origin, most: (limit ?? .max) - printer.count)
                    if let limit, printer.count >= limit { return }
                }
                isQuiet = isQuiet && page.records.isEmpty
                if let more = page.next {
                    if follow || page.millisecondsBehind > 0 || !shard.isOpen { next.append((shard, more)) }
                } else {
                    isQuiet = false
                    walk.ended(shard.id, children: try children(page, of: shard, reader))
                }
                if signals.next() != nil { return }
            }
            iterators = next
            if follow { printer.flush() }
            // Five reads a second is what a shard allows.
            if isQuiet, !iterators.isEmpty {
                bell.wait(or: signals.number, atMost: follow ? .seconds(1) : .milliseconds(200))
            }
        }
    }
}

extension Read {
    /// What a shard became; not every endpoint tells at its end.
    private func children(
        _ page: StreamReader.Page,
        of shard: Shard,
        _ reader: StreamReader
    ) throws -> [ShardWalk.Member] {
        page.children.isEmpty ? try reader.shards().filter { $0.parents.contains(shard.id) } : page.children
    }
}

/// Where a command finds Kinesis.
struct PlaceOptions: ParsableArguments {
    @Option(help: "The region; default: the environment's.")
    var region: String?

    @Option(help: "Another endpoint than the region's, like http://127.0.0.1:4567.")
    var endpoint: String?

    @Option(help: "A profile of the shared AWS files.")
    var profile = ""

    /// The endpoint they name together.
    func resolved(for stream: StreamName) throws -> KinesisEndpoint {
        let region = region ?? Machine.environment("AWS_REGION") ?? Machine.environment("AWS_DEFAULT_REGION")
        if let endpoint = endpoint ?? RegionalEndpoints.override(of: "kinesis", Machine.environment) {
            guard endpoint.hasPrefix("http://") || endpoint.hasPrefix("https://") else {
                throw ValidationError("--endpoint takes a URL, like http://127.0.0.1:4567")
            }
            return KinesisEndpoint(url: endpoint, region: region ?? "us-east-1")
        }
        guard let region = region ?? CredentialSource(profile: profile).region() else {
            throw ValidationError("set --region, or AWS_REGION in the environment")
        }
        return KinesisEndpoint(RegionalEndpoints(region: region), stream: stream)
    }

    /// On loopback nobody looks at the key: one need not have any.
    func credentials(in region: String) -> CredentialSource {
        var source = CredentialSource(profile: profile)
        source.endpoints.region = region
        source.caFile = Machine.environment("AWS_CA_BUNDLE").flatMap { $0.isEmpty ? nil : $0 }
        let isLocal = endpoint.map { $0.contains("//127.0.0.1") || $0.contains("//localhost") } ?? false
        return isLocal && !source.hasKeysAtHand ? .embedded : source
    }
}

/// Times as people write them: RFC 3339 in UTC, or seconds since 1970.
enum Timestamp {
    static func milliseconds(_ text: String) -> Int64? {
        if let seconds = Double(text) { return Int64(exactly: (seconds * 1000).rounded()) }
        // 2026-11-21T08:00:00[.123]Z
        guard text.hasSuffix("Z") else { return nil }
        let halves = text.dropLast().split(whereSeparator: { $0 == "T" || $0 == " " })
        guard halves.count == 2 else { return nil }
        let date = halves[0].split(separator: "-").compactMap { Int($0) }
        let clock = halves[1].split(separator: ":")
        guard date.count == 3, clock.count == 3, let hour = Int(clock[0]), let minute = Int(clock[1]),
            let second = Double(clock[2]),
            (0...9999).contains(date[0]), (1...12).contains(date[1]), (1...31).contains(date[2]),
            (0..<24).contains(hour), (0..<60).contains(minute), (0..<61).contains(second)
        else { return nil }
        var time = CivilTime(unixSeconds: 0)
        (time.year, time.month, time.day, time.hour, time.minute) = (date[0], date[1], date[2], hour, minute)
        return time.unixSeconds * 1000 + Int64((second * 1000).rounded())
    }
}
