import Kinesis
import Platform

/// A line of a screen, in parts of different meaning.
struct StyledLine {
    enum Style { case plain, strong, dim, good, warning, bad }

    struct Part {
        var text: String
        var style: Style

        init(_ text: String, _ style: Style = .plain) { (self.text, self.style) = (text, style) }
    }

    var parts: [Part]

    init(_ parts: [Part]) { self.parts = parts }
    init(_ text: String, _ style: Style = .plain) { parts = [Part(text, style)] }

    var plain: String { parts.map(\.text).joined() }

    /// As a terminal shows it, in so many columns at most.
    func styled(columns: Int) -> String {
        var (text, left) = ("", columns)
        for part in parts where left > 0 {
            let shown = part.text.prefix(left)
            left -= shown.count
            switch part.style {
            case .plain: text += shown
            case .strong: text += "\u{1b}[1m\(shown)\u{1b}[0m"
            case .dim: text += "\u{1b}[2m\(shown)\u{1b}[0m"
            case .good: text += "\u{1b}[32m\(shown)\u{1b}[0m"
            case .warning: text += "\u{1b}[33m\(shown)\u{1b}[0m"
            case .bad: text += "\u{1b}[1;31m\(shown)\u{1b}[0m"
            }
        }
        return text
    }
}

/// What `penstock top` shows of two looks at an agent: as many lines of each part as there is room for.
struct TopScreen {
    private(set) var lines: [StyledLine] = []
    private let now: StatusSample
    private let before: StatusSample?
    private let columns: Int
    private let seconds: Double

    init(_ now: StatusSample, before: StatusSample?, rows: Int, columns: Int) {
        (self.now, self.before, self.columns) = (now, before, min(columns, 200))
        let elapsed = now.number(now["uptime_seconds"]) - (before.map { $0.number($0["uptime_seconds"]) } ?? 0)
        seconds = max(0.001, elapsed)
        lines = head
        let room = rows == .max ? .max : max(0, rows - lines.count)
        // Less than a line under its heading is nothing.
        let parts = [inputs, shards, files, sockets, errors, log].filter { !$0.isEmpty }.prefix(room / 3)
        for (part, share) in zip(parts, Self.shares(of: parts.map { $0.count + 1 }, in: room)) where share >= 3 {
            lines.append(StyledLine(""))
            lines += part.prefix(share - 1)
        }
    }

    /// How many lines each part gets of those there are: what it needs, or an equal share and what others leave.
    private static func shares(of needs: [Int], in room: Int) -> [Int] {
        guard room < needs.reduce(0, +) else { return needs }
        var (shares, left) = ([Int](repeating: 0, count: needs.count), room)
        // The smallest first: what they leave is the others'.
        let order = needs.indices.sorted { needs[$0] < needs[$1] }
        for (place, index) in order.enumerated() {
            shares[index] = min(needs[index], left / (order.count - place))
            left -= shares[index]
        }
        return shares
    }

    // MARK: rates

    /// How much a counter has grown a second.
    private func rate(_ path: (StatusSample) -> WireValue?) -> Double {
        guard let before else { return 0 }
        return max(0, now.number(path(now)) - before.number(path(before))) / seconds
    }

    private func list(_ sample: StatusSample?, _ name: String) -> [WireValue] { sample?[name]?.list ?? [] }

    /// The same element of the list as it was before.
    private func earlier(_ element: WireValue, in name: String, by keys: [String]) -> WireValue? {
        list(before, name).first { other in keys.allSatisfy { before!.text(other[$0]) == now.text(element[$0]) } }
    }

    private func growth(_ element: WireValue, _ earlier: WireValue?, _ path: String...) -> Double {
        guard let before, let earlier else { return 0 }
        func value(_ sample: StatusSample, _ element: WireValue) -> Double {
            sample.number(path.reduce(element as WireValue?) { $0?[$1] })
        }
        return max(0, value(now, element) - value(before, earlier)) / seconds
    }

    /// The bound below which a share of a while's values lie, in milliseconds.
    private func percentile(_ share: Double) -> String {
        func counts(_ sample: StatusSample?) -> [(bound: Double, count: Double)] {
            (sample?["latency", "delivery_seconds", "buckets"]?.list ?? []).map { bucket in
                (sample!.number(bucket["le"]), sample!.number(bucket["count"]))
            }
        }
        let (new, old) = (counts(now), counts(before))
        let deltas = new.indices.map { new[$0].count - (old.indices.contains($0) ? old[$0].count : 0) }
        guard let total = deltas.last, total > 0, before != nil else { return "-" }
        let place = deltas.firstIndex { $0 >= share * total } ?? 0
        let (low, below) = place == 0 ? (0, 0) : (new[place - 1].bound, deltas[place - 1])
        let part = deltas[place] > below ? (share * total - below) / (deltas[place] - below) : 1
        return "\(Int((low + (new[place].bound - low) * part) * 1000)) ms"
    }

    // MARK: parts

