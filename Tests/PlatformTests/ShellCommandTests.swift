import Bytes
import Glibc
import Platform
import Synchronization
import Testing

@Suite struct ShellCommandTests {
    static func run(_ text: String, within timeout: Duration = .seconds(10)) -> Result<[UInt8], ShellCommand.Failure> {
        guard let bell = try? Doorbell() else { preconditionFailure("no descriptor left") }
        return Result { () throws(ShellCommand.Failure) in try ShellCommand(text).output(within: timeout, bell: bell) }
    }

    @Test func `what a command prints is returned, whatever it reads and complains about`() throws {
        #expect(try Self.run("cat; echo complaint >&2; printf 'a b'; printf c").get() == Array("a bc".utf8))
        #expect(try Self.run("head -c 60000 /dev/zero").get().count == 60_000)
        #expect(try Self.run("true").get() == [])
    }

    @Test func `a command inherits neither our descriptors nor our signal mask`() throws {
        // The folder of its descriptors is open while it is listed.
        #expect(try Self.run("ls /proc/self/fd").get() == Array("0\n1\n2\n3\n".utf8))
        #expect(try Self.run("grep -c 'SigBlk:.*0000000000000000' /proc/self/status").get() == Array("1\n".utf8))
    }

    @Test func `a failure has its code, and too much output an end`() {
        for (command, words) in [("exit 3", "code 3"), ("kill -9 $$", "code 137"), ("yes", "more than")] {
            guard case .failure(let failure) = Self.run(command) else {
                Issue.record("\(command) succeeded")
                continue
            }
            #expect(failure.description.contains(words), "\(failure)")
        }
    }

    @Test func `after the timeout it and what it has started are gone`() throws {
        let start = Instant.now
        // The inner one would hold the pipe open for a minute.
        guard case .failure(.timeout) = Self.run("sleep 61.25 & sleep 61.25", within: .milliseconds(300)) else {
            Issue.record("it ended by itself")
            return
        }
        #expect(.now - start < .seconds(3))
        // A killed one's command line is empty.
        let left = Self.run("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c '[s]leep 61[.]25 '; true")
        #expect(try left.get() == Array("0\n".utf8))
    }

    @Test func `it is broken off when nobody waits for it any more`() throws {
        let bell = try Doorbell()
        let stopped = Flag()
        let start = Instant.now
        let stopper = Platform.Thread("stopper") {
            Machine.sleep(.milliseconds(200))
            stopped.value.store(true, ordering: .releasing)
            bell.ringAlways()
        }
        #expect(throws: ShellCommand.Failure.self) {
            try ShellCommand("sleep 60").output(within: .seconds(50), bell: bell) {
                stopped.value.load(ordering: .acquiring)
            }
        }
        stopper.join()
        #expect(.now - start < .seconds(3))
    }

    private final class Flag: Sendable { let value = Atomic<Bool>(false) }
}
