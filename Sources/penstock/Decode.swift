import ArgumentParser
import Kinesis
import Platform

struct Decode: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Take aggregates from standard input apart.",
        discussion: """
            Understands a raw aggregate, base64 (a record a line), the JSON answer of GetRecords, and a Lambda event from \
            Kinesis:
                aws kinesis get-records … | penstock decode
            """
    )

    @Option(help: "raw, json or hex.")
    var format = RecordFormat.raw

    @Flag(inversion: .prefixedNo, help: "Inflate records that are gzip, and part blocks into their lines.")
    var gunzip = true

    func run() throws {
        var printer = RecordPrinter(format: format, inflates: gunzip)
        do {
            let input = try StandardInput.read(limit: 1 << 30)
            for record in try Self.records(in: input) {
                printer.print(record.data.span, from: .init(partitionKey: record.key, sequenceNumber: record.sequence))
            }
        } catch let fault as Unreadable {
            printer.flush()
            StandardError.write("penstock: \(fault.description)\n")
            throw Exit.badData
        }
        printer.flush()
    }

    private struct Record {
        var key: [UInt8] = []
        var sequence: String?
        var data: [UInt8]
    }

    private struct Unreadable: Error {
        var description: String
    }

    private static func records(in input: [UInt8]) throws -> [Record] {
        guard !input.isEmpty else {
            throw Unreadable(description: "standard input is empty: pipe an aggregate into it")
        }
        if input.starts(with: AggregateWriter.magic) { return [Record(data: input)] }
        let first = input.first { !" \n\r\t".utf8.contains($0) }
        if first == UInt8(ascii: "{") { return try jsonRecords(in: input) }
        return try input.split(separator: 10).enumerated().compactMap { index, line in
            let text = line.filter { !" \r\t".utf8.contains($0) }
            if text.isEmpty { return nil }
            guard let data = Base64.decode(text.span) else {
                throw Unreadable(description: "line \(index + 1) is neither an aggregate, base64, nor JSON")
            }
            return Record(data: data)
        }
    }

    /// GetRecords: `Records[].Data`.
    ///
    /// Lambda: `Records[].kinesis.data`.
    private static func jsonRecords(in input: [UInt8]) throws -> [Record] {
        let value: WireValue
        do { value = try WireFormat.json.read(input.span) } catch {
            throw Unreadable(description: "the JSON cannot be read: \(error)")
        }
        guard let records = value["Records"]?.list else {
            throw Unreadable(description: "the JSON has no Records, as GetRecords and Lambda events do")
        }
        return try records.enumerated().map { index, record in
            let inner = record["kinesis"]
            guard let data = (record["Data"] ?? inner?["data"])?.data(in: input.span, as: .json) else {
                throw Unreadable(description: "Records[\(index)] has no base64 under Data or kinesis.data")
            }
            let key = (record["PartitionKey"] ?? inner?["partitionKey"])?.text(in: input.span)
            let sequence = (record["SequenceNumber"] ?? inner?["sequenceNumber"])?.text(in: input.span)
            return Record(key: Array((key ?? "").utf8), sequence: sequence, data: data)
        }
    }
}
