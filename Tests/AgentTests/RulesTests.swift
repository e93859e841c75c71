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

@Suite struct CredentialSourceTests {
    static func source(_ environment: [String: String], profile: String = "") -> CredentialSource {
        CredentialSource(profile: profile) { environment[$0] }
    }

    @Test func `the environment comes first, unless a profile is named`() throws {
        let scratch = try Scratch()
        try scratch.write(
            "credentials",
            """
            # mine
            [default]
            aws_access_key_id = D
            aws_secret_access_key=ds==
            [other]\r
            aws_access_key_id = O  # old\r
            aws_secret_access_key = os\r
            aws_session_token = ot\r
            [half]
            aws_access_key_id = H
            """
        )
        try scratch.write(
            "config",
            "[profile half]\naws_access_key_id = HC\naws_secret_access_key = hs\n[profile third]\n"
                + "AWS_ACCESS_KEY_ID = T\n\taws_secret_access_key\t=\tts\n"
        )
        var environment = [
            "AWS_SHARED_CREDENTIALS_FILE": scratch.path + "/credentials",
            "AWS_CONFIG_FILE": scratch.path + "/config",
        ]
        func load(_ profile: String = "") throws -> [String?] {
            let credentials = try Self.source(environment, profile: profile).load().credentials
            return [credentials.accessKeyID, credentials.secretAccessKey, credentials.sessionToken]
        }
        #expect(try load() == ["D", "ds==", nil])
        #expect(try load("other") == ["O", "os", "ot"])
        #expect(try load("half") == ["HC", "hs", nil])
        try check(load("third") == ["T", "ts", nil])
        environment["AWS_PROFILE"] = "other"
        try check(load() == ["O", "os", "ot"])
        environment["AWS_ACCESS_KEY_ID"] = "E"
        try check(load() == ["O", "os", "ot"])
        environment["AWS_SECRET_ACCESS_KEY"] = "es"
        environment["AWS_SESSION_TOKEN"] = ""
        try check(load() == ["E", "es", nil])
        environment["AWS_SESSION_TOKEN"] = "et"
        try check(load() == ["E", "es", "et"])
        try check(load("half") == ["HC", "hs", nil])
    }

    @Test func `titles in quotes, comments, nested values and keys of any case are read as the AWS tools read them`()
        throws
    {
        let scratch = try Scratch()
        try scratch.write(
            "config",
            """
            [default]
            region=eu-west-3;no comment without a space
            s3 =
              aws_access_key_id = NESTED
              aws_secret_access_key = nested
            [profile "two words"]
            aws_access_key_id = Q ; mine
            aws_secret_access_key = q#s
              aws_session_token = t
            [sso-session default]
            aws_access_key_id = SSO
            aws_secret_access_key = sso
            """
        )
        let environment = ["AWS_CONFIG_FILE": scratch["config"], "AWS_EC2_METADATA_DISABLED": "true"]
        let keys = try Self.source(environment, profile: "two words").load().credentials
        #expect(keys.accessKeyID == "Q" && keys.secretAccessKey == "q#s" && keys.sessionToken == "t")
        #expect(throws: CredentialSource.Missing.self) { try Self.source(environment).load() }
        #expect(Self.source(environment).region() == "eu-west-3;no comment without a space")
    }

