import Platform
import Testing

@Suite struct MachineTests {
    /// This test, Swift's library, the system's: many MiB of code have run by now.
    @Test func `code that is unmapped runs on, and only what runs on is resident`() {
        // Other tests take and free memory meanwhile.
        var freed = 0
        for _ in 0..<20 where freed < 4 << 20 {
            let before = Machine.figures().residentBytes
            Machine.unmapCode()
            freed = max(freed, before - Machine.figures().residentBytes)
        }
        #expect(freed >= 4 << 20)
    }
}
