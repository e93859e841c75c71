import Agent
import ArgumentParser
import Kinesis
import Platform

struct Explain: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Say what a configuration needs, calls, reads and costs.",
        discussion: """
            The least IAM policy as JSON, the endpoints that will be called, the shards that are seen, the files that would be \
            read with what of them is not delivered yet, and what each key means. Nothing is sent but ListShards, which \
            --offline leaves out; a Kinesis that cannot be reached is told, and no failure. Secrets are not shown.
            """
    )

    @OptionGroup var source: ConfigurationOption

    @Flag(help: "Print one JSON object.")
    var json = false

    @Flag(help: "Do not ask Kinesis for its shards.")
    var offline = false

    func run() throws {
        let explanation = Explanation(try source.load(), asks: !offline)
        if json {
            StandardOutput.write(String(decoding: WireFormat.json.encode(explanation.value), as: UTF8.self) + "\n")
            return
        }
        for policy in explanation.policies {
            print("IAM policy, for \(policy.holder):")
            print(policy.document.indented(by: "  ") + "\n")
        }
        print(
            explanation.policies.isEmpty
                ? "IAM policy: none, for the embedded Kinesis\n"
                : "where the stream is encrypted with a key of your own: kms:GenerateDataKey on that key, too\n"
        )
        print("endpoints:")
        for endpoint in explanation.endpoints { print("  \(endpoint.url)  \(endpoint.purpose)") }
        print("\nshards: \(Self.text(explanation.shards))\n")
        if let fault = explanation.stateFault { print("what is delivered cannot be told: \(fault)\n") }
        for input in explanation.inputs { show(input) }
        print("memory:")
        for (use, bytes) in explanation.memory { print("  \(Units.text(bytes: bytes)) for \(use)") }
        print("\nkeys (* is not the default):")
        let width = explanation.keys.map(\.key.count).max() ?? 0
        for key in explanation.keys {
            let space = String(repeating: " ", count: width - key.key.count)
            print("\(key.isDefault ? "  " : "* ")\(key.key)\(space)  \(key.value): \(key.meaning)")
        }
    }

    private static func text(_ shards: ShardSurvey) -> String {
        switch shards {
        case .seen(let count):
            "\(count), which take \(count) MiB and \(DemoScreen.grouped(count * Limits.shardRecordsPerSecond)) records a second"
        case .notReachable(let reason): "not reachable: \(reason)"
        case .notAsked(let reason): "not asked: \(reason)"
        }
    }

    private func show(_ input: InputSurvey) {
        let note = input.isActive ? "" : " (the output does not take it)"
        guard input.listen.isEmpty else {
            print("input \(input.name)\(note): listens on \(input.listen.joined(separator: ", "))\n")
            return
        }
        print(
            "input \(input.name)\(note): \(DemoScreen.grouped(input.fileCount)) files of "
                + "\(DemoScreen.grouped(Int(clamping: input.bytes))) bytes, \(DemoScreen.grouped(Int(clamping: input.undelivered))) "
                + "of them to be delivered"
        )
        for file in input.files {
            print(
                "  \(file.path.printable): \(DemoScreen.grouped(Int(clamping: file.size))) bytes, "
                    + "\(DemoScreen.grouped(Int(clamping: file.undelivered))) to be delivered"
            )
        }
        let rest = input.fileCount - input.files.count
        if rest > 0 { print("  and \(DemoScreen.grouped(rest)) files that are not further behind") }
        for fault in input.faults { print("  cannot be read: \(fault)") }
        print("")
    }
}

extension WireValue {
    /// JSON for people: a member, and an element that is no plain value, a line.
    fileprivate func indented(by indent: String) -> String {
        let inner = indent + "  "
        switch self {
        case .map(let members):
            let lines = members.map { member in
                let text = member.value.indented(by: inner).drop { $0 == " " }
                return "\(inner)\(WireValue.text(member.name).compact): \(text)"
            }
            return "\(indent){\n\(lines.joined(separator: ",\n"))\n\(indent)}"
        case .list(let values) where values.contains(where: { $0.members != nil }):
            let lines = values.map { $0.indented(by: inner) }
            return "\(indent)[\n\(lines.joined(separator: ",\n"))\n\(indent)]"
        case .null, .bool, .integer, .number, .text, .slice, .data, .time, .list: return indent + compact
        }
    }

    private var compact: String { String(decoding: WireFormat.json.encode(self), as: UTF8.self) }
}