    @Test func `missing ones are told with the places to write them`() {
        #expect {
            try Self.source(["HOME": "/nowhere", "AWS_EC2_METADATA_DISABLED": "true"]).load()
        } throws: { error in
            let text = "\(error)"
            return text.contains("AWS_ACCESS_KEY_ID") && text.contains("[default]")
                && text.contains("/nowhere/.aws/credentials") && text.contains("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        }
    }

    @Test func `a secret is in no description`() {
        let credentials = Credentials(accessKeyID: "AKID", secretAccessKey: "hunter2", sessionToken: "hunter3")
        var dumped = ""
        dump(Holder(credentials: credentials), to: &dumped)
        for text in ["\(credentials)", String(reflecting: credentials), "\([credentials])", dumped] {
            #expect(text.contains("AKID") && !text.contains("hunter"), "\(text)")
        }
    }

    private struct Holder { var credentials: Credentials }

    @Test(arguments: [
        ("http://169.254.170.2/v2/x", true), ("http://169.254.170.23/v1/credentials", true),
        ("http://[fd00:ec2::23]/v1/credentials", true), ("http://127.0.0.1:8080/", true), ("http://127.1.2.3", true),
        ("http://localhost:1/x", true), ("http://[::1]:80/", true), ("https://anywhere.example/", true),
        ("http://169.254.170.24/", false), ("http://169.254.169.254/", false), ("http://128.0.0.1/", false),
        ("http://127.0.0.1.example.com/", false), ("http://127.0.0/", false), ("http://localhost.example/", false),
        ("http://localhost@10.0.0.1/", false), ("http://10.0.0.1/#@localhost", false), ("ftp://localhost/", false),
        ("//localhost/", false), ("", false),
    ])
    func `a container's token goes in clear text to this machine and its links alone`(url: String, isAllowed: Bool) {
        #expect(ContainerEndpoint.isAllowed(url) == isAllowed)
    }

    @Test func `keys are renewed ahead of their end, more often towards it, and no two agents together`() {
        for chance in [0, 0.5, 1] {
            // An hour: 12 to 18 minutes ahead; six hours no earlier.
            let hour = TemporaryKeys.renewal(after: .seconds(3600), chance: chance)
            #expect(hour >= .seconds(3600 - 1081) && hour <= .seconds(3600 - 719))
            let long = TemporaryKeys.renewal(after: .seconds(21_600), chance: chance)
            #expect(long >= .seconds(21_600 - 1081) && long <= .seconds(21_600 - 719))
            // A server that answers the same keys to their end is asked some ten times, not in a loop.
            var (left, asked) = (Duration.seconds(3600), 0)
            while left > .zero {
                left -= TemporaryKeys.renewal(after: left, chance: chance)
                asked += 1
            }
            #expect((4...12).contains(asked), "\(asked)")
        }
        #expect(
            TemporaryKeys.renewal(after: .seconds(3600), chance: 0)
                != TemporaryKeys.renewal(after: .seconds(3600), chance: 1)
        )
    }
}

@Suite struct ShardMapLoaderTests {
    let now = ContinuousClock.now

    static func page(_ shards: [(Int, String, String)], closed: [Int] = [], next: String? = nil) -> [UInt8] {
        let list = shards.map { id, start, end in
            "{\"ShardId\":\"shardId-00000000000\(id)\",\"HashKeyRange\":{\"StartingHashKey\":\"\(start)\","
                + "\"EndingHashKey\":\"\(end)\"},\"SequenceNumberRange\":{\"StartingSequenceNumber\":\"1\""
                + (closed.contains(id) ? ",\"EndingSequenceNumber\":\"2\"}}" : "}}")
        }
        let token = next.map { ",\"NextToken\":\"\($0)\"" } ?? ""
        return Array("{\"Shards\":[\(list.joined(separator: ","))]\(token)}".utf8)
    }

    static let highest = HashKey.highest.description

    static func take(_ loader: inout ShardMapLoader, _ page: [UInt8], now: ContinuousClock.Instant) throws
        -> ShardMapLoader
        .Taken
    {
        loader.take(try WireFormat.json.read(page.span), page.span, now: now)
    }

    @Test func `asks page after page, and then rests until a new map is wanted, or for ten minutes`() throws {
        var loader = ShardMapLoader(stream: .name("s"), chance: 0.5)
        check(loader.nextDue(now: now) != nil)
        check(loader.nextCall(now: now)?["StreamName"] != nil)
        check(loader.nextCall(now: now) == nil && loader.nextDue(now: now) == nil)
        guard case .more = try Self.take(&loader, Self.page([(1, "10", Self.highest)], next: "t"), now: now) else {
            Issue.record("not more")
            return
        }
        let next = loader.nextCall(now: now)
        let second = try #require(next)
        #expect(second["StreamName"] == nil && second["NextToken"] != nil)
        guard case .map(let map, _, _) = try Self.take(&loader, Self.page([(0, "0", "9")]), now: now) else {
            Issue.record("not a map")
            return
        }
        #expect(map.count == 2)
        #expect(loader.nextCall(now: now) == nil && loader.nextDue(now: now) == now + .seconds(600))
        loader.refresh()
        loader.refresh()
        // Not in a loop.
        let due = try #require(loader.nextDue(now: now))
        #expect(due > now && loader.nextCall(now: now) == nil)
        #expect(loader.nextCall(now: due) != nil)
    }

    @Test func `what is wanted while it asks is asked for again`() throws {
        var loader = ShardMapLoader(stream: .name("s"), chance: 0.5)
        _ = loader.nextCall(now: now)
        loader.refresh()
        guard case .map(_, _, isStale: true) = try Self.take(&loader, Self.page([(0, "0", Self.highest)]), now: now)
        else {
            Issue.record("not a map, or said to be new")
            return
        }
        #expect(loader.nextDue(now: now) != nil)
        #expect(loader.nextCall(now: now + .seconds(2)) != nil)
    }

