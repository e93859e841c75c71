internal import Glibc
internal import Kinesis
internal import NIOCore
internal import NIOHTTP1
internal import Synchronization

// Concurrency: a connection belongs to its event loop. It shares the service, which locks by itself.

/// One client's connection: collects a request's body, has it answered, and writes the answer.
final class Connection: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let service: Service
    private let requestIDs: RequestIDs
    private let md5 = MD5()
    private var head: HTTPRequestHead?
    private var body: [UInt8] = []
    private var isTooLarge = false
    /// What shall happen to the call that comes.
    private var disturbance: Disturbance?
    /// What a disturbed call waits for: to be carried out, to be answered, or to end without an answer.
    private var waiting: Scheduled<Void>?
    /// The answer that waits, of which the caller does not know.
    private var reply: Service.Reply?
    /// The next read of a request that is read slowly, and the bytes that the last one has brought.
    private var reading: Scheduled<Void>?
    private var justRead = 0
    /// The Date header, which changes once a second.
    private var date: (seconds: Int64, text: String) = (-1, "")

    init(_ service: Service, _ requestIDs: RequestIDs) { (self.service, self.requestIDs) = (service, requestIDs) }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): begin(head, context)
        case .body(let part): collect(part)
        case .end: end(context)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        context.fireChannelReadComplete()
        guard let speed = disturbance?.readSpeed else { return }
        reading = context.eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(takePause(at: speed))) {
            context.read()
        }
    }

    /// How long what was just read takes at so many bytes a second.
    private func takePause(at speed: Int) -> Duration {
        defer { justRead = 0 }
        return .seconds(Double(justRead) / Double(speed))
    }

    func channelInactive(context: ChannelHandlerContext) {
        waiting?.cancel()
        reading?.cancel()
        if let reply { service.noteUntold(reply) }
        reply = nil
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func begin(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        // Nobody sends a second call before the first is answered; who does so to one that waits is not served.
        guard waiting == nil else { return context.close(promise: nil) }
        (self.head, justRead) = (head, 0)
        disturbance = service.disturbance { head.headers.first(name: $0) }
        if disturbance?.readSpeed != nil { read(automatically: false, context) }
        let announced = head.headers.first(name: "content-length").flatMap { Int($0) } ?? 0
        isTooLarge = announced > Service.largestBody
        body = isTooLarge ? [] : service.memory(for: announced)
        if !isTooLarge, head.headers.first(name: "expect")?.lowercased() == "100-continue" {
            let answer = HTTPResponseHead(version: .http1_1, status: .continue)
            context.writeAndFlush(wrapOutboundOut(.head(answer)), promise: nil)
        }
    }

    private func collect(_ part: ByteBuffer) {
        // What no call can be is read to its end without keeping it, so that the client gets to see the answer.
        isTooLarge = isTooLarge || body.count + part.readableBytes > Service.largestBody
        if isTooLarge {
            body = []
        } else {
            unsafe part.withUnsafeReadableBytes { unsafe body.append(contentsOf: $0) }
        }
        justRead += part.readableBytes
    }

    private func read(automatically: Bool, _ context: ChannelHandlerContext) {
        // Fails only when the channel is closed, where it does not matter.
        _ = context.channel.setOption(.autoRead, value: automatically)
    }

    private func end(_ context: ChannelHandlerContext) {
        guard let head = head.take() else { return }
        let now = Moment.now()
        var disturbance = disturbance.take()
        if let speed = disturbance?.readSpeed {
            disturbance?.pauseBefore += takePause(at: speed)
            read(automatically: true, context)
        }
        var taken: [UInt8] = []
        swap(&taken, &body)
        let answer: Service.Answer
        if isTooLarge {
            let type = head.headers.first(name: "content-type") ?? ""
            answer = service.answerTooLarge(WireFormat(contentType: type) ?? .json)
        } else {
            let request = Service.Request(
                method: head.method.rawValue,
                uri: head.uri,
                headers: head.headers.map { ($0.name, $0.value) },
                body: taken
            )
            taken = []
            if let disturbance { return end(request, under: disturbance, keepAlive: head.isKeepAlive, context) }
            answer = service.answer(request, at: now, md5)
        }
        write(answer, keepAlive: head.isKeepAlive, at: now, context)
    }

    /// Ends a call that something happens to.
    private func end(
        _ request: Service.Request,
        under disturbance: Disturbance,
        keepAlive: Bool,
        _ context: ChannelHandlerContext
    ) {
        wait(for: disturbance.pauseBefore, context) { [self] in
            let reply = service.reply(request, at: .now(), md5, under: disturbance)
            self.reply = reply
            wait(for: reply.pause, context) { [self] in
                self.reply = nil
                send(reply.form, keepAlive: keepAlive, context)
            }
        }
    }

    private func send(_ form: Service.Reply.Form, keepAlive: Bool, _ context: ChannelHandlerContext) {
        switch form {
        case .whole(let answer): write(answer, keepAlive: keepAlive, at: .now(), context)
        case .cut(let answer): write(answer, count: answer.body.count / 2, keepAlive: false, at: .now(), context)
        case .reset:
            // Closed with nothing to linger for, a connection is reset.
            let nothing = linger(l_onoff: 1, l_linger: 0)
            context.triggerUserOutboundEvent(ConnectionReset(), promise: nil)
            _ = (context.channel as? any SocketOptionProvider)?.setSoLinger(nothing)
            context.close(promise: nil)
        case .silence(let time): wait(for: time, context) { context.close(promise: nil) }
        }
    }

    private func wait(for time: Duration, _ context: ChannelHandlerContext, _ then: @escaping () -> Void) {
        guard time > .zero else { return then() }
        waiting = context.eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(time)) { [self] in
            waiting = nil
            then()
        }
    }

    /// - Parameter count: bytes of the body that are sent of all that are announced.
    private func write(
        _ answer: Service.Answer,
        count: Int? = nil,
        keepAlive: Bool,
        at now: Moment,
        _ context: ChannelHandlerContext
    ) {
        let now = now + service.skew
        if date.seconds != now.seconds {
            date = (now.seconds, CivilTime(unixSeconds: now.seconds).httpDate)
        }
        let (requestID, secondID) = requestIDs.next()
        var headers: HTTPHeaders = [
            "x-amzn-RequestId": requestID,
            "x-amz-id-2": secondID,
            "Date": date.text,
            "Content-Type": answer.contentType,
            "Content-Length": "\(answer.body.count)",
        ]
        if let type = answer.errorType { headers.add(name: "x-amzn-ErrorType", value: type) }
        if !keepAlive { headers.add(name: "Connection", value: "close") }
        let head = HTTPResponseHead(version: .http1_1, status: .init(statusCode: answer.status), headers: headers)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if !answer.body.isEmpty {
            let body = context.channel.allocator.buffer(bytes: answer.body.prefix(count ?? answer.body.count))
            context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil)
        }
        if keepAlive {
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        } else {
            let written = context.eventLoop.makePromise(of: Void.self)
            let channel = context.channel
            written.futureResult.whenComplete { _ in channel.close(promise: nil) }
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: written)
        }
    }
}
