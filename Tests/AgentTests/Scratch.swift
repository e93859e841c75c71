import Glibc
import Platform
import Seeded

/// A folder of a test's own, removed at its end.
final class Scratch: Sendable {
    let path: String
    init() throws { path = try Folder.createTemporary("penstock-test-") }
    deinit { Folder.removeTree(path) }

    subscript(name: String) -> String { path + "/" + name }

    /// Appends to a file, which it creates.
    func write(_ name: String, _ bytes: [UInt8]) throws {
        let file = try AppendedFile(self[name])
        guard file.append(bytes.span) else { throw SystemError(call: "write", path: name, code: errno) }
    }

    func write(_ name: String, _ text: String) throws { try write(name, Array(text.utf8)) }

    func link(_ name: String, to target: String) throws {
        guard unsafe symlink(target, self[name]) == 0 else {
            throw SystemError(call: "symlink", path: name, code: errno)
        }
    }

    func remove(_ name: String) { unsafe _ = unlink(self[name]) }

    func move(_ name: String, to other: String) throws { try Folder.move(self[name], to: self[other]) }

    func cut(_ name: String, to size: Int) { unsafe _ = truncate(self[name], size) }

    func mode(_ name: String, _ mode: UInt32) { unsafe _ = chmod(self[name], mode) }
}