    @Test func `closed shards are told when they are asked for, and until a whole list came`() throws {
        var loader = ShardMapLoader(stream: .name("s"), chance: 0.5)
        _ = loader.nextCall(now: now)
        loader.refresh(closed: true)
        _ = try Self.take(&loader, Self.page([(0, "0", Self.highest)]), now: now)
        let first = loader.nextCall(now: now + .seconds(2))
        #expect(try #require(first)["ShardFilter"] == nil)
        loader.failed(until: now + .seconds(3))
        let second = loader.nextCall(now: now + .seconds(3))
        #expect(try #require(second)["ShardFilter"] == nil)
        let page = Self.page([(0, "0", Self.highest), (1, "0", "9")], closed: [1])
        guard case .map(let map, let closed, isStale: false) = try Self.take(&loader, page, now: now) else {
            Issue.record("not a map, or stale")
            return
        }
        #expect(map.count == 1)
        #expect(closed.map(\.id) == [ShardID(number: 1)])
        let third = loader.nextCall(now: now + .seconds(1000))
        #expect(try #require(third)["ShardFilter"] != nil)
    }

    @Test(arguments: [
        page([]), page([(0, "0", "9")]), page([(0, "1", highest)]), page([(0, "0", "9"), (1, "9", highest)]),
        page([(0, "9", "0")]), page([(0, "x", highest)]), Array("{}".utf8), Array("null".utf8),
        Array("{\"Shards\":[7]}".utf8), Array("{\"Shards\":[{\"ShardId\":\"s-1\"}]}".utf8),
    ])
    func `a list with a gap, or that cannot be read, is asked for again after a second`(page: [UInt8]) throws {
        var loader = ShardMapLoader(stream: .name("s"), chance: 0.5)
        _ = loader.nextCall(now: now)
        guard case .unusable = try Self.take(&loader, page, now: now) else {
            Issue.record("usable")
            return
        }
        #expect(loader.nextDue(now: now) == now + .seconds(1))
        #expect(loader.nextCall(now: now) == nil)
        _ = loader.nextCall(now: now + .seconds(1))
        guard case .map(let map, _, _) = try Self.take(&loader, Self.page([(0, "0", Self.highest)]), now: now) else {
            Issue.record("no map: a rest of the earlier list")
            return
        }
        #expect(map.count == 1)
    }

    @Test func `after a failed page the list is begun anew`() throws {
        var loader = ShardMapLoader(stream: .arn("arn"), chance: 0.5)
        _ = loader.nextCall(now: now)
        _ = try Self.take(&loader, Self.page([(0, "0", "9")], next: "t"), now: now)
        _ = loader.nextCall(now: now)
        loader.failed(until: now + .seconds(3))
        #expect(loader.nextCall(now: now + .seconds(2)) == nil)
        #expect(loader.nextCall(now: now + .seconds(3))?["StreamARN"] != nil)
        guard case .map(let map, _, _) = try Self.take(&loader, Self.page([(0, "0", Self.highest)]), now: now) else {
            Issue.record("no map")
            return
        }
        #expect(map.count == 1)
    }
}

@Suite struct SettlementTests {
    static func aggregate(_ runs: [Run]) -> SealedAggregate {
        var writer = AggregateWriter(maxSize: 1 << 20, pool: BufferPool(mostKept: 0))
        let key = RecordKey(partitionKey: [97], explicit: .lowest)
        for run in runs { _ = writer.append([1, 2].span, under: key, from: run, receipt: .now) }
        return writer.seal(MD5())!
    }

