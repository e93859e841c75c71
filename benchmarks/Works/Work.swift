import CMD5
import CText
import Kinesis

/// An inner loop that benchmarks count and time.
package struct Work: Sendable {
    package let name: String
    /// What one of its units is.
    package let unit: String
    /// For a count: beside one round, which warms what is kept.
    package let rounds: Int
    /// Whether other instructions run on processors with AVX2 and without.
    package let hasPaths: Bool
    /// Prepares it, and gives what does so many rounds and says how many units these were.
    package let prepare: @Sendable () -> (Int) -> Int

    init(
        _ name: String,
        _ rounds: Int,
        _ unit: String,
        hasPaths: Bool = false,
        _ prepare: @escaping @Sendable () -> (Int) -> Int
    ) {
        (self.name, self.rounds, self.unit, self.hasPaths, self.prepare) = (name, rounds, unit, hasPaths, prepare)
    }

    package static let all = [
        Work("ring", 20, "datagram of 235 bytes through the ring", ring),
        Work("key", 20, "partition key hashed", partitionKeys),
        Work("lookup", 20, "hash key among 10,000 shards", lookups),
        Work("lines", 3, "line of 217 bytes cut, framed and sealed, 4 shards", hasPaths: true, lines),
        Work("keyed", 4, "record of 100 bytes, 1,000 keys over 64 shards", hasPaths: true, keyed),
        Work("keyed one", 4, "the same of 20 keys in one shard, without checksums") { packedByKey(20, shards: 1) },
        Work("field", 4, "JSON line, keyed by a field, 64 shards", hasPaths: true, { fields(1000) }),
        Work("fields", 1, "JSON line, under one of 20,000 keys", hasPaths: true, { fields(20_000) }),
        Work("checksum", 4, "checksum of one aggregate of 50 KiB", checksums),
        Work("md5", 2, "checksum of one of 32 such aggregates", hasPaths: true, { sums(by: cmd5_best()) }),
        Work("md5 scalar", 1, "the same without vectors", { sums(by: cmd5_one) }),
        Work("pace", 4, "aggregate through limiter and batcher, 64 shards", pacing),
        Work("cbor", 20, "aggregate of 50 KiB in a CBOR body", { bodies(.cbor) }),
        Work("json", 4, "aggregate of 50 KiB in a JSON body, but for base64", { bodies(.json) }),
        Work("sign", 20, "call signed", signatures),
        Work("deaggregate", 4, "record taken out of an aggregate", deaggregation),
        Work("spool", 20, "aggregate of 50 KiB into the spool", hasPaths: true, spooling),
        Work("crc32c", 20, "CRC-32C of 50 KiB", hasPaths: true, remainders),
        Work("base64", 20, "50 KiB in base64", hasPaths: true, base64),
        Work(
            "text",
            20,
            "1,000 plain bytes into a JSON string",
            hasPaths: true,
            { unsafe texts(by: ctext_copy_plain) }
        ),
        Work("text scalar", 20, "the same without vectors", { unsafe texts(by: ctext_copy_plain_portable) }),
    ]

    /// What becomes of a syslog message, 1,024 a round.
    package static let messages = [
        Work("syslog raw", 1, "syslog message of 200 bytes, whether it is one") {
            kept(SyslogWorks.made()) { $0.raw(rounds: $1) }
        },
        Work("syslog host", 1, "syslog message of 200 bytes, its host") {
            kept(SyslogWorks.made()) { $0.host(rounds: $1) }
        },
        Work("syslog json", 1, "syslog message of 200 bytes as a JSON object, 64 senders") {
            kept(SyslogWorks.made()) { $0.object(rounds: $1, isNew: false) }
        },
    ]

    /// Those that other programs compare: of packing, and of syslog messages from standard input.
    package static let others = [
        Work("pack", 4, "record of 100 bytes under one key", packed),
        Work("pack-keys", 4, "record of 100 bytes, 1,000 keys", { packedByKey(1000, shards: 64) }),
        Work("syslog-memchr", 8, "syslog message") { kept(SyslogWorks.read()) { $0.search(rounds: $1) } },
        Work("syslog-memcpy", 8, "syslog message") { kept(SyslogWorks.read()) { $0.copy(rounds: $1) } },
        Work("syslog-raw", 8, "syslog message") { kept(SyslogWorks.read()) { $0.raw(rounds: $1) } },
        Work("syslog-host", 8, "syslog message") { kept(SyslogWorks.read()) { $0.host(rounds: $1) } },
        Work("syslog-json", 8, "syslog message") { kept(SyslogWorks.read()) { $0.object(rounds: $1, isNew: false) } },
        Work("syslog-json-new", 8, "syslog message") {
            kept(SyslogWorks.read()) { $0.object(rounds: $1, isNew: true) }
        },
    ]
}

/// What does rounds with something that it keeps between them.
func kept<State: ~Copyable>(
    _ state: consuming State,
    _ run: @escaping (inout State, Int) -> Int
) -> (Int) -> Int {
    var state = state
    return { rounds in run(&state, rounds) }
}
