internal import CTOML

/// A value of the configuration and where it stands.
struct TOMLNode {
    var value: Value
    var place: Place

    indirect enum Value {
        case table([Member])
        case array([TOMLNode])
        case text(String)
        case integer(Int64)
        case number(Double)
        case bool(Bool)
        case time
    }

    struct Member {
        var key: String
        /// Where the key stands.
        var place: Place
        var node: TOMLNode
    }

    /// What the value is, in TOML's words.
    var kind: String {
        switch value {
        case .table: "a table"
        case .array: "an array"
        case .text: "a string"
        case .integer: "an integer"
        case .number: "a float"
        case .bool: "a boolean"
        case .time: "a date or time"
        }
    }

    /// Reads a whole text by toml++.
    static func parse(_ text: [UInt8]) throws(SyntaxError) -> TOMLNode {
        guard
            let document = unsafe text.withUnsafeBytes({
                unsafe ctoml_parse($0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
            })
        else { throw SyntaxError(place: Place(line: 1, column: 1), message: "out of memory") }
        defer { unsafe ctoml_free(document) }
        var (line, column): (UInt32, UInt32) = (0, 0)
        if let message = unsafe ctoml_error(document, &line, &column) {
            throw SyntaxError(
                place: Place(line: Int(line), column: Int(column)),
                message: unsafe String(cString: message)
            )
        }
        let nodes = unsafe UnsafeBufferPointer(start: ctoml_nodes(document), count: ctoml_count(document))
        var children: [[Int]] = .init(repeating: [], count: nodes.count)
        for index in nodes.indices.dropFirst() { unsafe children[Int(nodes[index].parent)].append(index) }
        func build(_ index: Int) -> TOMLNode {
            let node = unsafe nodes[index]
            let value: Value =
                switch unsafe node.kind {
                case CTOML_TABLE:
                    .table(
                        children[index].map { child in
                            let member = unsafe nodes[child]
                            return unsafe Member(
                                key: Self.text(member.key, member.key_size),
                                place: Place(line: Int(member.key_line), column: Int(member.key_column)),
                                node: build(child)
                            )
                        }
                    )
                case CTOML_ARRAY: .array(children[index].map(build))
                case CTOML_STRING: unsafe .text(Self.text(node.text, node.text_size))
                case CTOML_INTEGER: unsafe .integer(node.integer)
                case CTOML_FLOAT: unsafe .number(node.number)
                case CTOML_BOOLEAN: unsafe .bool(node.integer != 0)
                default: .time
                }
            return unsafe TOMLNode(value: value, place: Place(line: Int(node.line), column: Int(node.column)))
        }
        return build(0)
    }

    @unsafe
    private static func text(_ start: UnsafePointer<CChar>?, _ count: Int) -> String {
        unsafe String(decoding: UnsafeRawBufferPointer(start: start, count: count), as: UTF8.self)
    }

    struct SyntaxError: Error {
        var place: Place
        var message: String
    }
}

/// A place in a file, counted from 1.
public struct Place: Equatable, Sendable, CustomStringConvertible {
    public var line: Int
    public var column: Int

    public var description: String { "\(line):\(column)" }
}
