import Bytes
internal import Kinesis

// How fast what the service limits may go on. All of it can do a second's amount at once.

/// What a shard takes: bytes of data and keys, and records.
///
/// Source: "Quotas and limits" in the developer guide.
struct WritePace: Sendable {
    private var bytes, records: TokenBucket

    /// - Parameter percent: of the service's rates; 0 takes nothing.
    init(percent: Double, now: Instant) {
        let (bytes, records) = (Limits.shardBytesPerSecond, Limits.shardRecordsPerSecond)
        self.bytes = TokenBucket(perSecond: Double(bytes) * percent / 100, now: now)
        self.records = TokenBucket(perSecond: Double(records) * percent / 100, now: now)
    }

    mutating func admits(_ size: Int, now: Instant) -> Bool {
        guard bytes.rate > 0, bytes.wait(for: Double(size), now: now) == nil, records.wait(for: 1, now: now) == nil
        else { return false }
        bytes.take(Double(size))
        records.take(1)
        return true
    }
}

/// What a shard gives: 2 MiB in 5 calls a second.
struct ReadPace: Sendable {
    var bytes: TokenBucket
    private var calls: TokenBucket

    init(now: Instant) {
        // A whole answer of 10 MiB may go at once; the next then waits for five seconds.
        bytes = TokenBucket(rate: Double(2 << 20), burst: Double(Limits.readBytes), now: now)
        calls = TokenBucket(perSecond: 5, now: now)
    }

    /// Whether a call is due; its bytes are taken when they are known.
    mutating func admits(now: Instant) -> Bool {
        guard calls.wait(for: 1, now: now) == nil, bytes.wait(for: 1, now: now) == nil else { return false }
        calls.take(1)
        return true
    }
}

/// How often the calls may be made that are not about records.
struct CallPace: Sendable {
    private var buckets: [String: TokenBucket] = [:]

    /// Whether the call is due.
    ///
    /// - Parameter thing: what the limit is for: a stream or a shard; "" for the account.
    mutating func admits(_ operation: Operation, of thing: String, now: Instant) -> Bool {
        guard let rate = operation.callLimit?.perSecond else { return true }
        let key = "\(operation.rawValue) \(thing)"
        var bucket = buckets[key] ?? TokenBucket(perSecond: rate, now: now)
        defer { buckets[key] = bucket }
        guard bucket.wait(for: 1, now: now) == nil else { return false }
        bucket.take(1)
        return true
    }
}

extension TokenBucket {
    fileprivate init(perSecond rate: Double, now: Instant) {
        self.init(rate: rate, burst: rate, now: now)
    }
}
