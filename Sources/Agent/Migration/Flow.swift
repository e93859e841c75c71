/// A flow of agent.json: which files go to which stream, and how.
struct Flow {
    /// Of Kinesis Data Streams; nil: it delivers to Firehose.
    private(set) var stream: String?
    private(set) var deliveryStream: String?
    /// What an input is called that nobody has named.
    private(set) var name = ""
    private(set) var paths: [String] = []
    /// Of names that begin with a dot, which Java's wildcards take in.
    private(set) var hiddenPaths: [String] = []
    private(set) var exclude: [String] = []
    /// Whether several files may fit.
    private(set) var hasWildcards = false
    private(set) var startsAtBeginning = false
    private(set) var multilineStart: String?
    private(set) var isDeterministic = false
    private(set) var maxBufferAge: Duration?
    private(set) var maxBufferRecords: Int?
    private(set) var maxBufferBytes: Int?
    private(set) var remarks: [Migration.Remark] = []

    private let object: AgentFile

    /// Keys that tune what Penstock finds out, or does, by itself.
    private static let ownAffairs: Set = [
        "minTimeBetweenFilePollsMillis", "maxTimeBetweenFileTrackerRefreshMillis", "waitOnFullPublishQueueMillis",
        "waitOnEmptyPublishQueueMillis", "waitOnFullRetryQueueMillis", "retryInitialBackoffMillis",
        "retryMaxBackoffMillis",
        "publishQueueCapacity", "log.emitInternalMetrics",
    ]
    private static let read: Set = [
        "filePattern", "kinesisStream", "deliveryStream", "partitionKeyOption", "multiLineStartPattern",
        "initialPosition",
        "maxBufferAgeMillis", "maxBufferSizeBytes", "maxBufferSizeRecords", "skipHeaderLines", "fileFooterPattern",
        "truncatedRecordTerminator", "dataProcessingOptions", "aggregatedRecordSizeBytes",
    ]
    /// Packed files, which the Kinesis Agent leaves out whatever the pattern.
    private static let packed = [".gz", ".bz2", ".zip"]

    init(_ object: AgentFile) throws(MigrationFault) {
        self.object = object
        // Both at once are Firehose's, as in the agent.
        deliveryStream = try object.text("deliveryStream")
        if deliveryStream == nil { stream = try object.text("kinesisStream") }
        let patterns = try object.texts("filePattern")
        guard !patterns.isEmpty else { throw fault("filePattern", "is missing: it says which files are read") }
        if let deliveryStream {
            note(
                "deliveryStream",
                "\(patterns.joined(separator: ", ")) to the Firehose stream \(deliveryStream): Penstock delivers to Kinesis Data "
                    + "Streams alone; let the Firehose stream read from one, or leave this flow to the Kinesis Agent",
                isOpen: true
            )
            return
        }
        guard stream != nil else { throw fault("kinesisStream", "is missing: it says where the records go") }
        for pattern in patterns { try readPattern(pattern) }
        let position = try object.word("initialPosition", of: ["START_OF_FILE", "END_OF_FILE"])
        startsAtBeginning = position == "START_OF_FILE"
        isDeterministic = try object.word("partitionKeyOption", of: ["RANDOM", "DETERMINISTIC"]) == "DETERMINISTIC"
        try readRecords()
        try readBuffer()
        for key in object.keys {
            switch key {
            case _ where Self.ownAffairs.contains(key): note(key, "has no equal: Penstock does that by itself")
            case "aggregatedRecordSizeBytes": note(key, "left out: it is of Firehose flows")
            case _ where Self.read.contains(key): break
            default: note(key, "left out: it is no key of the Kinesis Agent's documentation or source")
            }
        }
    }

    private mutating func note(_ key: String, _ message: String, isOpen: Bool = false) {
        remarks.append(
            Migration.Remark(file: object.name, key: object.path + key, message: message, isOpen: isOpen)
        )
    }

    private func fault(_ key: String, _ message: String) -> MigrationFault {
        MigrationFault("\(object.name): \(object.path)\(key): \(message)")
    }

    // MARK: which files

