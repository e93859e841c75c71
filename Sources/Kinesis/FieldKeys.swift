internal import Bytes

/// Partition keys out of the records' JSON.
struct FieldKeys {
    private let pointer: JSONPointer

    init(_ pointer: JSONPointer) { self.pointer = pointer }

    /// Bytes of a key at most: so many are never more characters.
    static let most = Limits.partitionKeyCharacters

    /// Where the key lies that a record names; nil if it names none.
    func find(in record: Span<UInt8>) -> JSONPointer.Value? { pointer.find(in: record, most: Self.most) }
}
