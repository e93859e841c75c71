internal import CTLS
internal import NIOCore
internal import Platform

// TLS by the OpenSSL that is there for signatures anyway, between memory and memory: sockets stay with NIO. A library of
// TLS that is linked in would be another one to keep patched.

/// Says to a connection that ends that its other end shall see a reset, not a farewell.
struct ConnectionReset: Sendable {}

// Concurrency: belongs to its connection's event loop.

/// One connection's TLS: what comes is decrypted, what goes is encrypted.
@safe final class TLSConnection: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = IOData
    typealias OutboundOut = IOData

    private let session: OpaquePointer
    /// Owned by the session: bytes from the network, and for it.
    private let arriving, leaving: OpaquePointer
    private var isReset = false

    /// Bytes of one TLS record at most.
    private static let recordSize = 16 << 10

    struct OutOfMemory: Error {}

    init(_ identity: TLSIdentity) throws(OutOfMemory) {
        guard let session = unsafe SSL_new(identity.context) else { throw OutOfMemory() }
        guard let arriving = unsafe BIO_new(BIO_s_mem()) else {
            unsafe SSL_free(session)
            throw OutOfMemory()
        }
        guard let leaving = unsafe BIO_new(BIO_s_mem()) else {
            _ = unsafe BIO_free(arriving)
            unsafe SSL_free(session)
            throw OutOfMemory()
        }
        unsafe (self.session, self.arriving, self.leaving) = unsafe (session, arriving, leaving)
        unsafe SSL_set_bio(session, arriving, leaving)
        unsafe SSL_set_accept_state(session)
    }

    deinit { unsafe SSL_free(session) }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let came = unwrapInboundIn(data)
        unsafe came.withUnsafeReadableBytes { bytes in
            // Memory takes all there is; a read has far less than Int32 counts.
            _ = unsafe BIO_write(arriving, bytes.baseAddress, Int32(bytes.count))
        }
        var plain = context.channel.allocator.buffer(capacity: came.readableBytes)
        var count: Int32 = 1
        while count > 0 {
            // It shakes hands first.
            _ = unsafe plain.writeWithUnsafeMutableBytes(minimumWritableBytes: Self.recordSize) { room in
                count = unsafe SSL_read(session, room.baseAddress, Int32(room.count))
                return Int(max(0, count))
            }
        }
        let error = unsafe SSL_get_error(session, count)
        ERR_clear_error()
        if let bytes = takeLeaving(context) { context.writeAndFlush(wrapOutboundOut(.byteBuffer(bytes)), promise: nil) }
        if plain.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(plain)) }
        // Another error than that there is no more: the end, or what is no TLS.
        if error != SSL_ERROR_WANT_READ { context.close(promise: nil) }
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard case .byteBuffer(let plain) = unwrapOutboundIn(data), plain.readableBytes > 0 else {
            promise?.succeed()
            return
        }
        let written = unsafe plain.withUnsafeReadableBytes { bytes in
            unsafe SSL_write(session, bytes.baseAddress, Int32(bytes.count))
        }
        ERR_clear_error()
        guard written == plain.readableBytes, let bytes = takeLeaving(context) else {
            // Nothing is written before a request has come, but the connection can be over.
            promise?.fail(ChannelError.ioOnClosedChannel)
            return
        }
        context.write(wrapOutboundOut(.byteBuffer(bytes)), promise: promise)
    }

    func triggerUserOutboundEvent(context: ChannelHandlerContext, event: Any, promise: EventLoopPromise<Void>?) {
        if event is ConnectionReset { isReset = true }
        promise?.succeed()
    }

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        if !isReset {
            _ = unsafe SSL_shutdown(session)
            ERR_clear_error()
            if let bytes = takeLeaving(context) {
                context.writeAndFlush(wrapOutboundOut(.byteBuffer(bytes)), promise: nil)
            }
        }
        context.close(mode: mode, promise: promise)
    }

    /// What is encrypted and has not been sent; nil when there is nothing.
    private func takeLeaving(_ context: ChannelHandlerContext) -> ByteBuffer? {
        let count = unsafe ctls_pending(leaving)
        guard count > 0 else { return nil }
        var bytes = context.channel.allocator.buffer(capacity: count)
        _ = unsafe bytes.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { room in
            Int(unsafe BIO_read(leaving, room.baseAddress, Int32(count)))
        }
        return bytes
    }
}