    private var head: [StyledLine] {
        let state = now.text(now["state"])
        let style: StyledLine.Style = state == "delivering" ? .good : state == "failing" ? .bad : .warning
        let uptime = Self.duration(now.number(now["uptime_seconds"]))
        var lines = [
            StyledLine([
                .init("penstock \(now.text(now["version"])) ", .strong),
                .init("on \(now.text(now["host"])), up \(uptime)  "),
                .init(state, style),
                .init("  \(now.text(now["output", "stream"])) \(now.text(now["output", "region"]))"),
            ])
        ]
        if state == "failing" {
            let failing = Self.duration(now.number(now["output", "failing_seconds"]))
            lines.append(StyledLine("failing for \(failing): \(now.text(now["output", "last_failure"]))", .bad))
        }
        let (taken, takenBytes) = (rate { $0["output", "records"] }, rate { $0["output", "bytes"] })
        let (sent, sentBytes) = (rate { $0["output", "records_delivered"] }, rate { $0["output", "bytes_delivered"] })
        let calls = rate { $0["output", "calls"] }
        let inFlight =
            "\(now.count(now["output", "calls_in_flight"])) of \(now.count(now["output", "calls_allowed"])) under way"
        let cpu = (rate { $0["cpu_seconds"] }) * 100
        let oldest = now["oldest_undelivered_seconds"]?.number.map(Self.duration) ?? "none"
        lines += [
            Self.pair(
                "in",
                "\(Self.number(taken)) records/s, \(Self.bytes(takenBytes))/s",
                "cpu",
                "\(DemoScreen.fixed(cpu, 1)) %"
            ),
            Self.pair(
                "delivered",
                "\(Self.number(sent)) records/s, \(Self.bytes(sentBytes))/s",
                "memory",
                Self.bytes(now.number(now["memory", "resident_bytes"]))
            ),
            Self.pair("calls", "\(Self.number(calls))/s, \(inFlight)", "oldest", oldest),
            Self.pair("latency", "p50 \(percentile(0.5)), p99 \(percentile(0.99))", "spool", spool),
        ]
        return lines
    }

    private var spool: String {
        guard now["spool", "on"]?.bool == true else { return "off" }
        let owed = now.number(now["spool", "owed_bytes"])
        return "\(Self.bytes(owed)) owed, \(Self.bytes(now.number(now["spool", "room_bytes"]))) free"
    }

    private var inputs: [StyledLine] {
        let rows = list(now, "inputs").map { input -> [StyledLine.Part] in
            let earlier = earlier(input, in: "inputs", by: ["name"])
            func count(_ place: String) -> String { Self.number(now.number(input[place]?["records"])) }
            let dropped = now.count(input["dropped"]?["records"])
            let dead = now.count(input["dead_lettered"]?["records"])
            return [
                .init(now.text(input["name"])), .init(now.text(input["type"])),
                .init(Self.number(growth(input, earlier, "read", "records"))),
                .init(Self.bytes(growth(input, earlier, "read", "bytes"))), .init(count("delivered")),
                .init(count("in_flight")),
                .init(count("spooled"), now.count(input["spooled"]?["records"]) > 0 ? .warning : .plain),
                .init(count("dead_lettered"), dead > 0 ? .warning : .plain),
                .init(count("dropped"), dropped > 0 ? .bad : .plain),
            ]
        }
        let names = ["input", "type", "rec/s", "bytes/s", "delivered", "in flight", "spooled", "dead", "dropped"]
        return Self.table(names, rows, left: 2)
    }

    private var shards: [StyledLine] {
        let limit = now.number(now["shard_limits", "bytes_per_second"])
        let recordLimit = now.number(now["shard_limits", "records_per_second"])
        let earlier = Dictionary(
            list(before, "shards").map { (before!.text($0["id"]), $0) },
            uniquingKeysWith: { first, _ in first }
        )
        let width = columns < 90 ? 8 : 20
        let busy = list(now, "shards").map { shard -> (share: Double, refused: Double, row: [StyledLine.Part]) in
            let before = earlier[now.text(shard["id"])]
            let (bytes, records) = (growth(shard, before, "bytes"), growth(shard, before, "records"))
            let refused = growth(shard, before, "throttled")
            let share = max(bytes / max(1, limit), records / max(1, recordLimit))
            let cooling = shard["cooling_seconds"]?.number != nil
            let bar = String(repeating: "█", count: Int(min(1, share) * Double(width) + 0.5))
            let style: StyledLine.Style = refused > 0 || cooling ? .bad : share > 0.8 ? .warning : .good
            let row: [StyledLine.Part] = [
                .init(now.text(shard["id"])), .init(Self.padded(bar, width), style),
                .init("\(Int(share * 100 + 0.5)) %"), .init(Self.bytes(bytes)), .init(Self.number(records)),
                .init(Self.bytes(now.number(shard["queued_bytes"]))),
                .init(
                    refused > 0 ? "\(Self.number(refused))/s" : cooling ? "cooling" : "-",
                    refused > 0 ? .bad : .plain
                ),
            ]
            return (share, refused, row)
        }.sorted { ($0.refused, $0.share) > ($1.refused, $1.share) }
        let count = busy.count + now.count(now["shards_left_out"])
        let names = ["busiest of \(count) shards", "", "of limit", "bytes/s", "rec/s", "queued", "refused"]
        return Self.table(names, busy.map(\.row), left: 2)
    }

