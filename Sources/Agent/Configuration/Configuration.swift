public import Kinesis
public import Platform

/// What the operator may set, with the defaults in one place.
public struct Configuration: Equatable, Sendable {
    public var agent = Agent()
    public var inputs: [Input] = []
    public var outputs: [Output] = []

    public init() {}

    /// `[agent]`.
    public struct Agent: Equatable, Sendable {
        public var stateDirectory = "/var/lib/penstock"
        /// Bytes: rings, aggregates, and what is in flight.
        public var memoryLimit = 256 << 20
        public var shutdownTimeout: Duration = .seconds(30)
        public var logLevel = LogLevel.info
        /// Bytes of all dead letters.
        public var deadLettersMaxSize = 1 << 30
        /// Tailed files that are held open; others are opened when they change.
        public var maxOpenFiles = 4096
        /// Where the admin server listens; nil: nowhere.
        public var admin: InternetAddress? = .init(host: "127.0.0.1", port: 9600)
        /// Whether the operator has named that address: one that comes by itself may be taken.
        public var isAdminNamed = false
        /// A file with the word that whoever asks the admin server must know; empty: nobody needs one.
        public var adminTokenFile = ""
        public var adminTokenFilePlace = Place(line: 0, column: 0)
    }

    public enum LogLevel: String, CaseIterable, Sendable {
        case trace, debug, info, notice, warning, error
    }

    /// `[inputs.NAME]`.
    public struct Input: Equatable, Sendable {
        public var name: String
        /// Of `type = "syslog"` and `"socket"`; nil: the input reads files.
        public var socket: SocketSettings?
        /// Patterns: `*` and `?` within a name, `[a-z]`, `**` for any depth of folders.
        public var paths: [String] = []
        public var exclude: [String] = []
        public var startAt = StartAt.end
        /// Bytes of a record at most; `onOversize` says what becomes of longer ones.
        ///
        /// Above what every stream takes the stream is asked for its own limit, which holds besides.
        public var maxRecord = Limits.longestRecord()
        /// Where that stands, if it is above what every stream takes.
        public var maxRecordPlace: Place?
        public var onOversize = Oversize.split
        /// A regular expression that fits the first line of a record of several; empty: a line is a record.
        public var multilineStart = ""
        /// How long such a record's end is waited for.
        public var multilineTimeout: Duration = .seconds(5)
        /// Rotated .gz files of what was not finished are read.
        public var readCompressed = true
        /// Its part of the agent's `max_open_files`, and of how many inputs.
        public var maxOpenFiles = 4096
        public var sharers = 1
        /// Where its `paths` stand, or its `listen`, and in which file.
        public var place = Place(line: 0, column: 0)
        public var file = ""

        public init(name: String) { self.name = name }
    }

    /// Where to begin in a file that was there before the input's first start.
    public enum StartAt: String, CaseIterable, Sendable { case end, beginning }

    /// What to do with a record, or a message, above `max_record`, or above what the stream takes.
    public enum Oversize: String, CaseIterable, Sendable {
        case split, truncate
        case deadLetter = "dead_letter"
    }

    /// `[outputs.NAME]` with `type = "kinesis"`.
    public struct Output: Equatable, Sendable {
        public var name: String
        /// Names of inputs; empty: all.
        public var from: [String] = []
        /// Where that stands.
        public var fromPlace = Place(line: 0, column: 0)
        public var stream = StreamName.name("")
        public var region = ""
        public var endpoint = Endpoint.region
        /// The region's endpoints that FIPS 140 validates, or that have IPv6, too.
        public var fips = false
        public var dualStack = false
        public var profile = ""
        /// A role to take on with what the sources of credentials give; empty: none.
        public var roleARN = ""
        public var externalID = ""
        public var caFile = ""
        /// `http://[user:password@]host:port`; empty: the environment's.
        public var proxy = ""
        public var wire = Wire.auto
        public var partitionKey = PartitionKey.spread
        /// Whether the records of a partition key arrive in their order, through retries and outages.
        public var ordered = false
        public var compression = Compression.none
        public var aggregate = true
        public var aggregateMaxSize = 50 << 10
        public var aggregateMaxRecords = 0
        public var linger: Duration = .milliseconds(100)
        public var maxInFlight = 24
        /// Percent of each shard's limits; 0: no pacing.
        public var rateLimit = 100
        public var callMaxSize = 1 << 20
        public var callMaxRecords = Limits.callRecords
        public var timeout: Duration = .seconds(10)
        public var connectTimeout: Duration = .seconds(5)
        public var spool = SpoolSettings()

        public init(name: String) { self.name = name }
    }

    /// `spool` of an output.
    public struct SpoolSettings: Equatable, Sendable {
        /// Bytes of its files; 0: no spool.
        public var maxSize = 10 << 30
        /// Bytes that stay free on the file system.
        public var keepFree = 1 << 30
        public var when = When.failure
        public var sync = Sync.period(.seconds(1))

        public init() {}

        public enum When: String, CaseIterable, Sendable {
            /// What cannot be delivered.
            case failure
            /// Everything, until it is delivered.
            case always
        }

        /// When what was written counts as safe.
        public enum Sync: Equatable, Sendable { case always, period(Duration), never }
    }

    public enum Endpoint: Equatable, Sendable {
        /// The region's.
        case region
        case url(String)
        /// The Kinesis inside this binary.
        case embedded
    }

    public enum Wire: String, CaseIterable, Sendable { case auto, cbor, json }

    /// How a record's place is chosen.
    public enum PartitionKey: Equatable, Sendable {
        /// To the shard with most room, aggregates filled one after another.
        case spread
        /// By the file's path, so that each file keeps its order.
        case source
        /// By this machine's name.
        case host
        /// A random shard for each record, by the shards' widths.
        case random
        case literal(String)
        /// By a value out of each record's JSON.
        case field(JSONPointer)
    }
}

/// One thing wrong with a configuration, and what to do.
public struct Fault: Error, Equatable, Sendable, CustomStringConvertible {
    public var file: String
    public var place: Place
    /// The key, with the tables it stands in: `outputs.stream.linger`.
    public var key: String
    public var message: String

    public init(file: String, place: Place, key: String, message: String) {
        (self.file, self.place, self.key, self.message) = (file, place, key, message)
    }

    /// `file:line:column: key: what to do`.
    public var description: String {
        let at = "\(file):\(place): "
        return key.isEmpty ? at + message : at + "\(key): \(message)"
    }
}

/// Every fault of a configuration.
public struct Faults: Error, Equatable, Sendable {
    public var faults: [Fault]

    public init(faults: [Fault]) { self.faults = faults }
}
