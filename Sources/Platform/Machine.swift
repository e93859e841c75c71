import CLinux
import Glibc

/// What the machine and the kernel say about time and this process.
public enum Machine {
    /// Milliseconds since 1970 by the wall clock: for signatures and labels, never for intervals.
    public static func wallMilliseconds() -> Int64 {
        var time = timespec()
        unsafe clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }

    /// Microseconds since the machine started, those asleep left out: what systemd orders its messages by.
    public static func monotonicMicroseconds() -> Int64 {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000
    }

    /// Blocks the calling thread.
    public static func sleep(_ duration: Duration) { _ = poll(nil, 0, duration.milliseconds) }

    /// Blocks the calling thread for a moment of microseconds.
    public static func nap(_ duration: Duration) {
        let (seconds, attoseconds) = duration.components
        var time = timespec(tv_sec: Int(seconds), tv_nsec: Int(attoseconds / 1_000_000_000))
        unsafe _ = nanosleep(&time, nil)
    }

    /// Seconds that this machine's time zone is east of UTC at a moment, in seconds since 1970.
    public static func secondsEast(at moment: Int64) -> Int {
        var time = time_t(moment)
        var local = unsafe tm()
        unsafe localtime_r(&time, &local)
        return unsafe local.tm_gmtoff
    }

    public static var hostName: String {
        var name = [CChar](repeating: 0, count: 256)
        unsafe gethostname(&name, 255)
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    public static var userNumber: UInt32 { getuid() }
    public static var processNumber: Int32 { getpid() }

    public static func environment(_ name: String) -> String? {
        guard let value = unsafe getenv(name) else { return nil }
        return unsafe String(cString: value)
    }

    /// Has the allocator give large blocks back to the system as soon as they are freed: from 4 MiB on.
    ///
    /// glibc would raise that bound with each such block that is freed, up to 32 MiB, and keep the holes between those that
    /// are in use: records of 10 MiB then take twice their memory (mallopt(3), M_MMAP_THRESHOLD). Of smaller ones each thread
    /// keeps 2 MiB at its heap's end, for good (M_TRIM_THRESHOLD): what libcurl takes for each call would else be given back
    /// with each, and be cleared again for the next.
    public static func giveBackLargeBlocks() { clinux_give_back_blocks(4 << 20, 2 << 20) }

    /// Gives the system back what the allocator holds and nobody uses, but for those 2 MiB; takes a millisecond or two for 50 MiB.
    public static func giveBackFreeMemory() { clinux_give_back_free() }

    /// Ends the residence of code that has run: what runs on is resident again with its next step, what only the start
    /// needed is not.
    ///
    /// Nothing is lost, and no other thread has to know: the pages are the files', in the kernel's cache. Of each 64 KiB that
    /// come back the first step costs about a microsecond.
    public static func unmapCode() { clinux_unmap_code() }

    /// CPU time of this process's threads whose names begin with `prefix`; all of them for an empty one.
    public static func cpuTime(ofThreadsNamed prefix: String) -> Duration {
        let ticks = sysconf(Int32(_SC_CLK_TCK))
        var total = 0
        for task in (try? Folder.entries(of: "/proc/self/task")) ?? [] {
            guard let bytes = try? Folder.read("/proc/self/task/\(task.name)/stat") else { continue }
            let text = String(decoding: bytes, as: UTF8.self)
            guard let open = text.firstIndex(of: "("), let close = text.lastIndex(of: ")") else { continue }
            guard text[text.index(after: open)..<close].hasPrefix(prefix) else { continue }
            let fields = text[close...].split(separator: " ")
            // Behind the name: state is field 3, utime 14, stime 15 (proc(5)).
            if fields.count > 13 { total += (Int(fields[12]) ?? 0) + (Int(fields[13]) ?? 0) }
        }
        return .milliseconds(total * 1000 / max(1, ticks))
    }

    /// What this process uses.
    public struct Figures: Sendable {
        public var residentBytes = 0
        public var cpu = Duration.zero
        public var openDescriptors = 0
    }

    /// What this process uses now.
    public static func figures() -> Figures {
        var figures = Figures()
        // Pages: of the program, and resident (proc(5)).
        if let statm = try? Folder.read("/proc/self/statm") {
            let fields = String(decoding: statm, as: UTF8.self).split(separator: " ")
            if fields.count > 1 { figures.residentBytes = (Int(fields[1]) ?? 0) * Int(sysconf(Int32(_SC_PAGESIZE))) }
        }
        var usage = rusage()
        if unsafe getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 {
            for time in [usage.ru_utime, usage.ru_stime] {
                figures.cpu += .seconds(time.tv_sec) + .microseconds(time.tv_usec)
            }
        }
        figures.openDescriptors = (try? Folder.entries(of: "/proc/self/fd").count) ?? 0
        return figures
    }

    /// How many descriptors this process may open.
    public static var descriptorLimit: Int { Int(clamping: clinux_descriptor_limit()) }

    /// Has the kernel leave this process's memory out of core dumps: keys and records are in it.
    ///
    /// No core where that is a file; none of the memory in it where it goes to a program, which may not ask (core(5)).
    public static func keepMemoryOutOfCores() {
        var limit = rlimit()
        unsafe _ = setrlimit(__rlimit_resource_t(UInt32(RLIMIT_CORE.rawValue)), &limit)
        guard let file = try? WrittenFile("/proc/self/coredump_filter") else { return }
        try? file.write(Array("0".utf8), at: 0)
    }

    /// Raises the number of descriptors this process may open to what it is allowed to.
    public static func raiseDescriptorLimit() {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(UInt32(RLIMIT_NOFILE.rawValue)), &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        unsafe _ = setrlimit(__rlimit_resource_t(UInt32(RLIMIT_NOFILE.rawValue)), &limit)
    }
}
