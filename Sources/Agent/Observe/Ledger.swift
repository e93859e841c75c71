import Synchronization

// Concurrency: the lane writes, anyone reads; each entry is made under one lock, so that what is read adds up.

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
            Amount(records: left.records + right.records, bytes: left.bytes + right.bytes)
        }

        package static func += (left: inout Amount, right: Amount) { left = left + right }

        package static func -= (left: inout Amount, right: Amount) {
            left = Amount(records: left.records - right.records, bytes: left.bytes - right.bytes)
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

    private let state: Mutex<[Account]>

    package init(inputs: [String]) { state = Mutex(inputs.map { Account(input: $0) }) }

    /// The account of an input, which is opened if it has none.
    package func number(of input: String) -> Int {
        state.withLock { accounts in
            if let number = accounts.firstIndex(where: { $0.input == input }) { return number }
            accounts.append(Account(input: input))
            return accounts.count - 1
        }
    }

    package func read(_ amount: Amount, of input: Int) {
        state.withLock { accounts in
            accounts[input].read += amount
            accounts[input].places[.inFlight, default: Amount()] += amount
        }
    }

    /// Notes what an earlier run has left in the spool.
    package func carryOver(_ amount: Amount, of input: Int) {
        state.withLock { accounts in
            accounts[input].carriedOver += amount
            accounts[input].places[.spooled, default: Amount()] += amount
        }
    }

    package func move(_ amount: Amount, of input: Int, from: Place, to: Place) {
        state.withLock { accounts in
            accounts[input].places[from, default: Amount()] -= amount
            accounts[input].places[to, default: Amount()] += amount
        }
    }

    package var accounts: [Account] { state.withLock { $0 } }

    /// What is in a place, of all inputs.
    package func total(_ place: Place) -> Amount {
        state.withLock { $0.reduce(Amount()) { $0 + $1[place] } }
    }
}
