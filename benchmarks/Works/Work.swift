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
        Work("field", 4, "JSON line, keyed by a field, 64 shards", hasPaths: true, fields),
        Work("checksum", 4, "checksum of one aggregate of 50 KiB", checksums),
        Work("md5", 2, "checksum of one of 32 such aggregates", hasPaths: true, { sums(by: cmd5_best()) }),
        Work("md5 scalar", 1, "the same without vectors", { sums(by: cmd5_one) }),
        Work("pace", 4, "aggregate through limiter and batcher, 64 shards", pacing),
        Work("cbor", 20, "aggregate of 50 KiB in a CBOR body", { bodies(.cbor) }),
        Work("json", 4, "aggregate of 50 KiB in a JSON body", hasPaths: true, { bodies(.json) }),
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

    /// One syslog message, a hundred times a round.
    package static let messages = [
        Work("syslog raw", 1, "syslog message of 200 bytes, whether it is one") { { syslog("syslog-raw", $0 * 100) } },
        Work("syslog host", 1, "syslog message of 200 bytes, its host") { { syslog("syslog-host", $0 * 100) } },
        Work("syslog json", 1, "syslog message of 200 bytes as a JSON object") { { syslog("syslog-json", $0 * 100) } },
    ]

    static let message =
        "<165>1 2003-10-11T22:14:15.003987Z mymachine.example.com evntslog 1234 ID47 - "
        + String(repeating: "disk sda is at 91 percent of its capacity, ", count: 3).prefix(122)

    /// Those that other programs compare: of packing, and of a syslog message from standard input.
    package static let others =
        [
            Work("pack", 4, "record of 100 bytes under one key", packed),
            Work("pack-keys", 4, "record of 100 bytes, 1,000 keys", packedByKey),
        ]
        + ["syslog-memchr", "syslog-memcpy", "syslog-raw", "syslog-host", "syslog-json"].map { name in
            Work(name, 500, "syslog message") { { rounds in syslog(name, rounds) } }
        }
}

/// What does rounds with something that it keeps between them.
func kept<State: ~Copyable>(
    _ state: consuming State,
    _ run: @escaping (inout State, Int) -> Int
) -> (Int) -> Int {
    var state = state
    return { rounds in run(&state, rounds) }
}
