import Platform
import Testing

@Suite struct MachineTests {
    /// This test, Swift's library, the system's: many MiB of code have run by now.
    @Test func `code that is unmapped runs on, and only what runs on is resident`() {
        let before = Machine.figures().residentBytes
        Machine.unmapCode()
        #expect(Machine.figures().residentBytes < before - (4 << 20))
    }
}
