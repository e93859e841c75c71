import Kinesis
internal import Platform

extension Configuration {
    /// Reads `text`, which came from `file`.
    ///
    /// - Parameters:
    ///   - additions: files that may hold inputs, and nothing else.
    ///   - environment: what `${NAME}` stands for, and the region where none is set.
    ///   - region: the region of a profile, or of this machine, where the environment has none either.
    public init(
        text: [UInt8],
        file: String,
        additions: [Addition] = [],
        environment: @escaping (String) -> String?,
        region: (_ profile: String) -> String? = { _ in nil }
    ) throws(Faults) {
        self.init()
        let faults = TableReader.FaultList(file: file)
        let root = faults.parse(text)
        var reader = root.map { TableReader($0, path: "", faults: faults, environment: environment) }
        if var table = reader?.table("agent") { agent.read(from: &table) }
        var places: [String: String] = [:]
        for (name, table) in reader?.tables("inputs") ?? [] {
            places[name] = "\(file):\(table.place)"
            inputs.append(Input(name: name, table))
        }
        for addition in additions { add(addition, to: file, &places, faults, environment) }
        let ofFiles = inputs.indices.filter { inputs[$0].socket == nil }
        for index in ofFiles {
            inputs[index].sharers = ofFiles.count
            inputs[index].maxOpenFiles = max(1, agent.maxOpenFiles / ofFiles.count)
        }
        for (name, table) in reader?.tables("outputs") ?? [] {
            outputs.append(Output(name: name, table, environment, region))
        }
        if let reader {
            reader.finish()
            checkWhole(reader)
        }
        guard faults.faults.isEmpty else {
            let files = [file] + additions.map(\.file)
            func order(_ fault: Fault) -> (Int, Int, Int) {
                (files.firstIndex(of: fault.file) ?? files.count, fault.place.line, fault.place.column)
            }
            throw Faults(faults: faults.faults.sorted { order($0) < order($1) })
        }
    }

    /// Takes the inputs of another file.
    private mutating func add(
        _ addition: Addition,
        to main: String,
        _ places: inout [String: String],
        _ faults: TableReader.FaultList,
        _ environment: @escaping (String) -> String?
    ) {
        let own = TableReader.FaultList(file: addition.file)
        defer { faults.faults += own.faults }
        guard let root = own.parse(addition.text), case .table(let members) = root.value else { return }
        for member in members where member.key != "inputs" {
            own.add(member.place, member.key, "only [inputs.NAME] may stand here: move it to \(main)")
        }
        var reader = TableReader(root, path: "", faults: own, environment: environment)
        for (name, table) in reader.tables("inputs") {
            if let other = places[name] {
                own.add(table.place, "inputs.\(name)", "\(other) has an input of this name already: rename one of them")
                continue
            }
            places[name] = "\(addition.file):\(table.place)"
            inputs.append(Input(name: name, table))
        }
    }

    /// What no table can know alone.
    private func checkWhole(_ reader: TableReader) {
        if inputs.isEmpty {
            reader.fault(
                nil,
                "needs an input: add a table [inputs.NAME] with type = \"file\" and paths, or type = \"syslog\" and listen"
            )
        }
        if outputs.count != 1 {
            reader.fault(nil, "needs one output, but has \(outputs.count): add one table [outputs.NAME]")
        }
        for (index, input) in inputs.enumerated() {
            for address in input.socket?.listen ?? [] {
                let other = inputs[..<index].first { $0.socket?.listen.contains(where: address.excludes) ?? false }
                guard let other else { continue }
                reader.fault(
                    at: input.place,
                    in: input.file,
                    "inputs.\(input.name).listen",
                    "inputs.\(other.name) has \(address) already"
                )
            }
        }
        checkMemory(reader)
        for output in outputs {
            for name in output.from where !inputs.contains(where: { $0.name == name }) {
                let names = inputs.map { "\"\($0.name)\"" }.joined(separator: ", ")
                reader.fault(
                    at: output.fromPlace,
                    "outputs.\(output.name).from",
                    "\"\(name)\" is no input: the inputs are \(names)"
                )
            }
        }
    }
}

