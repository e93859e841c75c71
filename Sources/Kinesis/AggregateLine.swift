/// Aggregates in order.
struct AggregateLine {
    private var waiting: [SealedAggregate] = []
    private var taken = 0
    private(set) var bytes = 0

    var head: SealedAggregate? { taken < waiting.count ? waiting[taken] : nil }
    var isEmpty: Bool { taken == waiting.count }
    var count: Int { waiting.count - taken }
    var all: ArraySlice<SealedAggregate> { waiting[taken...] }

    mutating func append(_ aggregate: SealedAggregate) {
        waiting.append(aggregate)
        bytes += aggregate.size
    }

    mutating func putBack(_ aggregates: [SealedAggregate]) {
        waiting.replaceSubrange(0..<taken, with: aggregates)
        taken = 0
        bytes += aggregates.reduce(0) { $0 + $1.size }
    }

    mutating func takeHead() -> SealedAggregate {
        let head = waiting[taken]
        taken += 1
        bytes -= head.size
        if taken == waiting.count {
            waiting.removeAll(keepingCapacity: true)
            taken = 0
        } else if taken >= 64, taken * 2 >= waiting.count {
            waiting.removeFirst(taken)
            taken = 0
        }
        return head
    }

    mutating func keep(_ isKept: (SealedAggregate) -> Bool) {
        waiting = waiting[taken...].filter(isKept)
        taken = 0
        bytes = waiting.reduce(0) { $0 + $1.size }
    }
}
