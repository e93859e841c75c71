package import Platform
import Synchronization

/// What an input of streams listens on, and with which certificate.
package struct StreamSockets: Sendable {
    package typealias Address = (listen: Configuration.Listen, socket: ListeningSocket)

    package var listening: [Address]
    /// Nil where nothing is encrypted.
    package var certificates: Certificates?

    package init(_ listening: [Address], _ certificates: Certificates? = nil) {
        (self.listening, self.certificates) = (listening, certificates)
    }

    /// A certificate that may be renewed while connections are open: those that come later use the new one.
    package final class Certificates: Sendable {
        private let settings: Configuration.SocketSettings
        private let current: Mutex<TLSIdentity>

        package init(_ settings: Configuration.SocketSettings) throws(TLSIdentity.Fault) {
            self.settings = settings
            current = Mutex(try Self.load(settings))
        }

        package var identity: TLSIdentity { current.withLock { $0 } }

        /// Reads the files again; if they cannot be used the old certificate stays.
        package func reload() throws(TLSIdentity.Fault) {
            let next = try Self.load(settings)
            current.withLock { $0 = next }
        }

        private static func load(_ settings: Configuration.SocketSettings) throws(TLSIdentity.Fault) -> TLSIdentity {
            try TLSIdentity(
                chain: settings.tlsCertificate,
                key: settings.tlsKey,
                clientCA: settings.tlsClientCA.isEmpty ? nil : settings.tlsClientCA
            )
        }
    }
}
