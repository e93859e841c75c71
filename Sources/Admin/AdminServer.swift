public import Agent
internal import Glibc
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
public import Platform
internal import Synchronization

/// The HTTP server by which people and programs look at a running agent: the status page, metrics, health.
///
/// It has one thread of its own, and asks the agent's by leaving questions. Nothing can be changed through it.
public final class AdminServer: Sendable {
    /// Where it listens.
    public let address: InternetAddress
    private let group: MultiThreadedEventLoopGroup
    private let isStopped = Atomic<Bool>(false)

    /// Why there is none.
    public enum StartFault: Error, CustomStringConvertible {
        case portTaken(InternetAddress)
        case unusableAddress(InternetAddress, String)
        case unusableToken(Fault)

        public var description: String {
            switch self {
            case .portTaken(let address):
                "agent.admin: something listens at \(address) already: choose another port, or \"\" for none"
            case .unusableAddress(let address, let reason): "agent.admin: cannot listen at \(address): \(reason)"
            case .unusableToken(let fault): "\(fault)"
            }
        }
    }

    /// Connections at once: some pages, and who scrapes.
    private static let mostConnections = 64
    /// A connection on which nobody asks is closed.
    private static let idleTime = TimeAmount.seconds(60)

    private init(_ group: MultiThreadedEventLoopGroup, _ address: InternetAddress) {
        (self.group, self.address) = (group, address)
    }

    deinit { stop() }

    /// Starts the server of an agent, if its configuration wants one.
    ///
    /// Blocks: not for event loops.
    /// - Parameters:
    ///   - file: the configuration's name, for faults.
    ///   - events: the last warnings and errors of the log.
    public static func start(
        _ configuration: Configuration.Agent,
        file: String,
        agent: Agent,
        version: String,
        events: RecentEvents
    ) throws(StartFault) -> AdminServer? {
        guard let address = configuration.admin else { return nil }
        let token: [UInt8]?
        do throws(Fault) { token = try configuration.adminToken(file: file) } catch { throw .unusableToken(error) }
        let site = AdminSite(token: token) { agent.status(version: version, events: events) }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let open = OpenConnections(most: mostConnections)
        do {
            group.next().execute { Platform.Thread.nameCurrent("penstock-admin") }
            let channel = try ServerBootstrap(group: group)
                .serverChannelOption(.backlog, value: 64)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        guard open.begin() else { throw ChannelError.eof }
                        channel.closeFuture.whenComplete { _ in open.end() }
                        let pipeline = channel.pipeline.syncOperations
                        try pipeline.addHandler(IdleStateHandler(allTimeout: idleTime))
                        try pipeline.configureHTTPServerPipeline(
                            withPipeliningAssistance: true,
                            withErrorHandling: true
                        )
                        try pipeline.addHandler(AdminConnection(site))
                    }
                }
                .bind(host: address.host, port: Int(address.port)).wait()
            let port = channel.localAddress?.port.flatMap { UInt16(exactly: $0) } ?? address.port
            return AdminServer(group, InternetAddress(host: address.host, port: port) ?? address)
        } catch {
            try? group.syncShutdownGracefully()
            if let error = error as? IOError, error.errnoCode == EADDRINUSE { throw .portTaken(address) }
            throw .unusableAddress(address, "\(error)")
        }
    }

    public func stop() {
        guard !isStopped.exchange(true, ordering: .relaxed) else { return }
        try? group.syncShutdownGracefully()
    }
}

/// How many connections are open.
private final class OpenConnections: Sendable {
    private let count = Atomic<Int>(0)
    private let most: Int

    init(most: Int) { self.most = most }

    /// Counts another one, unless there are too many.
    func begin() -> Bool {
        guard count.add(1, ordering: .relaxed).newValue > most else { return true }
        end()
        return false
    }

    func end() { count.subtract(1, ordering: .relaxed) }
}

extension Configuration.Agent {
    /// The word in `admin_token_file`; nil: none is needed.
    ///
    /// - Parameter file: the configuration's name, for the fault.
    /// - Throws: what is wrong with that file.
    public func adminToken(file: String) throws(Fault) -> [UInt8]? {
        guard !adminTokenFile.isEmpty else { return nil }
        func fault(_ message: String) -> Fault {
            Fault(file: file, place: adminTokenFilePlace, key: "agent.admin_token_file", message: message)
        }
        let text: [UInt8]
        do { text = try Folder.read(adminTokenFile, limit: 4096) } catch { throw fault("\(error)") }
        if FileStatus.isOpenToOthers(adminTokenFile) {
            throw fault("\(adminTokenFile) can be read by everybody on this machine: chmod o-rwx it")
        }
        let word = text.reversed().drop { $0 <= 0x20 }.reversed().drop { $0 <= 0x20 }
        guard word.count >= 16, word.allSatisfy({ (0x21...0x7e).contains($0) }) else {
            throw fault("\(adminTokenFile) must hold one word of 16 or more ASCII characters: openssl rand -hex 32")
        }
        return Array(word)
    }
}