extension Configuration {
    /// Whether the memory holds the longest records; other inputs fit whatever the limit.
    private func checkMemory(_ reader: TableReader) {
        guard outputs.count == 1, let input = activeInputs.first(where: \.hasLongRecords) else { return }
        let least = MemoryPlan(limit: agent.memoryLimit, inputs: activeInputs).leastLimit
        guard agent.memoryLimit < least else { return }
        reader.fault(
            at: input.maxRecordPlace ?? input.place,
            in: input.file,
            "inputs.\(input.name).max_record",
            "records of \(Units.text(bytes: input.maxRecord)) need memory: set agent.memory_limit to"
                + " \"\(Units.text(bytes: least))\" or more, or lower max_record"
        )
    }
}

extension Configuration.Agent {
    fileprivate mutating func read(from table: inout TableReader) {
        table.text("state_dir", into: &stateDirectory)
        if !stateDirectory.hasPrefix("/") { table.fault("state_dir", "must be an absolute path") }
        table.size("memory_limit", in: 48 << 20...1 << 40, into: &memoryLimit)
        table.duration("shutdown_timeout", in: .zero ... .seconds(3600), into: &shutdownTimeout)
        table.choice("log_level", into: &logLevel)
        if var letters = table.table("dead_letters") {
            letters.size("max_size", in: 0...1 << 50, into: &deadLettersMaxSize)
            letters.finish()
        }
        table.integer("max_open_files", in: 16...1_000_000, into: &maxOpenFiles)
        readAdmin(from: &table)
        table.finish()
    }

    private mutating func readAdmin(from table: inout TableReader) {
        isAdminNamed = table.has("admin")
        var address = admin?.description ?? ""
        table.text("admin", into: &address)
        table.text("admin_token_file", into: &adminTokenFile)
        if !adminTokenFile.isEmpty { adminTokenFilePlace = table.place(of: "admin_token_file") }
        if !adminTokenFile.isEmpty, !adminTokenFile.hasPrefix("/") {
            table.fault("admin_token_file", "must be an absolute path")
        }
        guard !address.isEmpty else { return admin = nil }
        guard let parsed = InternetAddress(address) else {
            return table.fault("admin", "must be an address and a port, like \"127.0.0.1:9600\", or \"\" for none")
        }
        admin = parsed
        if !parsed.isLoopback, adminTokenFile.isEmpty {
            table.fault(
                "admin",
                "other machines can reach \(parsed): set admin_token_file to a file with a secret word, or use 127.0.0.1"
            )
        }
    }
}

extension Configuration.Input {
    private enum Kind: String, CaseIterable { case file, syslog, socket }

    fileprivate init(name: String, _ reader: TableReader) {
        var table = reader
        self.init(name: name)
        file = table.file
        var kind = Kind.file
        if !table.has("type") { table.fault(nil, "needs a type: type = \"file\", \"syslog\" or \"socket\"") }
        // What the other keys mean depends on it.
        guard table.choice("type", into: &kind) else { return }
        table.size("max_record", in: 1...Limits.largestRecordBytes, into: &maxRecord)
        // Up to 256 characters of key are counted with the record; the stream's limit must hold for both.
        let streamBytes = maxRecord > Limits.recordBytes ? Limits.largestRecordBytes : Limits.recordBytes
        maxRecord = min(maxRecord, Limits.longestRecord(of: streamBytes))
        if hasLongRecords { maxRecordPlace = table.place(of: "max_record") }
        table.choice("on_oversize", into: &onOversize)
        switch kind {
        case .file: readFiles(&table)
        case .syslog: socket = .init(.syslog, from: &table)
        case .socket: socket = .init(.socket, from: &table)
        }
        place = table.place(of: socket == nil ? "paths" : "listen")
        table.finish()
    }

    private mutating func readFiles(_ table: inout TableReader) {
        table.texts("paths", into: &paths)
        if paths.isEmpty { table.fault("paths", "needs a pattern at least: paths = [\"/var/log/app/*.log\"]") }
        table.texts("exclude", into: &exclude)
        for pattern in paths + exclude where !pattern.hasPrefix("/") {
            table.fault(paths.contains(pattern) ? "paths" : "exclude", "\"\(pattern)\" must be an absolute path")
        }
        table.choice("start_at", into: &startAt)
        table.text("multiline_start", into: &multilineStart)
        if !multilineStart.isEmpty {
            do { _ = try Expression(multilineStart) } catch {
                table.fault(
                    "multiline_start",
                    "is no regular expression (PCRE2): \(error.message), behind \(error.offset) bytes of it"
                )
            }
        }
        table.duration("multiline_timeout", in: .milliseconds(10) ... .seconds(3600), into: &multilineTimeout)
        table.bool("read_compressed", into: &readCompressed)
    }
}

