/// What Kinesis bills for records: units of 25 KB, the last of a record begun.
struct PutUnits {
    /// Of a full aggregate.
    let ofAggregate: Int
    /// Of a million lines of 200 bytes, and of as many sent one by one.
    let ofMillionLines: Int
    let meaning: String

    private static let unit = 25 << 10
    private static let line = 200
    /// What an aggregate adds to a line of that size, its key's index and lengths.
    private static let framing = 10

    init(_ output: Configuration.Output) {
        ofAggregate = (output.aggregateMaxSize + Self.unit - 1) / Self.unit
        let each = max(1, (output.aggregateMaxSize - 64) / (Self.line + Self.framing))
        let lines = 1_000_000
        ofMillionLines = output.aggregate ? (lines + each - 1) / each * ofAggregate : lines
        meaning =
            output.aggregate
            ? "a million lines of 200 bytes, in full aggregates: \(ofMillionLines) PUT units of 25 KB instead of 1000000"
            : "a million lines of 200 bytes: 1000000 PUT units of 25 KB; consumers need not deaggregate"
    }
}
