import Kinesis
import Platform
import Synchronization

// Concurrency: the lane writes, collectors where they drop, anyone reads; each entry is made under one lock, so that what is read adds up.

/// What became of each input's records.
///
/// At any time, for each input: read + carried over = delivered + in flight + spooled + dead-lettered + dropped. Bytes are
/// those of the source, line ends included.
package final class Ledger: Sendable {
    package struct Amount: Equatable, Sendable {
        package var records: Int
        package var bytes: Int

        package init(records: Int = 0, bytes: Int = 0) { (self.records, self.bytes) = (records, bytes) }

        package static func + (left: Amount, right: Amount) -> Amount {
            Amount(records: sum(left.records, right.records), bytes: sum(left.bytes, right.bytes))
        }

        /// What a damaged file claims may be any number: it must not stop the agent.
        private static func sum(_ left: Int, _ right: Int) -> Int {
            let (sum, isTooLarge) = left.addingReportingOverflow(right)
            return isTooLarge ? (right > 0 ? .max : .min) : sum
        }

        package static func += (left: inout Amount, right: Amount) { left = left + right }

        package static func -= (left: inout Amount, right: Amount) {
            left += Amount(records: -right.records, bytes: -right.bytes)
        }
    }

    /// Where records are, since the agent started.
    package enum Place: String, CaseIterable, Sendable {
        /// Kinesis has acknowledged them.
        case delivered
        /// In memory: in an aggregate, waiting, or in a call.
        case inFlight = "in_flight"
        /// On disk, and owed to Kinesis.
        case spooled
        case deadLettered = "dead_lettered"
        /// Given up, by a policy that the operator chose or for want of any other place; the log says why.
        case dropped
    }

    package struct Account: Equatable, Sendable {
        package var input: String
        /// Taken in since the start.
        package var read = Amount()
        /// Found in the spool at the start.
        package var carriedOver = Amount()
        package var places: [Place: Amount] = [:]

        package subscript(place: Place) -> Amount { places[place] ?? Amount() }

        /// Whether it adds up.
        package var isBalanced: Bool { read + carriedOver == places.values.reduce(Amount(), +) }
    }

    private struct State {
        var accounts: [Account]
        /// Something has changed since the last look of whoever writes it down.
        var isDirty = false
        var bell: Doorbell?

        mutating func changed() {
            if !isDirty { bell?.ring() }
            isDirty = true
        }
    }

    private let state: Mutex<State>

    package init(inputs: [String]) { state = Mutex(State(accounts: inputs.map { Account(input: $0) })) }

    /// The account of an input, which is opened if it has none.
    package func number(of input: String) -> Int {
        state.withLock { state in
            if let number = state.accounts.firstIndex(where: { $0.input == input }) { return number }
            state.accounts.append(Account(input: input))
            return state.accounts.count - 1
        }
    }

    package func read(_ amount: Amount, of input: Int) {
        state.withLock { state in
            state.accounts[input].read += amount
            state.accounts[input].places[.inFlight, default: Amount()] += amount
            state.changed()
        }
    }

    /// Notes what was read and found no place.
    package func drop(_ amount: Amount, of input: Int) {
        state.withLock { state in
            state.accounts[input].read += amount
            state.accounts[input].places[.dropped, default: Amount()] += amount
            state.changed()
        }
    }

    /// Notes what an earlier run has left in the spool.
    package func carryOver(_ amount: Amount, of input: Int) {
        state.withLock { state in
            state.accounts[input].carriedOver += amount
            state.accounts[input].places[.spooled, default: Amount()] += amount
            state.changed()
        }
    }

    package func move(_ amount: Amount, of input: Int, from: Place, to: Place) {
        state.withLock { state in
            state.accounts[input].places[from, default: Amount()] -= amount
            state.accounts[input].places[to, default: Amount()] += amount
            state.changed()
        }
    }

    package var accounts: [Account] { state.withLock { $0.accounts } }

    /// The name of an input by its number.
    package func name(of input: Int) -> String { state.withLock { $0.accounts[input].input } }

    /// What is in a place, of all inputs.
    package func total(_ place: Place) -> Amount {
        state.withLock { $0.accounts.reduce(Amount()) { $0 + $1[place] } }
    }

    // MARK: written down

    /// Says whom to wake when there is something to write down.
    func setBell(_ bell: Doorbell) { state.withLock { $0.bell = bell } }

    var isDirty: Bool { state.withLock { $0.isDirty } }

    /// Where a state directory's ledger is written down.
    static func path(_ stateDirectory: String) -> String { stateDirectory + "/ledger.json" }

    /// Writes every account down, for `penstock files`: for people to look at, not for a start to build on.
    func write(_ stateDirectory: String) throws(SystemError) {
        let accounts = state.withLock { state in
            state.isDirty = false
            return state.accounts
        }
        func value(_ amount: Amount) -> WireValue {
            .object(["records": .integer(Int64(amount.records)), "bytes": .integer(Int64(amount.bytes))])
        }
        let inputs = accounts.map { account in
            WireValue.map(
                [
                    .init("input", .text(account.input)), .init("read", value(account.read)),
                    .init("carried_over", value(account.carriedOver)),
                ] + Place.allCases.map { .init($0.rawValue, value(account[$0])) }
            )
        }
        let whole = WireValue.object([
            "process": .integer(Int64(Machine.processNumber)), "written": .integer(Machine.wallMilliseconds()),
            "inputs": .list(inputs),
        ])
        try Folder.replace(Self.path(stateDirectory), with: WireFormat.json.encode(whole) + [10], isDurable: false)
    }

    /// Reads what was written down last.
    package static func load(_ stateDirectory: String) -> [Account]? {
        guard let bytes = try? Folder.read(path(stateDirectory)), let value = try? WireFormat.json.read(bytes.span)
        else {
            return nil
        }
        func amount(_ value: WireValue?) -> Amount {
            Amount(records: Int(value?["records"]?.integer ?? 0), bytes: Int(value?["bytes"]?.integer ?? 0))
        }
        return (value["inputs"]?.list ?? []).compactMap { input in
            guard let name = input["input"]?.text(in: bytes.span) else { return nil }
            var account = Account(input: name)
            account.read = amount(input["read"])
            account.carriedOver = amount(input["carried_over"])
            for place in Place.allCases { account.places[place] = amount(input[place.rawValue]) }
            return account
        }
    }
}

/// One input's account in user records, for a command to print.
public struct InputAccount: Sendable {
    public var input: String
    public var read: Int
    public var carriedOver: Int
    /// In the order of `places`.
    public var records: [Int]

    public static let places = Ledger.Place.allCases.map { $0.rawValue.replacing("_", with: " ") }

    /// The accounts that an agent has written down.
    public static func all(stateDirectory: String) -> [InputAccount] {
        (Ledger.load(stateDirectory) ?? []).map { account in
            InputAccount(
                input: account.input,
                read: account.read.records,
                carriedOver: account.carriedOver.records,
                records: Ledger.Place.allCases.map { account[$0].records }
            )
        }
    }
}