extension Configuration.Output {
    private enum Kind: String, CaseIterable { case kinesis }

    fileprivate init(
        name: String,
        _ reader: TableReader,
        _ environment: (String) -> String?,
        _ findRegion: (_ profile: String) -> String?
    ) {
        var table = reader
        self.init(name: name)
        var kind = Kind.kinesis
        if !table.has("type") { table.fault(nil, "needs a type: type = \"kinesis\"") }
        table.choice("type", into: &kind)
        table.texts("from", into: &from)
        if !from.isEmpty { fromPlace = table.place(of: "from") }
        readPlace(&table, environment, findRegion)
        readAccess(&table, environment)
        readPlacement(&table)

        table.choice("compression", into: &compression)
        table.bool("ordered", into: &ordered)
        if ordered, compression == .gzip {
            table.fault("ordered", "keeps the order of each key, and a block of lines has one for all: use gzip_record")
        }
        if ordered, partitionKey == .spread || partitionKey == .random {
            table.fault(
                "ordered",
                "keeps the order of each partition key: set partition_key to source, host, json: or \"=key\""
            )
        }
        table.bool("aggregate", into: &aggregate)
        table.size("aggregate_max_size", in: 1 << 10...Limits.recordBytes - 1, into: &aggregateMaxSize)
        table.integer("aggregate_max_records", in: 0...1_000_000, into: &aggregateMaxRecords)
        table.duration("linger", in: .zero ... .seconds(60), into: &linger)
        table.integer("max_in_flight", in: 1...1000, into: &maxInFlight)
        table.integer("rate_limit", in: 0...1000, into: &rateLimit)
        table.size("call_max_size", in: 64 << 10...Limits.callBytes, into: &callMaxSize)
        table.integer("call_max_records", in: 1...Limits.callRecords, into: &callMaxRecords)
        table.duration("timeout", in: .milliseconds(100) ... .seconds(300), into: &timeout)
        table.duration("connect_timeout", in: .milliseconds(100) ... .seconds(300), into: &connectTimeout)
        table.choice("wire", into: &wire)
        if var spool = table.table("spool") { self.spool.read(from: &spool) }
        table.finish()
    }