    @Test func `a checkpoint passes only what has settled without a gap`() throws {
        var random = Random()
        for _ in 0..<100 {
            let checkpoints = try Checkpoints(folder: try Scratch().path)
            let settlement = Settlement(checkpoints, Ledger(inputs: ["app"]))
            let sources = (0..<3).map { checkpoints.open(CheckpointsTests.entry(UInt64($0), at: 10)) }
            var ends = [UInt64](repeating: 10, count: 3)
            var flags = [[Bool]](repeating: [], count: 3)
            var waiting: [SealedAggregate] = []
            for _ in 0..<40 {
                var runs: [Run] = []
                for _ in 0...random.below(5) {
                    let which = random.below(3)
                    let count = 1 + random.below(9)
                    let run = Run(source: sources[which], first: ends[which], end: ends[which] + UInt64(count))
                    settlement.drained(run.source, first: run.first, end: run.end, input: 0)
                    ends[which] = run.end
                    if random.oneIn(6) {
                        settlement.skip(run.source, first: run.first, end: run.end)
                        flags[which] += [Bool](repeating: true, count: count)
                    } else {
                        runs.append(run)
                        flags[which] += [Bool](repeating: false, count: count)
                    }
                }
                if !runs.isEmpty { waiting.append(Self.aggregate(runs)) }
                while !waiting.isEmpty, random.oneIn(2) {
                    let aggregate = waiting.remove(at: random.below(waiting.count))
                    // A regrouped aggregate settles when its last piece does.
                    if !aggregate.isPiece, random.oneIn(3) {
                        let none = [Run(source: 0, first: 0, end: 0)]
                        let pieces = (0..<3).map { _ in Self.aggregate(none) }
                        aggregate.origin.unsettled += 2
                        for piece in pieces { piece.becomePiece(of: aggregate) }
                        for piece in pieces[..<2] { _ = settlement.settle(piece) }
                        waiting.append(pieces[2])
                        continue
                    }
                    _ = settlement.settle(aggregate)
                    for run in aggregate.origin.runs {
                        let which = sources.firstIndex(of: run.source)!
                        for position in run.first..<run.end { flags[which][Int(position) - 10] = true }
                    }
                }
                for which in 0..<3 {
                    let settled = flags[which].firstIndex(of: false) ?? flags[which].count
                    let position = checkpoints.entry(of: sources[which])?.position
                    #expect(position == UInt64(10 + settled), random.note)
                }
            }
            #expect(settlement.isComplete == waiting.isEmpty, random.note)
            for aggregate in waiting { _ = settlement.settle(aggregate) }
            #expect(settlement.isComplete, random.note)
            for which in 0..<3 { #expect(checkpoints.entry(of: sources[which])?.position == ends[which], random.note) }
        }
    }

    @Test func `a source that is closed while its records are under way is complete when they have settled`() throws {
        let checkpoints = try Checkpoints(folder: try Scratch().path)
        let settlement = Settlement(checkpoints, Ledger(inputs: ["app"]))
        let source = checkpoints.open(CheckpointsTests.entry(1))
        settlement.drained(source, first: 0, end: 4, input: 0)
        settlement.drained(source, first: 4, end: 8, input: 0)
        checkpoints.close(source)
        _ = settlement.settle(Self.aggregate([Run(source: source, first: 4, end: 8)]))
        #expect(!settlement.isComplete)
        _ = settlement.settle(Self.aggregate([Run(source: source, first: 0, end: 4)]))
        #expect(settlement.isComplete)
    }
}

@Suite struct SourceKeysTests {
    @Test func `a file's records have its path as their key, those without placement none`() throws {
        let checkpoints = try Checkpoints(folder: try Scratch().path)
        let source = checkpoints.open(CheckpointsTests.entry(4))
        let path = Array("/var/log/\"ä\n4".utf8)
        #expect(SourceKeys(.source, checkpoints).key(of: source)?.partitionKey == path)
        #expect(SourceKeys(.spread, checkpoints).key(of: source) == nil)
        #expect(SourceKeys(.random, checkpoints).key(of: source) == nil)
        #expect(SourceKeys(.literal("k"), checkpoints).key(of: source)?.partitionKey == [107])
        #expect(SourceKeys(.host, checkpoints).key(of: source)?.partitionKey == Array(Machine.hostName.utf8))
        let long = checkpoints.open(
            .init(input: "a", path: String(repeating: "ü", count: 300), device: 1, inode: 1, position: 0)
        )
        #expect(SourceKeys(.source, checkpoints).key(of: long)?.partitionKey.count == 512)
    }
}

@Suite struct LogLineTests {
    let log = LogLine(label: "test", level: .info)
    let now = ContinuousClock.now

    func line(_ text: String, _ metadata: Logger.Metadata = [:], after: Duration = .zero) -> String? {
        log.line(.notice, text, metadata, milliseconds: 1_795_225_200_123, now: now + after)
    }

    @Test func `an event is one line, with its details in order`() {
        #expect(
            line("file rotated", ["path": "/a b", "n": "7"])
                == "2026-11-21T01:40:00.123Z notice file rotated n=7 path=\"/a b\"\n"
        )
        let evil = line("evil", ["a": "x\ny", "b": "\"", "c": "", "d": "\u{1b}[0m", "e": "ä=b"])
        #expect(evil?.split(separator: "\n").count == 1)
        #expect(evil?.hasSuffix("a=\"x\\ny\" b=\"\\\"\" c=\"\" d=\"\\u001b[0m\" e=ä=b\n") == true, "\(evil ?? "")")
    }

    @Test func `a flood of one message is cut, told, and takes no room from others`() {
        let passed = (0..<1000).compactMap { line("flood", ["n": "\($0)"]) }
        #expect(passed.count == 5)
        #expect(line("other") != nil)
        #expect(line("flood", after: .milliseconds(9999)) == nil)
        #expect(line("flood", after: .seconds(10))?.hasSuffix("flood suppressed=996\n") == true)
        #expect(line("flood", after: .seconds(10))?.hasSuffix("flood\n") == true)
    }
}
