import Glibc

/// A failed system call: which one, on what, and the kernel's reason.
public struct SystemError: Error, Equatable, CustomStringConvertible {
    public let call: String
    public let path: String?
    public let code: Int32

    public init(call: String, path: String? = nil, code: Int32) {
        (self.call, self.path, self.code) = (call, path, code)
    }

    /// The kernel's words: `No such file or directory`.
    public var reason: String { unsafe String(cString: strerror(code)) }

    /// No such file or folder.
    public var isNotFound: Bool { code == ENOENT }

    public var description: String { path.map { "\($0): \(reason) (\(call))" } ?? "\(call): \(reason)" }
}

/// Turns a C shim's `-errno` into a thrown error.
func check(_ call: String, _ path: String? = nil, _ result: Int32) throws(SystemError) -> Int32 {
    guard result >= 0 else { throw SystemError(call: call, path: path, code: -result) }
    return result
}