    /// Which stream, and where it is.
    private mutating func readPlace(
        _ table: inout TableReader,
        _ environment: (String) -> String?,
        _ findRegion: (_ profile: String) -> String?
    ) {
        var (streamName, arn, url) = ("", "", "")
        table.text("stream", into: &streamName)
        table.text("stream_arn", into: &arn)
        switch (streamName.isEmpty, arn.isEmpty) {
        case (true, true): table.fault("stream", "needs a stream: stream = \"NAME\", or stream_arn")
        case (false, false): table.fault("stream", "set stream or stream_arn, not both")
        case (false, true): stream = .name(streamName)
        case (true, false): stream = .arn(arn)
        }
        if !streamName.isEmpty, !Self.isStreamName(streamName) {
            table.fault(
                "stream",
                "\"\(streamName)\" is no stream's name: letters, digits, _ . - and at most 128 of them"
            )
        }
        let arnParts = arn.split(separator: ":", omittingEmptySubsequences: false)
        if !arn.isEmpty, arnParts.count != 6 || arnParts[2] != "kinesis" || !arnParts[5].hasPrefix("stream/") {
            table.fault("stream_arn", "must look like arn:aws:kinesis:REGION:ACCOUNT:stream/NAME")
        }
        table.text("region", into: &region)
        table.text("endpoint", into: &url)
        table.text("profile", into: &profile)
        table.bool("fips", into: &fips)
        table.bool("dual_stack", into: &dualStack)
        if url.isEmpty { url = RegionalEndpoints.override(of: "kinesis", environment) ?? "" }
        switch url {
        case "": endpoint = .region
        case "embedded": endpoint = .embedded
        case _ where url.hasPrefix("http://") || url.hasPrefix("https://"): endpoint = .url(url)
        default: table.fault("endpoint", "must be a URL (https://…), or \"embedded\"")
        }
        if endpoint != .region {
            for key in ["fips", "dual_stack"] where key == "fips" ? fips : dualStack {
                table.fault(key, "chooses among the region's endpoints: leave it out, or leave endpoint out")
            }
        }
        let regionOfARN = arnParts.count == 6 ? String(arnParts[3]) : ""
        if region.isEmpty { region = regionOfARN }
        if region.isEmpty {
            region = ["AWS_REGION", "AWS_DEFAULT_REGION"].lazy.compactMap(environment).first { !$0.isEmpty } ?? ""
        }
        if region.isEmpty, endpoint == .region { region = findRegion(profile) ?? "" }
        if region.isEmpty, endpoint != .region { region = "us-east-1" }
        if region.isEmpty {
            table.fault(
                "region",
                "needs a region: region = \"eu-west-1\", or AWS_REGION in the environment, or region in the profile; no "
                    + "instance metadata tells one here"
            )
        } else if !region.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") }) {
            table.fault("region", "\"\(region)\" is no region's name, like eu-west-1")
        } else if arnParts.count == 6, arnParts[2] == "kinesis", endpoint == .region {
            let partition = Partition(region: region).name
            if arnParts[1] != partition {
                table.fault("stream_arn", "lies in \(arnParts[1]), but \(region) in \(partition)")
            }
            if regionOfARN != region { table.fault("stream_arn", "lies in \(regionOfARN), but region is \(region)") }
        }
    }

    /// In whose name, and through what, Kinesis is called.
    private mutating func readAccess(_ table: inout TableReader, _ environment: (String) -> String?) {
        table.text("role_arn", into: &roleARN)
        table.text("external_id", into: &externalID)
        let parts = roleARN.split(separator: ":", omittingEmptySubsequences: false)
        if !roleARN.isEmpty, parts.count != 6 || parts[2] != "iam" || !parts[5].hasPrefix("role/") {
            table.fault("role_arn", "must look like arn:aws:iam::ACCOUNT:role/NAME")
        }
        if roleARN.isEmpty, !externalID.isEmpty { table.fault("external_id", "belongs to a role: set role_arn") }
        caFile = environment("AWS_CA_BUNDLE") ?? ""
        table.text("ca_file", into: &caFile)
        table.text("proxy", into: &proxy)
        // Not shown: it may hold a password.
        if !proxy.isEmpty, !proxy.hasPrefix("http://") {
            table.fault("proxy", "must look like http://host:port, or http://user:password@host:port")
        }
    }

    private mutating func readPlacement(_ table: inout TableReader) {
        var key = "spread"
        table.text("partition_key", into: &key)
        switch key {
        case "spread": partitionKey = .spread
        case "source": partitionKey = .source
        case "host": partitionKey = .host
        case "random": partitionKey = .random
        case _ where key.hasPrefix("=") && (1...Limits.partitionKeyCharacters).contains(key.unicodeScalars.count - 1):
            partitionKey = .literal(String(key.dropFirst()))
        case _ where key.hasPrefix("json:"):
            if let pointer = JSONPointer(String(key.dropFirst(5))) {
                partitionKey = .field(pointer)
            } else {
                table.fault(
                    "partition_key",
                    "must name a value as \"json:/device/id\" does: a / before each name, ~1 for a / and ~0 for a ~ in one"
                )
            }
        default:
            table.fault(
                "partition_key",
                "must be \"spread\", \"source\", \"host\", \"random\", \"json:/path/to/value\", or \"=\" and a key of 1 to 256 "
                    + "characters"
            )
        }
    }

    private static func isStreamName(_ name: String) -> Bool {
        (1...128).contains(name.utf8.count)
            && name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "_.-".contains($0)) }
    }
}

extension Configuration.SpoolSettings {
    /// Less would not hold the segments that are being written and read.
    private static let leastSize = 16 << 20

    fileprivate mutating func read(from table: inout TableReader) {
        table.size("max_size", in: 0...1 << 50, into: &maxSize)
        if maxSize > 0, maxSize < Self.leastSize { table.fault("max_size", "must be 0 (no spool), or 16MiB at least") }
        table.size("keep_free", in: 0...1 << 50, into: &keepFree)
        table.choice("when", into: &when)
        var text = ""
        table.text("sync", into: &text)
        switch text {
        case "": break
        case "always": sync = .always
        case "never": sync = .never
        default:
            if let period = Units.duration(text), (.milliseconds(1) ... .seconds(60)).contains(period) {
                sync = .period(period)
            } else {
                table.fault("sync", "must be \"always\", \"never\", or a period of 1ms to 60s, like \"1s\"")
            }
        }
        table.finish()
    }
}
