internal import Bytes
import Glibc

/// Writes a message's structured data as JSON; keeps the memory for its parts.
struct StructuredDataWriter: ~Copyable {
    private var parameters: [StructuredData.Parameter] = []

    /// Bytes that a name takes, all of it backslashes, with what stands around it.
    private static let longestName = 2 * SyslogReader.longestField + 16

    init() { parameters.reserveCapacity(StructuredData.mostParameters) }

    /// Writes the elements as an object of objects, or nothing if there is no room.
    ///
    /// - Parameter reserve: bytes that what follows needs.
    /// - Returns: whether there was room.
    @inline(never)
    mutating func put(
        _ part: SyslogMessage.Part,
        _ bytes: Span<UInt8>,
        reserve: Int,
        _ text: inout ObjectText
    ) -> Bool {
        parameters.removeAll(keepingCapacity: true)
        _ = StructuredData.parse(bytes, Int(part.start)) { parameters.append($0) }
        let start = text.count
        text.setAside(reserve)
        defer { text.setAside(-reserve) }
        text.put(",\"structured_data\":{")
        for index in parameters.indices {
            let element = parameters[index].element
            // An element that comes again belongs to the first one.
            guard !parameters[..<index].contains(where: { Self.same($0.element, element, bytes) }) else { continue }
            if index > 0 { text.put(",") }
            guard putElement(from: index, bytes, &text) else {
                text.rewind(to: start)
                return false
            }
        }
        text.put("}")
        return true
    }

    /// The parameters of all elements that are named as the one of the parameter `first`.
    private func putElement(from first: Int, _ bytes: Span<UInt8>, _ text: inout ObjectText) -> Bool {
        let element = parameters[first].element
        guard text.hasRoom(for: Self.longestName) else { return false }
        text.put("\"")
        text.put(element, of: bytes)
        text.put("\":{")
        var isFirst = true
        for index in first..<parameters.count where Self.same(parameters[index].element, element, bytes) {
            let name = parameters[index].name
            func isSame(_ other: StructuredData.Parameter) -> Bool {
                Self.same(other.element, element, bytes) && Self.same(other.name, name, bytes)
            }
            guard !name.isEmpty, !parameters[first..<index].contains(where: isSame) else { continue }
            guard text.hasRoom(for: Self.longestName) else { return false }
            if !isFirst { text.put(",") }
            isFirst = false
            text.put("\"")
            text.put(name, of: bytes)
            text.put("\":")
            let isMany = parameters[(index + 1)...].contains(where: isSame)
            if isMany { text.put("[") }
            guard putValue(parameters[index].value, bytes, &text) else { return false }
            if isMany {
                for other in parameters[(index + 1)...] where isSame(other) {
                    text.put(",")
                    guard putValue(other.value, bytes, &text) else { return false }
                }
                text.put("]")
            }
        }
        text.put("}")
        return true
    }

    /// A value without its escapes: a backslash before anything but a quote, a backslash or a bracket stands for itself.
    private func putValue(_ part: SyslogMessage.Part, _ bytes: Span<UInt8>, _ text: inout ObjectText) -> Bool {
        text.put("\"")
        var (from, end) = (part.range.lowerBound, part.range.upperBound)
        while let backslash = Self.backslash(bytes, from, end) {
            switch bytes[backslash + 1] {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "]"):
                guard text.escape(bytes, from, backslash), text.escape(bytes, backslash + 1, backslash + 2) else {
                    return false
                }
                from = backslash + 2
            // What follows may be the first byte of several.
            default:
                guard text.escape(bytes, from, backslash + 1) else { return false }
                from = backslash + 1
            }
        }
        end = max(from, end)
        guard text.escape(bytes, from, end), text.hasRoom(for: 16) else { return false }
        text.put("\"")
        return true
    }

    /// The first backslash that has a byte behind it.
    private static func backslash(_ bytes: Span<UInt8>, _ start: Int, _ end: Int) -> Int? {
        var at = start
        while at + 1 < end {
            if bytes[at] == UInt8(ascii: "\\") { return at }
            at += 1
        }
        return nil
    }

    private static func same(_ one: SyslogMessage.Part, _ other: SyslogMessage.Part, _ bytes: Span<UInt8>) -> Bool {
        guard one != other else { return true }
        guard one.count == other.count else { return false }
        precondition(one.range.upperBound <= bytes.count && other.range.upperBound <= bytes.count)
        return unsafe bytes.withUnsafeBytes {
            let start = $0.baseAddress!
            return unsafe memcmp(start + Int(one.start), start + Int(other.start), Int(one.count)) == 0
        }
    }
}
