package import Kinesis
internal import Platform

// Concurrency: belongs to its lane's thread.

/// The key of each source's records, where their placement needs one.
package final class SourceKeys {
    private let mode: Configuration.PartitionKey
    private let checkpoints: Checkpoints
    /// The one key of all sources.
    private let common: RecordKey?
    private var keys: [UInt32: RecordKey] = [:]

    /// Sources whose keys are kept; a longer list is begun anew.
    private static let mostKept = 10_000

    package init(_ mode: Configuration.PartitionKey, _ checkpoints: Checkpoints) {
        (self.mode, self.checkpoints) = (mode, checkpoints)
        common =
            switch mode {
            case .host: Self.key(Machine.hostName)
            case .literal(let key): Self.key(key)
            case .spread, .random, .source, .field: nil
            }
    }

    /// The key of the records from `source`; nil where the aggregator places them.
    package func key(of source: UInt32) -> RecordKey? {
        guard mode == .source else { return common }
        if let key = keys[source] { return key }
        if keys.count >= Self.mostKept { keys.removeAll() }
        let key = Self.key(checkpoints.name(of: source) ?? "source-\(source)")
        keys[source] = key
        return key
    }

    private static func key(_ text: String) -> RecordKey {
        let characters = text.unicodeScalars.prefix(Limits.partitionKeyCharacters)
        return RecordKey(partitionKey: Array(String(String.UnicodeScalarView(characters)).utf8), MD5())
    }
}