    private var files: [StyledLine] {
        let open = now.count(now["files", "open"])
        guard open > 0 else { return [] }
        let rows = (now["files", "furthest_behind"]?.list ?? []).map { file -> [StyledLine.Part] in
            let lag = now.number(file["lag_bytes"])
            return [
                .init(Self.bytes(lag), lag > 0 ? .warning : .plain), .init(Self.bytes(now.number(file["size_bytes"]))),
                .init(" " + now.text(file["path"])),
            ]
        }
        return Self.table(
            ["behind", "size", " file (of \(open), those furthest behind)"],
            rows,
            left: 0,
            leftLast: true
        )
    }

    private var sockets: [StyledLine] {
        var rows = list(now, "datagrams").map { socket -> [StyledLine.Part] in
            let before = earlier(socket, in: "datagrams", by: ["input", "address"])
            let drops = now.count(socket["dropped_by_kernel"]) + now.count(socket["dropped_by_policy"])
            return [
                .init(now.text(socket["input"])), .init(now.text(socket["address"])),
                .init(Self.number(growth(socket, before, "received"))),
                .init(Self.number(now.number(socket["received"]))),
                .init("-"), .init(Self.number(Double(drops)), drops > 0 ? .bad : .plain),
            ]
        }
        rows += list(now, "streams").map { streams in
            let before = earlier(streams, in: "streams", by: ["input"])
            let lost = now.count(streams["lost"])
            return [
                .init(now.text(streams["input"])), .init("streams"),
                .init(Self.number(growth(streams, before, "records"))),
                .init(Self.number(now.number(streams["records"]))),
                .init(Self.number(now.number(streams["open"]))),
                .init(Self.number(Double(lost)), lost > 0 ? .bad : .plain),
            ]
        }
        return Self.table(["socket of", "address", "rec/s", "received", "open", "dropped"], rows, left: 2)
    }

    private var errors: [StyledLine] {
        let rows = (now["output", "errors"]?.list ?? []).map { error -> [StyledLine.Part] in
            [.init(now.text(error["code"])), .init(Self.number(now.number(error["count"])))]
        }
        return Self.table(["error", "times"], rows, left: 1)
    }

    private var log: [StyledLine] {
        let events = list(now, "log").suffix(20).reversed().map { event -> StyledLine in
            let time = now.text(event["time"]).dropFirst(11).prefix(8)
            let level = now.text(event["level"])
            return StyledLine([
                .init("\(time) ", .dim), .init("\(level) ", level == "warning" ? .warning : .bad),
                .init(now.text(event["message"])), .init(" \(now.text(event["details"]))", .dim),
            ])
        }
        return events.isEmpty ? [] : [StyledLine("last warnings and errors, the newest first", .strong)] + events
    }

    // MARK: how it is written

    private static func pair(_ name: String, _ value: String, _ other: String, _ otherValue: String) -> StyledLine {
        StyledLine([
            .init(padded(name, 10), .dim), .init(padded(value, 36)), .init(padded(other, 8), .dim), .init(otherValue),
        ])
    }

    /// - Parameters:
    ///   - left: columns that are aligned to the left; the others are numbers.
    ///   - leftLast: whether the last is, too.
    private static func table(
        _ names: [String],
        _ rows: [[StyledLine.Part]],
        left: Int,
        leftLast: Bool = false
    ) -> [StyledLine] {
        guard !rows.isEmpty else { return [] }
        let widths = names.indices.map { column in
            max(names[column].count, rows.map { $0[column].text.count }.max() ?? 0)
        }
        func aligned(_ text: String, _ column: Int) -> String {
            if leftLast, column == names.count - 1 { return text }
            let space = String(repeating: " ", count: widths[column] - text.count)
            return (column < left ? text + space : space + text) + (column == names.count - 1 ? "" : "  ")
        }
        let head = StyledLine(names.indices.map { aligned(names[$0], $0) }.joined(), .strong)
        return [head]
            + rows.map { row in
                StyledLine(row.enumerated().map { .init(aligned($0.element.text, $0.offset), $0.element.style) })
            }
    }

    private static func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }

    static func number(_ value: Double) -> String { DemoScreen.grouped(Int(value.rounded())) }

    static func bytes(_ value: Double) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB"]
        var (value, unit) = (value, 0)
        while value >= 1024, unit < units.count - 1 { (value, unit) = (value / 1024, unit + 1) }
        return "\(DemoScreen.fixed(value, unit == 0 || value >= 100 ? 0 : 1)) \(units[unit])"
    }

    static func duration(_ seconds: Double) -> String {
        switch seconds {
        case ..<10: "\(DemoScreen.fixed(seconds, 1)) s"
        case ..<120: "\(Int(seconds)) s"
        case ..<7200: "\(Int(seconds / 60)) min"
        case ..<172_800: "\(Int(seconds / 3600)) h"
        default: "\(Int(seconds / 86_400)) days"
        }
    }
}
