internal import CTLS

/// A server's certificate and key, and whose clients it takes: for any number of connections on any thread.
///
/// TLS 1.2 or newer.
@safe public final class TLSIdentity: Sendable {
    /// Counts its references by itself, with atomics.
    package nonisolated(unsafe) let context: OpaquePointer

    /// A file that cannot be used, and why.
    public struct Fault: Error, Equatable, CustomStringConvertible {
        public var path: String
        public var reason: String
        public var use: Use

        public enum Use: Sendable { case certificate, key, clientCA }

        public var description: String { "\(path): \(reason)" }
    }

    /// Reads PEM files: the certificate with those that lead to its authority behind it, its key, and the authorities whose
    /// certificates clients must show; without the last, clients need none.
    public init(chain: String, key: String, clientCA: String? = nil) throws(Fault) {
        for (path, use) in [(chain, Fault.Use.certificate), (key, .key)] + (clientCA.map { [($0, .clientCA)] } ?? []) {
            // OpenSSL says no more than "system lib".
            do { _ = try Folder.read(path, limit: 16 << 20) } catch {
                throw Fault(path: path, reason: error.reason, use: use)
            }
        }
        ERR_clear_error()
        guard let context = unsafe SSL_CTX_new(TLS_server_method()) else {
            throw Fault(path: chain, reason: Self.reason(), use: .certificate)
        }
        unsafe self.context = unsafe context
        unsafe ctls_set_lean(context)
        unsafe ctls_ask_nobody(context)
        guard unsafe ctls_set_minimum(context, ctls_tls12()) == 1,
            unsafe SSL_CTX_use_certificate_chain_file(context, chain) == 1
        else { throw Fault(path: chain, reason: Self.reason(), use: .certificate) }
        guard unsafe SSL_CTX_use_PrivateKey_file(context, key, ctls_pem()) == 1,
            unsafe SSL_CTX_check_private_key(context) == 1
        else { throw Fault(path: key, reason: Self.reason(), use: .key) }
        if let clientCA, unsafe ctls_require_clients(context, clientCA) != 1 {
            throw Fault(path: clientCA, reason: Self.reason(), use: .clientCA)
        }
    }

    deinit { unsafe SSL_CTX_free(context) }

    /// What OpenSSL complains about.
    private static func reason() -> String {
        let code = ERR_get_error()
        ERR_clear_error()
        let text = unsafe ERR_reason_error_string(code).map { unsafe String(cString: $0) }
        return switch text {
        case "no start line", "no certificate or crl found": "there is nothing in it in PEM (-----BEGIN …)"
        case "key values mismatch": "it is not the certificate's key"
        case "bad password read", "problems getting password", "empty password":
            "the key is encrypted: decrypt it (openssl pkey), and guard the file"
        case let text?: text
        case nil: "unusable"
        }
    }
}

// Concurrency: belongs to its connection's thread.

/// The server's end of TLS on one connection that does not block.
@safe public final class TLSSession {
    private let session: OpaquePointer

    public init?(_ identity: TLSIdentity, on socket: borrowing StreamSocket) {
        guard let session = unsafe SSL_new(identity.context) else { return nil }
        unsafe self.session = unsafe session
        // The socket stays with its owner.
        guard unsafe SSL_set_fd(session, socket.number) == 1 else { return nil }
        unsafe SSL_set_accept_state(session)
    }

    deinit { unsafe SSL_free(session) }

    public enum Step: Equatable, Sendable {
        case bytes(Int)
        /// The handshake is through.
        case ready
        case waitsForInput, waitsForRoom
        /// The peer has said its farewell, or the connection is over.
        case end(reason: String?)
    }

    /// Goes on with the handshake.
    public func shakeHands() -> Step {
        let result = unsafe SSL_do_handshake(session)
        return result == 1 ? .ready : step(result)
    }

    public func read(into room: UnsafeMutableRawBufferPointer) -> Step {
        let count = unsafe SSL_read(session, room.baseAddress, Int32(clamping: room.count))
        return count > 0 ? .bytes(Int(count)) : step(count)
    }

    /// Whether there is more than the socket tells of.
    public var hasMore: Bool { unsafe SSL_has_pending(session) == 1 }

    /// Says farewell, as far as the socket takes it now.
    public func sayFarewell() {
        _ = unsafe SSL_shutdown(session)
        ERR_clear_error()
    }

    private func step(_ result: Int32) -> Step {
        defer { ERR_clear_error() }
        switch unsafe SSL_get_error(session, result) {
        case SSL_ERROR_WANT_READ: return .waitsForInput
        case SSL_ERROR_WANT_WRITE: return .waitsForRoom
        case SSL_ERROR_ZERO_RETURN: return .end(reason: nil)
        case SSL_ERROR_SSL:
            let refusal = unsafe String(cString: ctls_verify_reason(session))
            if !refusal.isEmpty { return .end(reason: "the client's certificate: \(refusal)") }
            let text = unsafe ERR_reason_error_string(ERR_get_error()).map { unsafe String(cString: $0) }
            return .end(reason: text ?? "what comes is no TLS")
        default: return .end(reason: "the connection broke")
        }
    }
}
