internal import Bytes
internal import Glibc
public import Kinesis
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import Platform
internal import Synchronization

/// A Kinesis of one's own: an HTTP server that answers as Amazon Kinesis Data Streams does, and keeps everything in
/// memory.
///
/// Any AWS SDK reaches it by its endpoint option; any credentials will do, unless they are to be verified.
///
///     var options = LocalKinesis.Options()
///     options.streams = [("app-logs", 2)]
///     let kinesis = try LocalKinesis.start(options)
///     print(kinesis.url)  // http://127.0.0.1:36811
public final class LocalKinesis: Sendable {
    public struct Options: Sendable {
        /// The address to listen at.
        ///
        /// What listens beyond loopback serves whoever asks.
        public var host = "127.0.0.1"
        /// 0: any free one.
        public var port = 0
        /// The region and account in ARNs and messages; calls for any other are answered all the same.
        public var region = "us-east-1"
        public var accountID = "000000000000"
        /// Streams to begin with.
        public var streams: [(name: String, shards: Int)] = []
        /// Whether each shard takes 1 MiB and 1,000 records a second, as it does in the service, and gives 2 MiB in 5
        /// calls; and whether the other calls are limited as there.
        public var enforceShardLimits = false
        /// Shards that take another part of what the service's shards take, in percent, whatever is enforced; 0 takes
        /// nothing.
        public var shardLimits: [(stream: String, shard: Int, percent: Double)] = []
        /// When set, every call's signature is verified with these; this costs a SHA-256 of each body.
        public var credentials: Credentials? = nil
        /// Whether CBOR is answered with an error page, as emulators do that know only JSON.
        public var refuseCBOR = false
        /// Bytes of memory for records: beyond it, the oldest go.
        ///
        /// A sixteenth of it, 32 MiB at most, is kept besides for calls to come.
        public var memoryLimit = 512 << 20
        /// How long records are kept.
        public var retention: Duration = .seconds(86_400)
        /// How long a stream that CreateStream makes is CREATING.
        public var creationDelay: Duration = .zero
        /// How long a stream is UPDATING that a call changes.
        public var updateDelay: Duration = .zero
        /// What fails on purpose, and the seed that decides which calls it hits.
        public var faults: [FaultRule] = []
        public var seed: UInt64 = 0
        /// PEM files of a certificate, with what it is signed by, and of its key: TLS is spoken when they are set.
        public var certificate: (chain: String, key: String)? = nil

        public init() {}
    }

    /// Why a server could not be started.
    public enum StartFault: Error, Equatable, CustomStringConvertible {
        /// Something listens there already.
        case portTaken(host: String, port: Int)
        case unusableAddress(host: String, port: Int, reason: String)
        case unusableStream(name: String, reason: String)
        case unusableCertificate(path: String, reason: String)
        /// There is no such shard to limit.
        case unknownShard(stream: String, shard: Int)

        public var description: String {
            switch self {
            case .portTaken(let host, let port):
                "\(host):\(port) is taken: choose another port, or stop what listens there"
            case .unusableAddress(let host, let port, let reason): "cannot listen at \(host):\(port): \(reason)"
            case .unusableStream(let name, let reason): "cannot create the stream \(name): \(reason)"
            case .unusableCertificate(let path, let reason): "cannot use \(path): \(reason)"
            case .unknownShard(let stream, let shard): "cannot limit shard \(shard) of \(stream): there is none"
            }
        }
    }

    /// The port it listens at.
    public let port: Int
    /// What SDKs take as an endpoint: `http://127.0.0.1:4567`, or `https:` with a certificate.
    public let url: String

    private let service: Service
    private let group: MultiThreadedEventLoopGroup
    private let isStopped = Atomic<Bool>(false)

    /// Bytes of one read: large, so that a call of 1 MiB takes a few; small enough to stay in a core's own cache until
    /// they are copied to the body.
    private static let readSize = 256 << 10

    private init(_ service: Service, _ group: MultiThreadedEventLoopGroup, _ scheme: String, host: String, port: Int) {
        (self.service, self.group, self.port) = (service, group, port)
        url = "\(scheme)://" + (host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)")
    }

