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

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func begin(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        self.head = head
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
    }

    private func end(_ context: ChannelHandlerContext) {
        guard let head = head.take() else { return }
        let now = Moment.now()
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
            answer = service.answer(request, at: now, md5)
        }
        write(answer, keepAlive: head.isKeepAlive, at: now, context)
    }

    private func write(_ answer: Service.Answer, keepAlive: Bool, at now: Moment, _ context: ChannelHandlerContext) {
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
        if !keepAlive { headers.add(name: "Connection", value: "close") }
        let head = HTTPResponseHead(version: .http1_1, status: .init(statusCode: answer.status), headers: headers)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if !answer.body.isEmpty {
            let body = context.channel.allocator.buffer(bytes: answer.body)
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
