import Foundation
import Glibc
import Platform
import Seeded
import Testing

/// A folder of a test's own, removed at its end.
final class Scratch {
    let path: String
    init() throws { path = try Folder.createTemporary("penstock-test-") }
    deinit { Folder.removeTree(path) }

    func file(_ name: String, _ text: String = "") throws -> String {
        let file = try AppendedFile(path + "/" + name)
        let isWritten = file.append(Array(text.utf8).span)
        #expect(isWritten)
        return path + "/" + name
    }
}

@Suite struct FolderTests {
    @Test func `a file is replaced whole, and what a crash left beside it does not matter`() throws {
        let scratch = try Scratch()
        let path = scratch.path + "/state"
        try Folder.replace(path, with: Array("one".utf8))
        // As a crash between writing and renaming leaves it.
        _ = try scratch.file("state.new", "half of tw")
        #expect(try Folder.read(path) == Array("one".utf8))
        try Folder.replace(path, with: Array("two".utf8))
        #expect(try Folder.read(path) == Array("two".utf8))
        #expect(try Folder.entries(of: scratch.path).map(\.name) == ["state"])
    }

    @Test func `a file that cannot be replaced stays as it was`() throws {
        let scratch = try Scratch()
        let path = scratch.path + "/state"
        try Folder.replace(path, with: [1])
        // Root may write anywhere, but not open a folder for writing.
        try Folder.create(path + ".new")
        #expect(throws: SystemError.self) { try Folder.replace(path, with: [2]) }
        #expect(try Folder.read(path) == [1])
    }

    @Test func `reading has a limit and names what is wrong`() throws {
        let scratch = try Scratch()
        let path = try scratch.file("large", String(repeating: "x", count: 1000))
        #expect(throws: SystemError(call: "read", path: path, code: EFBIG)) { try Folder.read(path, limit: 999) }
        #expect(try Folder.read(path, limit: 1000).count == 1000)
        #expect(throws: SystemError(call: "open", path: path + "x", code: ENOENT)) { try Folder.read(path + "x") }
        #expect(try !Folder.read("/proc/self/stat").isEmpty)
    }

    @Test func `a lock is held by one, says by whom, and ends with its owner`() throws {
        let scratch = try Scratch()
        let path = scratch.path + "/lock"
        do {
            let lock = try LockFile(path)
            #expect(throws: LockFile.Fault.held(by: getpid())) { _ = try LockFile(path) }
            _ = consume lock
        }
        _ = try LockFile(path)
    }

    @Test func `a lock of another process is seen, and is free once that is killed`() throws {
        let scratch = try Scratch()
        let path = scratch.path + "/lock"
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        // An open file description lock, by number: F_OFD_SETLK is 37.
        let script = """
            import fcntl, os, struct, sys, time
            f = open(sys.argv[1], 'w+'); f.write(str(os.getpid())); f.flush()
            fcntl.fcntl(f, 37, struct.pack('hhqqi', 1, 0, 0, 0, 0)); print('held', flush=True); time.sleep(60)
            """
        process.arguments = ["python3", "-c", script, path]
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        defer { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }
        #expect(output.fileHandleForReading.availableData.starts(with: Data("held".utf8)))
        #expect(throws: LockFile.Fault.held(by: process.processIdentifier)) { _ = try LockFile(path) }
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
        _ = try LockFile(path)
    }

    @Test func `a watch tells of content, names, and folders that come again`() throws {
        let scratch = try Scratch()
        let folder = scratch.path + "/logs"
        try Folder.create(folder)
        var watch = try FolderWatch()
        try watch.add(folder)
        try watch.add(folder)
        #expect(watch.changes() == [])
        let file = try AppendedFile(folder + "/a")
        #expect(watch.changes() == [.name(path: folder + "/a")])
        let isWritten = file.append([1].span)
        #expect(isWritten)
        #expect(watch.changes() == [.content(path: folder + "/a")])
        try Folder.move(folder + "/a", to: folder + "/b")
        #expect(watch.changes() == [.name(path: folder + "/a"), .name(path: folder + "/b")])
        unsafe _ = unlink(folder + "/b")
        #expect(watch.changes() == [.name(path: folder + "/b")])
        try Folder.create(folder + "/d")
        #expect(watch.changes() == [.folder(path: folder + "/d")])
        Folder.removeTree(folder)
        // The kernel may tell of the end at once, later, or never.
        try Folder.create(folder)
        try watch.add(folder)
        _ = watch.changes()
        _ = try AppendedFile(folder + "/c")
        #expect(watch.changes() == [.name(path: folder + "/c")])
        #expect(throws: SystemError.self) { try watch.add(folder + "/none") }
    }

    @Test func `a folder is not watched any more when it is not kept, unless it is by another name`() throws {
        let scratch = try Scratch()
        for name in ["a", "b"] { try Folder.create(scratch.path + "/" + name) }
        unsafe #expect(symlink(scratch.path + "/a", scratch.path + "/link") == 0)
        var watch = try FolderWatch()
        for name in ["a", "b", "link"] { try watch.add(scratch.path + "/" + name) }
        watch.keep([scratch.path + "/link"])
        _ = try AppendedFile(scratch.path + "/a/x")
        _ = try AppendedFile(scratch.path + "/b/x")
        #expect(watch.changes() == [.name(path: scratch.path + "/link/x")])
        try watch.add(scratch.path + "/b")
        _ = try AppendedFile(scratch.path + "/b/y")
        #expect(watch.changes() == [.name(path: scratch.path + "/b/y")])
    }

    @Test func `a link's targets are followed one by one, to the last and no further than forty`() throws {
        let scratch = try Scratch()
        let file = scratch.path + "/file"
        _ = try AppendedFile(file)
        unsafe #expect(symlink("file", scratch.path + "/one") == 0)
        unsafe #expect(symlink(scratch.path + "/one", scratch.path + "/two") == 0)
        unsafe #expect(symlink("loop", scratch.path + "/loop") == 0)
        #expect(Folder.targets(of: scratch.path + "/two") == [scratch.path + "/one", file])
        #expect(Folder.targets(of: file) == [] && Folder.targets(of: scratch.path + "/none") == [])
        #expect(Folder.targets(of: scratch.path + "/loop").count == 40)
    }

    @Test func `a FIFO does not hold its opener`() throws {
        let scratch = try Scratch()
        let path = scratch.path + "/fifo"
        unsafe #expect(mkfifo(path, 0o600) == 0)
        #expect(try ReadableFile(path).status().kind == .other)
    }
}
