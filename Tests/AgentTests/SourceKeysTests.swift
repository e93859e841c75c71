import Agent
import Bytes
import Kinesis
import Logging
import Platform
import Seeded
import Testing

@Suite struct SourceKeysTests {
    @Test func `a file's records have its path as their key, those without placement none`() throws {
        let checkpoints = try Checkpoints(folder: try Scratch().path)
        let source = checkpoints.open(CheckpointsTests.entry(4))
        let path = Array("/var/log/\"ä\n4".utf8)
        #expect(SourceKeys(.source, checkpoints).key(of: source)?.partitionKey == path)
        #expect(SourceKeys(.spread, checkpoints).key(of: source) == nil)
        #expect(SourceKeys(.random, checkpoints).key(of: source) == nil)
        #expect(SourceKeys(.literal("k"), checkpoints).key(of: source)?.partitionKey == [107])
        #expect(SourceKeys(.host, checkpoints).key(of: source)?.partitionKey == Array(Machine.hostName.utf8))
        let long = checkpoints.open(
            .init(input: "a", path: String(repeating: "ü", count: 300), device: 1, inode: 1, position: 0)
        )
        #expect(SourceKeys(.source, checkpoints).key(of: long)?.partitionKey.count == 512)
    }
}
