import Agent
import ArgumentParser
import Kinesis
import LocalKinesis
import Platform

struct Local: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Run the embedded Kinesis alone, for tests and trials.",
        discussion: """
            Any AWS SDK can use it: aws --endpoint-url http://127.0.0.1:4567 kinesis list-streams
            It keeps everything in memory and listens on loopback only, unless --host says otherwise.

            Faults, as KIND:NAME=VALUE,NAME=VALUE:
              record    a record is refused (code=InternalFailure, stream=, shard=3)
              error     an error of the API (code=, status=)
              html      an error page, as of a load balancer (status=503)
              reset     the connection is reset
              hang      there is no answer (for=60s)
              delay     the call, or its answer, waits (by=200ms)
              slow      the request is read slowly (speed=64KiB, a second)
              truncate  the answer breaks off in its middle
              count     PutRecords gives a wrong count of results (by=-1)
              expire    the access key is expired from then on (times=1)
              clock     the service's clock is off (by=+10m, or -10m)
            rate=2%     hit this share of calls, or records (all but clock)
            skip=1000   let so many pass first (all but clock)
            times=3     hit so often at most (all but clock)
            op=NAME     hit that call alone (all but record, count and clock)
            when=after  carry the call out first (error, html, reset, hang and delay)
            While it runs: GET, POST, DELETE /_penstock/faults, POST /_penstock/limits.
            """
    )

    @Option(help: "The address to listen on.")
    var host = "127.0.0.1"

    @Option(help: "The port to listen on; 0 takes a free one and prints it.")
    var port = 4567

    @Option(name: .customLong("stream"), help: "A stream to create, as NAME or NAME:SHARDS; may be repeated.")
    var streams: [String] = []

    @Option(help: "The region it says it is in.")
    var region = "us-east-1"

    @Flag(help: "Refuse what is above the service's limits: 1 MiB and 1,000 records a second for a shard, and so on.")
    var enforceLimits = false

    @Option(
        name: .customLong("shard-limit"),
        help: "Let one shard take a part of those limits, as STREAM:SHARD=PERCENT; 0 takes nothing; may be repeated."
    )
    var shardLimits: [String] = []

    @Flag(help: "Answer 500 to CBOR, as some emulators do.")
    var refuseCBOR = false

    @Option(help: "Verify signatures by this access key, as ID:SECRET.")
    var accessKey: String?

    @Option(help: "Speak TLS with this certificate, and what it is signed by, in a PEM file.")
    var tlsCert: String?

    @Option(help: "The certificate's key, in a PEM file.")
    var tlsKey: String?

    @Option(help: "Memory for records; the oldest go first.")
    var memory = "512MiB"

    @Option(help: "How long records are kept.")
    var retention = "24h"

    @Option(help: "How long a stream that CreateStream makes is CREATING.")
    var creatingFor = "0s"

    @Option(help: "How long a stream is UPDATING that is resharded or changed otherwise.")
    var updatingFor = "0s"

    @Option(
        name: .customLong("fault"),
        help: "Something that fails on purpose, as KIND:NAME=VALUE,…; may be repeated; the kinds stand above."
    )
    var faults: [String] = []

    @Option(help: "The seed that decides which calls a fault hits; the same seed hits the same ones.")
    var seed: UInt32?

    func run() throws {
        let signals = try StopSignals()
        var options = LocalKinesis.Options()
        (options.host, options.port, options.region) = (host, port, region)
        (options.enforceShardLimits, options.refuseCBOR) = (enforceLimits, refuseCBOR)
        options.streams = try streams.map { text in
            let parts = text.split(separator: ":", omittingEmptySubsequences: false)
            guard let name = parts.first, !name.isEmpty, parts.count <= 2,
                let shards = parts.count == 2 ? Int(parts[1]) : 1, (1...10_000).contains(shards)
            else { throw ValidationError("--stream takes NAME or NAME:SHARDS, not \"\(text)\"") }
            return (name: String(name), shards: shards)
        }
        options.shardLimits = try shardLimits.map { text in
            let (place, percent) = Self.halves(of: text, at: "=")
            let (stream, shard) = Self.halves(of: place, at: ":")
            guard !stream.isEmpty, let shard = shard.flatMap({ Int($0) }), shard >= 0,
                let percent = percent.flatMap({ Double($0) }), (0...1_000_000).contains(percent)
            else {
                throw ValidationError("--shard-limit takes STREAM:SHARD=PERCENT like app-logs:3=50, not \"\(text)\"")
            }
            return (stream: stream, shard: shard, percent: percent)
        }
        let seed = seed ?? .random(in: 0 ... .max)
        options.seed = UInt64(seed)
        options.faults = try faults.map { text in
            do { return try FaultRule(text) } catch { throw ValidationError("--fault \(error)") }
        }
        guard let bytes = Units.bytes(memory), bytes > 0 else {
            throw ValidationError("--memory takes a size like 512MiB, not \"\(memory)\"")
        }
        guard let kept = Units.duration(retention), kept > .zero else {
            throw ValidationError("--retention takes a duration like 24h, not \"\(retention)\"")
        }
        (options.memoryLimit, options.retention) = (bytes, kept)
        guard let creation = Units.duration(creatingFor) else {
            throw ValidationError("--creating-for takes a duration like 2s, not \"\(creatingFor)\"")
        }
        guard let update = Units.duration(updatingFor) else {
            throw ValidationError("--updating-for takes a duration like 2s, not \"\(updatingFor)\"")
        }
        (options.creationDelay, options.updateDelay) = (creation, update)
        if let accessKey {
            let parts = accessKey.split(separator: ":", maxSplits: 1)
            guard parts.count == 2 else { throw ValidationError("--access-key takes ID:SECRET") }
            options.credentials = Credentials(accessKeyID: String(parts[0]), secretAccessKey: String(parts[1]))
        }
        switch (tlsCert, tlsKey) {
        case (let chain?, let key?): options.certificate = (chain, key)
        case (nil, nil): break
        case (nil, _?), (_?, nil): throw ValidationError("--tls-cert and --tls-key go together")
        }
        let server: LocalKinesis
        do { server = try LocalKinesis.start(options) } catch {
            StandardError.write("penstock: \(error)\n")
            throw Exit.unavailable
        }
        if !options.faults.isEmpty { StandardOutput.write("Faults are drawn with --seed \(seed)\n") }
        StandardOutput.write("Kinesis listens on \(server.url)\n")
        let bell = try Doorbell()
        while signals.next() == nil { bell.wait(or: signals.number) }
        server.stop()
    }

    /// What stands before and behind the first `separator`.
    private static func halves(of text: String, at separator: Character) -> (String, String?) {
        let parts = text.split(separator: separator, maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        return (parts[0], parts.count == 2 ? parts[1] : nil)
    }
}
