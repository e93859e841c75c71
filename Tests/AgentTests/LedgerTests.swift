import Agent
import Seeded
import Testing

@Suite struct LedgerTests {
    @Test func `an account adds up after every entry`() {
        var random = Random()
        let ledger = Ledger(inputs: ["one"])
        #expect(ledger.number(of: "two") == 1 && ledger.number(of: "one") == 0)
        for _ in 0..<500 {
            let amount = Ledger.Amount(records: random.below(10), bytes: random.below(1000))
            switch random.below(3) {
            case 0: ledger.read(amount, of: random.below(2))
            case 1: ledger.carryOver(amount, of: random.below(2))
            default:
                let places = Ledger.Place.allCases.shuffled(using: &random)
                ledger.move(amount, of: random.below(2), from: places[0], to: places[1])
            }
            let isBalanced = ledger.accounts.allSatisfy { $0.isBalanced }
            #expect(isBalanced, random.note)
        }
    }
}
