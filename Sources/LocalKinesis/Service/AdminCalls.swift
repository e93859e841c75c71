internal import Kinesis

// What the API of the service does not have: faults and limits, changed while the server runs. Plain JSON.

extension Service {
    static let adminPath = "/_penstock/"

    func administer(_ request: consuming Request, at now: Moment) -> Answer {
        let path = request.uri.dropFirst(Self.adminPath.count).split(separator: "/").map(String.init)
        do throws(Refusal) {
            switch (request.method, path.first, path.count) {
            case ("GET", "faults", 1): return .json(200, withFaults { $0.listing($0.rules) })
            case ("POST", "faults", 1):
                let rules = try Self.rules(in: request.body)
                return changingFaults { (faults) in
                    faults.add(rules)
                    return .json(200, faults.listing(faults.rules.suffix(rules.count)))
                }
            case ("DELETE", "faults", 1): return changingFaults { .json(200, $0.listing($0.remove())) }
            case ("DELETE", "faults", 2):
                let id = Int(path[1]) ?? 0
                return changingFaults { faults in
                    let removed = faults.remove(id)
                    return removed.isEmpty
                        ? .json(404, .complaint("no fault \(id)")) : .json(200, faults.listing(removed))
                }
            case ("POST", "limits", 1): return try limitShard(request.body, at: now)
            case (_, "faults", 1): return .json(405, .complaint("faults take GET, POST and DELETE"))
            case (_, "limits", 1): return .json(405, .complaint("limits take POST"))
            default: return .json(404, .complaint("there is \(Self.adminPath)faults and \(Self.adminPath)limits"))
            }
        } catch {
            return .json(error.status, .complaint(error.message ?? error.code))
        }
    }

    private func withFaults(_ body: (FaultInjector) -> WireValue) -> WireValue { withStore { body($0.faults) } }

    private func changingFaults(_ body: (inout FaultInjector) -> Answer) -> Answer {
        let answer = withStore { body(&$0.faults) }
        faultsChanged()
        return answer
    }

    /// Rules out of an object, or a list of them: the member `fault` is a rule or its kind, others are its values.
    private static func rules(in body: [UInt8]) throws(Refusal) -> [FaultRule] {
        let value = try read(body)
        var rules: [FaultRule] = []
        for object in value.list ?? [value] {
            let members = object.members ?? []
            guard var text = object["fault"]?.text(in: body.span) else {
                throw .invalidArgument("an object needs the member \"fault\", like \"reset\" or \"reset:when=after\"")
            }
            for member in members where member.name != "fault" {
                let value: String
                switch member.value {
                case .integer(let number): value = "\(number)"
                case .number(let number): value = "\(number)"
                case .text, .slice: value = member.value.text(in: body.span) ?? ""
                case .null, .bool, .data, .time, .list, .map:
                    throw .invalidArgument("\(member.name) is a number or a text")
                }
                text += (text.contains(":") ? "," : ":") + "\(member.name)=\(value)"
            }
            do { rules.append(try FaultRule(text)) } catch { throw .invalidArgument(error.description) }
        }
        return rules
    }

    private func limitShard(_ body: [UInt8], at now: Moment) throws(Refusal) -> Answer {
        let value = try Self.read(body)
        let percent: Double? =
            switch value["percent"] {
            case .integer(let number)?: Double(number)
            case .number(let number)?: number
            case nil, .null, .bool, .text, .slice, .data, .time, .list, .map: nil
            }
        guard let stream = value["stream"]?.text(in: body.span), let shard = value["shard"]?.integer, shard >= 0,
            let percent, percent >= 0
        else { throw .invalidArgument("an object needs the members stream, shard (its number) and percent") }
        try withStore { (store) throws(Refusal) in
            try store.limit(ShardID(number: UInt64(shard)), of: stream, to: percent, now: now)
        }
        return .json(200, .object([:]))
    }

    private static func read(_ body: [UInt8]) throws(Refusal) -> WireValue {
        do { return try WireFormat.json.read(body.span) } catch {
            throw .invalidArgument("the body is no JSON: \(error.description)")
        }
    }
}

extension FaultInjector {
    fileprivate func listing(_ rules: some Sequence<Active>) -> WireValue {
        .object([
            "seed": .integer(Int64(bitPattern: seed)),
            "faults": .list(
                rules.map { active in
                    .object([
                        "id": .integer(Int64(active.id)), "fault": .text(active.rule.text),
                        "seen": .integer(Int64(active.seen)), "hits": .integer(Int64(active.hits)),
                        "untold_calls": .integer(Int64(active.untoldCalls)),
                        "untold_records": .integer(Int64(active.untoldRecords)),
                    ])
                }
            ),
        ])
    }
}

extension WireValue {
    fileprivate static func complaint(_ text: String) -> WireValue { .object(["error": .text(text)]) }
}

extension Service.Answer {
    fileprivate static func json(_ status: Int, _ value: WireValue) -> Self {
        Self(status: status, contentType: "application/json", body: WireFormat.json.encode(value) + [10])
    }
}
