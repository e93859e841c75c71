import Agent
import Bytes
import Kinesis

/// Any two messages, one after the other through one reader, become objects that read as JSON and hold their text.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = unsafe Array(UnsafeBufferPointer(start: data, count: count))
    let isLocal = input.count % 2 == 1
    var writer = SyslogObjectWriter(isLocal: isLocal)
    var reader = SyslogReader(isLocal: isLocal)
    for message in input.split(separator: 0x1e, maxSplits: 1, omittingEmptySubsequences: false).map(Array.init) {
        check(message, isLocal, &writer, &reader)
    }
    return 0
}

func check(
    _ message: [UInt8],
    _ isLocal: Bool,
    _ writer: inout SyslogObjectWriter,
    _ reader: inout SyslogReader
) {
    let fields = reader.read(message.span)
    let found = reader.host(message.span)
    precondition(found.isParsed == fields.isParsed && found.host == fields.host, "another host")
    precondition(reader.isParsed(message.span) == fields.isParsed, "another kind")
    for part in [
        fields.host, fields.application, fields.processID, fields.messageID, fields.structuredData, fields.text,
    ] {
        precondition(part.range.upperBound <= message.count, "outside of the message")
    }
    let received = 1_795_262_400_123_456_789 + Int64(message.count) * 86_400_000_000_000
    // Of its own size, so that the sanitizer sees what is written behind it.
    for room in [SyslogObjectWriter.leastRoom, SyslogObjectWriter.room(for: message.count)] {
        let out = UnsafeMutableRawBufferPointer.allocate(byteCount: room, alignment: 1)
        defer { unsafe out.deallocate() }
        // Where there is none, nothing is kept free for it.
        let peer = message.count % 3 == 0 ? [] : Array(message.prefix(SyslogObjectWriter.longestPeer))
        let written = unsafe writer.write(message.span, peer: peer.span, received: received, zone: 3600, into: out)
        let text = unsafe Array(out[..<written.count])
        var fresh = SyslogObjectWriter(isLocal: isLocal)
        _ = unsafe fresh.write(message.span, peer: peer.span, received: received, zone: 3600, into: out)
        precondition(unsafe out[..<written.count].elementsEqual(text), "what came before shows")
        guard let object = try? WireFormat.json.read(text.span), let members = object.members else {
            preconditionFailure("no JSON: \(String(decoding: text, as: UTF8.self))")
        }
        precondition(Set(members.map(\.name)).count == members.count, "a member comes twice")
        guard let sent = object["message"]?.text(in: text.span) else { preconditionFailure("no message") }
        let meant = String(decoding: message[fields.text.range], as: UTF8.self)
        if written.isTruncated {
            precondition(room == SyslogObjectWriter.leastRoom, "cut in spite of the room")
            precondition(meant.utf8.starts(with: sent.utf8), "another text")
        } else {
            precondition(sent == meant, "another text")
        }
    }
}
