import Logging

// Concurrency: belongs to its collector's thread.

/// Logs what is wrong with an input's paths: each fault once, until it changes or a whole scan does not meet it.
final class PathFaults {
    private let input: String
    private let counters: Counters
    private let log: Logger
    /// Paths whose fault has been told, which, and in which scan.
    private var told: [String: (fault: String, scan: UInt32)] = [:]
    private var scan: UInt32 = 0

    init(_ input: String, _ counters: Counters, _ log: Logger) {
        (self.input, self.counters, self.log) = (input, counters, log)
    }

    func beginScan() { scan &+= 1 }

    /// Forgets what this scan has not met.
    func endScan() { told = told.filter { $0.value.scan == scan } }

    /// Logs a path's fault, once until it changes.
    func tell(_ path: String, _ fault: String) {
        let isNew = told[path]?.fault != fault
        told[path] = (fault, scan)
        guard isNew else { return }
        counters.collectors.errors.add(1)
        log.error("file cannot be read", metadata: ["path": "\(path)", "reason": "\(fault)", "input": "\(input)"])
    }

    /// There is nothing wrong with a path any more.
    func forget(_ path: String) { told[path] = nil }
}
