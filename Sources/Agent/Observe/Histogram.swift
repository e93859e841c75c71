import Platform

/// How often something took how long, in the buckets of a Prometheus histogram.
///
/// It belongs to whoever counts; others get copies.
package struct Histogram: Sendable {
    /// The upper ends of the buckets in seconds: finer around the usual linger.
    package static let bounds = [
        0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 3, 5, 10, 30, 60, 300,
    ]

    private var counts = [Int](repeating: 0, count: Histogram.bounds.count + 1)
    package private(set) var seconds = 0.0

    package init() {}

    package mutating func add(_ duration: Duration) {
        let value = max(0, duration.inSeconds)
        counts[Self.bounds.firstIndex { value <= $0 } ?? Self.bounds.count] += 1
        seconds += value
    }

    package var count: Int { counts.reduce(0, +) }

    /// For each bound, how many were not above it.
    package var cumulative: [(bound: Double, count: Int)] {
        var sum = 0
        return zip(Self.bounds, counts).map { bound, count in
            sum += count
            return (bound, sum)
        }
    }
}
