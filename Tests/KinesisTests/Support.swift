import Bytes
import Foundation
import Kinesis
import Seeded
import Testing

/// The folder of Package.swift.
let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

/// Golden data of public repositories, which lies beside the project and is no part of it.
enum Vectors {
    static let folder =
        ProcessInfo.processInfo.environment["PENSTOCK_VECTORS"].map { URL(fileURLWithPath: $0) }
        ?? root.appending(path: "../shared/vectors")

    static var exist: Bool { FileManager.default.fileExists(atPath: folder.appending(path: "hashkeys.json").path) }

    /// Why a suite is skipped where they are not.
    static let absent: Comment = "the golden vectors are not part of the product: set PENSTOCK_VECTORS"

    static func text(_ path: String) throws -> String {
        try String(contentsOf: folder.appending(path: path), encoding: .utf8)
    }

    static func json(_ name: String) throws -> WireValue {
        let bytes = Array(try text(name).utf8)
        return try WireFormat.json.read(bytes.span).owned(by: bytes, as: .json)
    }
}

extension WireValue {
    /// The same with slices copied out of `input`.
    func owned(by input: [UInt8], as format: WireFormat) throws -> WireValue {
        switch self {
        case .slice(let range):
            switch format {
            case .cbor: .data(Array(input[range]))
            case .json: .text(try validText(in: input))
            }
        case .list(let values): .list(try values.map { try $0.owned(by: input, as: format) })
        case .map(let members): .map(try members.map { .init($0.name, try $0.value.owned(by: input, as: format)) })
        case .null, .bool, .integer, .number, .text, .data, .time: self
        }
    }

    private func validText(in input: [UInt8]) throws -> String {
        let text = text(in: input.span)
        return try #require(text)
    }

    /// The text of a value that has no slices.
    var string: String? { if case .text(let text) = self { text } else { nil } }
}

extension Array<UInt8> {
    /// Reads hexadecimal.
    init(hex text: some StringProtocol) {
        let digits = text.utf8.filter { $0 != UInt8(ascii: " ") }.map {
            UInt8(Character(Unicode.Scalar($0)).hexDigitValue!)
        }
        self = stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
    }

    var hex: String { hexadecimalText(span) }
}

extension SealedAggregate {
    var array: [UInt8] { withData { Array($0) } }
}

/// The far side of an interop test: a Python script of Tests/Interop, in the project's environment.
enum Peer {
    /// Runs `script` with the path of a file of `lines`; gives the lines it prints.
    static func run(_ script: String, _ arguments: String..., lines: [String] = []) throws -> [String] {
        let python = root.appending(path: ".venv/bin/python")
        try #require(
            FileManager.default.isExecutableFile(atPath: python.path),
            "no .venv: run `make deps`, which installs the Python peers of the interop tests"
        )
        let name = "penstock-\(script)-\(UInt64.random(in: 0 ... .max))"
        let folder = FileManager.default.temporaryDirectory.appending(path: name)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let (input, output) = (folder.appending(path: "in"), folder.appending(path: "out"))
        try Data(lines.joined(separator: "\n").utf8).write(to: input)
        try Data().write(to: output)
        let process = Process()
        process.executableURL = python
        process.arguments = [root.appending(path: "Tests/Interop/\(script)").path] + arguments + [input.path]
        let handle = try FileHandle(forWritingTo: output)
        process.standardOutput = handle
        try process.run()
        process.waitUntilExit()
        try handle.close()
        try #require(process.terminationStatus == 0, "\(script) failed: see its error above")
        let text = String(decoding: try Data(contentsOf: output), as: UTF8.self)
        return text.split(separator: "\n", omittingEmptySubsequences: false).dropLast().map { String($0) }
    }
}
