import CPCRE2

/// A regular expression of PCRE2, compiled to machine code where the processor allows.
///
/// Bytes that are not UTF-8 match nothing, and are no fault. Belongs to one thread.
@safe
public final class Expression {
    private let code: OpaquePointer
    private let match: OpaquePointer
    private let context: OpaquePointer

    /// Why a text is no expression, and where in it.
    public struct Fault: Error, Equatable {
        public var message: String
        /// Bytes of the text before the fault.
        public var offset: Int
    }

    /// Attempts at one text, and KiB of memory for them, before it gives up: a line takes some microseconds, this much
    /// some milliseconds.
    private static let mostAttempts: UInt32 = 100_000
    private static let mostMemory: UInt32 = 1024

    public convenience init(_ text: String) throws(Fault) {
        try self.init(text, isCompiled: !Self.hasNegatedEscape(text) || Self.isCompilerSound)
    }

    /// `\S`, `\W` or `\D`.
    private static func hasNegatedEscape(_ text: String) -> Bool {
        zip(text.utf8, text.utf8.dropFirst()).contains { $0 == UInt8(ascii: "\\") && "SWD".utf8.contains($1) }
    }

    /// Whether machine code finds what the interpreter finds: that of PCRE2 10.42, which is Debian 12's, never finds a `\S`
    /// in a letter beyond ASCII where bytes need not be UTF-8.
    private static let isCompilerSound: Bool = {
        let letter: [UInt8] = [0xc3, 0x89]
        return (try? Expression("^\\S", isCompiled: true))?.find(in: letter.span) == .matches
    }()

    private init(_ text: String, isCompiled: Bool) throws(Fault) {
        var (error, offset): (Int32, Int) = (0, 0)
        let bytes = Array(text.utf8)
        let options = UInt32(PCRE2_UTF) | UInt32(PCRE2_MATCH_INVALID_UTF) | UInt32(PCRE2_NEVER_BACKSLASH_C)
        guard let code = unsafe pcre2_compile_8(bytes, bytes.count, options, &error, &offset, nil) else {
            var room = [UInt8](repeating: 0, count: 256)
            let count = unsafe pcre2_get_error_message_8(error, &room, room.count)
            throw Fault(message: String(decoding: room.prefix(Int(max(0, count))), as: UTF8.self), offset: offset)
        }
        unsafe self.code = code
        // Without it the interpreter matches.
        if isCompiled { unsafe _ = pcre2_jit_compile_8(code, UInt32(PCRE2_JIT_COMPLETE)) }
        unsafe match = pcre2_match_data_create_8(1, nil)
        unsafe context = pcre2_match_context_create_8(nil)
        unsafe _ = pcre2_set_match_limit_8(context, Self.mostAttempts)
        unsafe _ = pcre2_set_heap_limit_8(context, Self.mostMemory)
    }

    deinit {
        unsafe pcre2_match_context_free_8(context)
        unsafe pcre2_match_data_free_8(match)
        unsafe pcre2_code_free_8(code)
    }

    public enum Verdict: Sendable {
        case matches, differs
        /// It would have taken too long to say.
        case gaveUp
    }

    /// Whether the expression is found in `bytes`.
    public func find(in bytes: Span<UInt8>) -> Verdict {
        let result = unsafe bytes.withUnsafeBytes { bytes in
            // An empty span may have no address.
            let start = unsafe bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
            var nothing: UInt8 = 0
            return unsafe withUnsafePointer(to: &nothing) {
                unsafe pcre2_match_8(code, start ?? $0, bytes.count, 0, 0, match, context)
            }
        }
        // 0: it matches, and there was no room for its groups.
        return result >= 0 ? .matches : result == PCRE2_ERROR_NOMATCH ? .differs : .gaveUp
    }
}