    private mutating func readPattern(_ pattern: String) throws(MigrationFault) {
        guard pattern.hasPrefix("/") else {
            throw fault("filePattern", "\"\(pattern)\" must be an absolute path, like /var/log/app.log*")
        }
        guard let slash = pattern.lastIndex(of: "/"), pattern.index(after: slash) < pattern.endIndex else {
            throw fault("filePattern", "\"\(pattern)\" names a folder: name the files in it, like \(pattern)*")
        }
        let folders = pattern[..<slash].split(separator: "/")
        if folders.contains(where: { $0.contains { "*?[".contains($0) } }) {
            note(
                "filePattern",
                "\(pattern): the Kinesis Agent takes *, ? and [ literally in a folder's name, and so does this translation: it reads "
                    + "nothing unless there is such a folder; in ours they may stand anywhere, and ** for any depth: write paths so"
            )
        }
        // As they stand, signs and all.
        let folder =
            folders.reduce(into: "") { path, name in
                path += "/" + name.unicodeScalars.reduce(into: "") { $0 += JavaGlob.escaped($1) }
            }.replacing("${", with: "[$]{") + "/"
        do throws(JavaGlob.Fault) {
            let glob = try JavaGlob(pattern[pattern.index(after: slash)...])
            let (names, hidden) = try glob.translated
            paths += names.map { folder + $0 }
            hiddenPaths += hidden.map { folder + $0 }
            hasWildcards = hasWildcards || names.count > 1 || names[0].contains { "*?[".contains($0) }
            for ending in Self.packed where glob.mayEnd(with: ending) {
                let anyCase = ending.dropFirst().reduce(into: "*.") {
                    $0 += $1.isLetter ? "[\($1)\($1.uppercased())]" : "\($1)"
                }
                let (names, hidden) = try JavaGlob(anyCase).translated
                exclude += (names + (glob.mayBeHidden ? hidden : [])).map { folder + $0 }
            }
        } catch { throw fault("filePattern", "\"\(pattern)\" \(error.message)") }
        if name.isEmpty {
            let word = pattern[pattern.index(after: slash)...].prefix(while: Self.isWord)
            name = String(word.isEmpty ? folders.last.map { $0.filter(Self.isWord)[...] } ?? "" : word)
            if name.isEmpty { name = "files" }
        }
    }

    /// What TOML needs no quotes for.
    private static func isWord(_ character: Character) -> Bool {
        character.isASCII && (character.isLetter || character.isNumber || character == "_" || character == "-")
    }

    // MARK: what a record is

    private mutating func readRecords() throws(MigrationFault) {
        if let pattern = try object.text("multiLineStartPattern") {
            do throws(JavaExpression.Fault) {
                let expression = try JavaExpression(pattern)
                multilineStart = expression.translated
                if expression.namesLineEnd {
                    note(
                        "multiLineStartPattern",
                        "names a line end, which the Kinesis Agent shows to it and Penstock does not: a $ may do in its place",
                        isOpen: true
                    )
                }
            } catch {
                note(
                    "multiLineStartPattern",
                    "\(error.message), which PCRE2 has not: each line is a record until multiline_start says the same in PCRE2's "
                        + "words",
                    isOpen: true
                )
            }
        }
        if let count = try object.integer("skipHeaderLines"), count > 0 {
            note("skipHeaderLines", "has no equal: the first \(count) lines of each file come as records", isOpen: true)
        }
        if try object.text("fileFooterPattern") != nil {
            note("fileFooterPattern", "has no equal: files are read to their end", isOpen: true)
        }
        if let terminator = try object.text("truncatedRecordTerminator"), terminator != "\n" {
            note("truncatedRecordTerminator", "has no equal: a record that is cut has nothing at its end to show it")
        }
        var options: [String] = []
        for option in try object.objects("dataProcessingOptions") {
            options.append(try option.text("optionName") ?? "an option without a name")
        }
        if !options.isEmpty {
            note(
                "dataProcessingOptions",
                "\(options.joined(separator: ", ")): records are not changed on their way: they come as they stand in the file; "
                    + "convert them where they are read, or leave this flow to the Kinesis Agent",
                isOpen: true
            )
        }
        if isDeterministic {
            note(
                "partitionKeyOption",
                "DETERMINISTIC, a hash of each record, has no equal: a shard is drawn for each, as even, but equal records need not "
                    + "meet in one; what belongs together by a value of its JSON does with partition_key = \"json:/…\""
            )
        }
    }

    private mutating func readBuffer() throws(MigrationFault) {
        if let milliseconds = try object.integer("maxBufferAgeMillis") {
            maxBufferAge = .milliseconds(min(max(milliseconds, 0), 60_000))
            if milliseconds > 60_000 { note("maxBufferAgeMillis", "becomes 60s, which is as long as linger may be") }
        }
        maxBufferRecords = try object.integer("maxBufferSizeRecords").map { min(max($0, 1), 500) }
        if let bytes = try object.integer("maxBufferSizeBytes") {
            maxBufferBytes = min(max(bytes, 64 << 10), 10 << 20)
            if bytes < 64 << 10 {
                note("maxBufferSizeBytes", "becomes 64KiB, which is as little as call_max_size may be")
            }
        }
    }
}