    deinit { stop() }

    /// Starts a server and returns when it listens.
    ///
    /// Blocks: not for event loops.
    public static func start(_ options: Options) throws(StartFault) -> LocalKinesis {
        let service = Service(
            try store(options),
            Service.Settings(credentials: options.credentials, refuseCBOR: options.refuseCBOR)
        )
        let identity: TLSIdentity?
        do throws(TLSIdentity.Fault) {
            identity =
                if let files = options.certificate { try TLSIdentity(chain: files.chain, key: files.key) } else { nil }
        } catch {
            throw .unusableCertificate(path: error.path, reason: error.reason)
        }
        let requestIDs = RequestIDs(seed: .random(in: .min ... .max))
        let group = MultiThreadedEventLoopGroup(numberOfThreads: min(4, System.coreCount))
        do {
            let channel = try ServerBootstrap(group: group)
                .serverChannelOption(.backlog, value: 1024)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                .childChannelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: readSize))
                .childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        let pipeline = channel.pipeline.syncOperations
                        if let identity { try pipeline.addHandler(try TLSConnection(identity)) }
                        try pipeline.configureHTTPServerPipeline(
                            withPipeliningAssistance: false,
                            withErrorHandling: true
                        )
                        try pipeline.addHandler(Connection(service, requestIDs))
                    }
                }
                .bind(host: options.host, port: options.port).wait()
            let port = channel.localAddress?.port ?? options.port
            return LocalKinesis(service, group, identity == nil ? "http" : "https", host: options.host, port: port)
        } catch {
            try? group.syncShutdownGracefully()
            if let error = error as? IOError, error.errnoCode == EADDRINUSE {
                throw .portTaken(host: options.host, port: options.port)
            }
            throw .unusableAddress(host: options.host, port: options.port, reason: "\(error)")
        }
    }

    private static func store(_ options: Options) throws(StartFault) -> Store {
        var store = Store(
            Store.Rules(
                account: options.accountID,
                region: options.region,
                enforceShardLimits: options.enforceShardLimits,
                memoryLimit: options.memoryLimit,
                retention: options.retention,
                creationDelay: options.creationDelay,
                updateDelay: options.updateDelay
            ),
            faults: FaultInjector(seed: options.seed, options.faults)
        )
        // These are there from the start: created so long ago that they are active.
        let before = Moment.now() + (.zero - options.creationDelay)
        for (name, shards) in options.streams {
            guard Parameters.Pattern.name.matches(name), name.utf8.count <= 128 else {
                throw .unusableStream(name: name, reason: "a name has 1 to 128 of a-z A-Z 0-9 _ . -")
            }
            guard shards > 0 else { throw .unusableStream(name: name, reason: "a stream has one shard at least") }
            do {
                try store.create(StreamPlan(name: name, shards: shards), now: before)
            } catch {
                throw .unusableStream(name: name, reason: error.message ?? error.code)
            }
        }
        for (stream, shard, percent) in options.shardLimits {
            do throws(Refusal) {
                guard shard >= 0, percent >= 0 else { throw .invalidArgument("below zero") }
                try store.limit(ShardID(number: UInt64(shard)), of: stream, to: percent, now: before)
            } catch {
                throw .unknownShard(stream: stream, shard: shard)
            }
        }
        return store
    }

    /// Closes every connection and returns when the threads have ended.
    ///
    /// Blocks: not for event loops.
    public func stop() {
        guard !isStopped.exchange(true, ordering: .acquiringAndReleasing) else { return }
        // Fails only for a group that is down already.
        try? group.syncShutdownGracefully()
    }

    /// A snapshot of the counters.
    public func figures() -> Figures { service.figures }
}

extension Moment {
    /// Both clocks as they stand.
    static func now() -> Moment {
        var time = timespec()
        unsafe clock_gettime(CLOCK_REALTIME, &time)
        return Moment(
            milliseconds: Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000,
            instant: .now
        )
    }
}
