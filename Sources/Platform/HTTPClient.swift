public import Bytes
internal import CCurl
import Glibc

// Concurrency: a client, its transfers and everything in them belong to one thread.

/// HTTP calls to one endpoint, many at a time, by libcurl's multi interface: connections are kept, nothing blocks.
///
/// Certificates are always verified, TLS is 1.2 or newer, `Expect: 100-continue` is never sent (it would cost a round trip
/// a call), and a request's body is read from where it lies.
@safe
public final class HTTPClient {
    /// What is the same for all calls.
    public struct Options: Sendable {
        /// `https://host[:port]/path`.
        public var url: String
        public var connectTimeout: Duration = .seconds(5)
        /// From the start of a call to the end of its answer.
        public var timeout: Duration = .seconds(10)
        /// Bytes of a request that `timeout` is for: one of many times as many has many times as long.
        public var timeoutBytes = Int.max
        /// Connections kept open.
        public var maxConnections = 24
        /// A file of certificates to trust in place of the system's.
        public var caFile: String?
        public var proxy = Proxy.environment
        /// Bytes of an answer above which the call fails.
        public var largestAnswer = 32 << 20
        public var userAgent = "penstock"

        public init(url: String) { self.url = url }
    }

    /// Through what calls go.
    public enum Proxy: Equatable, Sendable {
        /// As HTTPS_PROXY, NO_PROXY and their kin in the environment say, read as curl reads them.
        case environment
        /// `http://[user:password@]host:port`; the environment's NO_PROXY is heeded.
        case url(String)
        case none
    }

    public enum Method: Sendable { case get, post, put }

    private let options: Options
    private let multi: UnsafeMutableRawPointer
    private var idle: [Transfer] = []
    private var running: [Transfer] = []
    /// Calls under way that send large pieces.
    package private(set) var largeSenders = 0
    /// As many may, so that their buffers take 4.4 MiB at most; the others have 128 KiB each.
    ///
    /// Whoever answers late, and so has many calls under way, gets them no faster than the network takes them.
    package static let mostLargeSenders = 8

    public init(_ options: Options) {
        self.options = options
        curl_global_init(Int(CURL_GLOBAL_DEFAULT))
        unsafe multi = curl_multi_init()
        unsafe ccurl_multi_set_long(multi, CURLMOPT_MAXCONNECTS, options.maxConnections)
    }

    deinit {
        for transfer in running { unsafe curl_multi_remove_handle(multi, transfer.easy) }
        running.removeAll()
        idle.removeAll()
        unsafe curl_multi_cleanup(multi)
    }

    /// Forgets what is kept for calls to come, but for the connections: libcurl's buffers for each.
    public func forgetIdle() { idle.removeAll() }

    /// Calls that have been started and not yet finished.
    public var inFlight: Int { running.count }

    /// An unused transfer to fill and start.
    ///
    /// - Parameter url: another than that of the options.
    public func transfer(_ method: Method = .post, to url: String? = nil) -> Transfer {
        let transfer = idle.popLast() ?? Transfer(options)
        transfer.aim(method, at: url ?? options.url)
        return transfer
    }

    /// Starts a call; its answer comes out of `finished`.
    ///
    /// - Parameter token: comes back with the answer.
    public func start(_ transfer: Transfer, token: Int) {
        transfer.token = token
        transfer.prepare(maySendLarge: largeSenders < Self.mostLargeSenders)
        if transfer.sendsLarge { largeSenders += 1 }
        unsafe curl_multi_add_handle(multi, transfer.easy)
        running.append(transfer)
        perform()
    }

    /// Moves bytes without waiting.
    public func perform() {
        var active: Int32 = 0
        unsafe curl_multi_perform(multi, &active)
    }

    /// Waits until a connection or the bell has something, or `most` has passed; then moves bytes.
    public func wait(for bell: Doorbell, atMost most: Duration) {
        var extra = curl_waitfd(fd: bell.number, events: Int16(CURL_WAIT_POLLIN), revents: 0)
        unsafe curl_multi_poll(multi, &extra, 1, most.milliseconds, nil)
        perform()
    }

    /// Hands each finished call to `body`.
    ///
    /// The transfer is used again afterwards: take out of it what is needed.
    public func finished(_ body: (Transfer, Outcome) -> Void) {
        var left: Int32 = 0
        while let message = unsafe curl_multi_info_read(multi, &left) {
            guard unsafe message.pointee.msg == CURLMSG_DONE else { continue }
            let code = unsafe ccurl_result(message)
            let easy = unsafe message.pointee.easy_handle
            guard let index = running.firstIndex(where: { unsafe $0.easy == easy }) else { continue }
            let transfer = running.remove(at: index)
            if transfer.sendsLarge { largeSenders -= 1 }
            unsafe curl_multi_remove_handle(multi, transfer.easy)
            body(transfer, transfer.outcome(code))
            transfer.recycle()
            idle.append(transfer)
        }
    }

    /// Breaks off every call: none of them will finish.
    public func cancelAll() {
        for transfer in running {
            unsafe curl_multi_remove_handle(multi, transfer.easy)
            transfer.recycle()
            idle.append(transfer)
        }
        running.removeAll()
        largeSenders = 0
    }

    /// How a call ended.
    public enum Outcome {
        /// With an answer, of any status; its body lies in the transfer.
        case answered(status: Int)
        case failed(TransportError)
    }
}

/// A call that ended without an answer.
public struct TransportError: Error, Equatable, CustomStringConvertible, Sendable {
    /// libcurl's words.
    public var message: String
    /// Whether bytes of the request had left: the service may have done it.
    public var mayHaveArrived: Bool
    /// A certificate that did not verify, or a URL that cannot be: trying again will not help.
    public var isPermanent: Bool
    /// Nothing came in time.
    public var isTimeout = false
    /// Why the server's certificate is not taken; nil where that is not what failed.
    public var certificate: CertificateFault?

    public enum CertificateFault: Sendable {
        /// Not valid yet, or not any more: its dates, or this machine's clock.
        case time
        /// It names another host.
        case name
        /// Nobody who is trusted has signed it.
        case trust
        /// The file of certificates to trust cannot be read.
        case file
    }

    public var description: String { message }
}

/// One call: its request while it is sent, its answer when that has come.
@safe
public final class Transfer {
    fileprivate let easy: UnsafeMutableRawPointer
    fileprivate var token = 0
    private let errorText: UnsafeMutablePointer<CChar>
    private var headers: UnsafeMutablePointer<curl_slist>?
    private var url: String?
    private var method = HTTPClient.Method.post
    private let largestAnswer: Int
    private let timeout: (usual: Int, bytes: Int)
    private var currentTimeout: Int

    private var pieces: [BodyPiece] = []
    private var bodySize = 0
    private var piece = 0
    private var offset = 0

    /// Bytes of the body that libcurl takes, and sends, at once; its default is 64 KiB.
    private static let usualPiece = 128 << 10
    /// Half a call of 1 MiB, and a little.
    ///
    /// A receiver on the same machine, as a proxy is, sleeps when it has a piece and is woken by the next: sent in halves, a
    /// file takes 0.82 to 0.9 of the CPU that it takes in eighths.
    private static let largePiece = 560 << 10
    /// Whether this call sends such pieces.
    fileprivate private(set) var sendsLarge = false

    /// Whether libcurl has sent the request a second time, on another connection, after some of it had left.
    public private(set) var wasRepeated = false

    /// The answer's body.
    public private(set) var answer = ByteWriter(capacity: 4096)
    private var answerHeaders: [(name: String, value: String)] = []

    /// Written by the owner for the body's pieces that it does not keep elsewhere.
    public var heads = ByteWriter(capacity: 4096)

    fileprivate init(_ options: HTTPClient.Options) {
        unsafe easy = curl_easy_init()
        unsafe errorText = .allocate(capacity: Int(CURL_ERROR_SIZE))
        unsafe errorText.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
        largestAnswer = options.largestAnswer
        timeout = (Int(options.timeout.milliseconds), options.timeoutBytes)
        currentTimeout = timeout.usual
        unsafe ccurl_set_pointer(easy, CURLOPT_ERRORBUFFER, errorText)
        unsafe ccurl_set_text(easy, CURLOPT_PROTOCOLS_STR, "http,https")
        unsafe ccurl_set_text(easy, CURLOPT_USERAGENT, options.userAgent)
        unsafe ccurl_set_long(easy, CURLOPT_POST, 1)
        unsafe ccurl_set_long(easy, CURLOPT_NOSIGNAL, 1)
        unsafe ccurl_set_long(easy, CURLOPT_HTTP_VERSION, Int(CURL_HTTP_VERSION_1_1))
        unsafe ccurl_set_long(easy, CURLOPT_CONNECTTIMEOUT_MS, Int(options.connectTimeout.milliseconds))
        unsafe ccurl_set_long(easy, CURLOPT_TIMEOUT_MS, currentTimeout)
        unsafe ccurl_set_long(easy, CURLOPT_TCP_KEEPALIVE, 1)
        unsafe ccurl_set_long(easy, CURLOPT_SSL_VERIFYPEER, 1)
        unsafe ccurl_set_long(easy, CURLOPT_SSL_VERIFYHOST, 2)
        unsafe ccurl_set_long(easy, CURLOPT_SSLVERSION, Int(CURL_SSLVERSION_TLSv1_2))
        // Else breaking off a call waits until a name server has answered or has not.
        unsafe ccurl_set_long(easy, CURLOPT_QUICK_EXIT, 1)
        unsafe ccurl_set_long(easy, CURLOPT_UPLOAD_BUFFERSIZE, Self.usualPiece)
        switch options.proxy {
        case .environment: break
        case .url(let url): unsafe ccurl_set_text(easy, CURLOPT_PROXY, url)
        case .none: unsafe ccurl_set_text(easy, CURLOPT_PROXY, "")
        }
        if let caFile = options.caFile { unsafe ccurl_set_text(easy, CURLOPT_CAINFO, caFile) }

        // The callbacks run inside `perform` on the owner's thread, while it holds no other view of this object.
        let context = unsafe Unmanaged.passUnretained(self).toOpaque()
        unsafe ccurl_set_pointer(easy, CURLOPT_READDATA, context)
        unsafe ccurl_set_pointer(easy, CURLOPT_SEEKDATA, context)
        unsafe ccurl_set_pointer(easy, CURLOPT_WRITEDATA, context)
        unsafe ccurl_set_pointer(easy, CURLOPT_HEADERDATA, context)
        unsafe ccurl_set_move(easy, CURLOPT_READFUNCTION) { bytes, size, count, context in
            unsafe Transfer.at(context).supply(.init(start: bytes, count: size * count))
        }
        unsafe ccurl_set_seek(easy) { context, offset, origin in
            unsafe Transfer.at(context).seek(to: Int(offset), origin)
        }
        unsafe ccurl_set_move(easy, CURLOPT_WRITEFUNCTION) { bytes, size, count, context in
            unsafe Transfer.at(context).take(.init(start: bytes, count: size * count))
        }
        unsafe ccurl_set_move(easy, CURLOPT_HEADERFUNCTION) { bytes, size, count, context in
            unsafe Transfer.at(context).takeHeader(.init(start: bytes, count: size * count))
        }
    }

    deinit {
        unsafe curl_easy_cleanup(easy)
        unsafe curl_slist_free_all(headers)
        unsafe errorText.deallocate()
    }

    /// The number the transfer was started with.
    public var number: Int { token }

    /// Adds a header; one with an empty value is left out that libcurl would add itself.
    public func addHeader(_ name: String, _ value: String) {
        let line = value.isEmpty ? "\(name):" : "\(name): \(value)"
        unsafe headers = curl_slist_append(headers, line)
    }

    /// Adds a piece of the body.
    ///
    /// Its memory must stay until the transfer is finished.
    public func addBody(_ piece: BodyPiece) {
        guard piece.count > 0 else { return }
        pieces.append(piece)
        bodySize += piece.count
    }

    /// The body as it was added, piece by piece.
    public var body: [BodyPiece] { pieces }

    /// The value of the answer's header `name`, whatever its case.
    public func header(_ name: String) -> String? {
        answerHeaders.first { $0.name == name.lowercased() }?.value
    }

    fileprivate func aim(_ method: HTTPClient.Method, at url: String) {
        if url != self.url { unsafe ccurl_set_text(easy, CURLOPT_URL, url) }
        self.url = url
        guard method != self.method else { return }
        self.method = method
        unsafe ccurl_set_pointer(easy, CURLOPT_CUSTOMREQUEST, nil)
        switch method {
        case .get: unsafe ccurl_set_long(easy, CURLOPT_HTTPGET, 1)
        case .post: unsafe ccurl_set_long(easy, CURLOPT_POST, 1)
        case .put:
            unsafe ccurl_set_long(easy, CURLOPT_POST, 1)
            unsafe ccurl_set_text(easy, CURLOPT_CUSTOMREQUEST, "PUT")
        }
    }

    fileprivate func prepare(maySendLarge: Bool) {
        let isLarge = maySendLarge && bodySize > 2 * Self.usualPiece
        if isLarge != sendsLarge {
            sendsLarge = isLarge
            unsafe ccurl_set_long(easy, CURLOPT_UPLOAD_BUFFERSIZE, isLarge ? Self.largePiece : Self.usualPiece)
        }
        addHeader("Expect", "")
        unsafe ccurl_set_pointer(easy, CURLOPT_HTTPHEADER, headers)
        unsafe ccurl_set_size(easy, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(bodySize))
        let needed = timeout.usual * max(1, bodySize / timeout.bytes)
        if needed != currentTimeout {
            currentTimeout = needed
            unsafe ccurl_set_long(easy, CURLOPT_TIMEOUT_MS, needed)
        }
        (piece, offset, wasRepeated) = (0, 0, false)
        unsafe errorText[0] = 0
    }

    fileprivate func recycle() {
        unsafe curl_slist_free_all(headers)
        unsafe headers = nil
        pieces.removeAll(keepingCapacity: true)
        (bodySize, piece, offset) = (0, 0, 0)
        answer.clear(keeping: 64 << 10)
        heads.clear(keeping: 256 << 10)
        answerHeaders.removeAll(keepingCapacity: true)
    }

    fileprivate func outcome(_ code: CURLcode) -> HTTPClient.Outcome {
        if code == CURLE_OK {
            var status = 0
            unsafe ccurl_get_long(easy, CURLINFO_RESPONSE_CODE, &status)
            return .answered(status: status)
        }
        var sent: curl_off_t = 0
        unsafe ccurl_size_uploaded(easy, &sent)
        let words = unsafe errorText[0] != 0 ? String(cString: errorText) : String(cString: curl_easy_strerror(code))
        let permanent = [
            CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CACERT_BADFILE, CURLE_URL_MALFORMAT, CURLE_UNSUPPORTED_PROTOCOL,
        ]
        return .failed(
            TransportError(
                message: words,
                mayHaveArrived: sent > 0,
                isPermanent: permanent.contains(code),
                isTimeout: code == CURLE_OPERATION_TIMEDOUT,
                certificate: certificateFault(code)
            )
        )
    }

    private func certificateFault(_ code: CURLcode) -> TransportError.CertificateFault? {
        switch code {
        case CURLE_SSL_CACERT_BADFILE: return .file
        case CURLE_PEER_FAILED_VERIFICATION: break
        default: return nil
        }
        var result = 0
        unsafe ccurl_get_long(easy, CURLINFO_SSL_VERIFYRESULT, &result)
        // OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED; where libcurl itself compares the name,
        // it leaves the 1 that it began with.
        return switch result {
        case 0, 1: .name
        case 9, 10: .time
        default: .trust
        }
    }

    @unsafe
    private static func at(_ context: UnsafeMutableRawPointer?) -> Transfer {
        unsafe Unmanaged<Transfer>.fromOpaque(context!).takeUnretainedValue()
    }

    private func supply(_ room: UnsafeMutableRawBufferPointer) -> Int {
        var used = 0
        while piece < pieces.count, used < room.count {
            let from = pieces[piece]
            let count = unsafe from.write(from: offset, to: UnsafeMutableRawBufferPointer(rebasing: room[used...]))
            used += count
            offset += count
            if offset == from.count { (piece, offset) = (piece + 1, 0) }
        }
        return used
    }

    /// A kept connection that had died is replaced and the body sent again from its start.
    private func seek(to position: Int, _ origin: Int32) -> Int32 {
        guard origin == SEEK_SET else { return CURL_SEEKFUNC_CANTSEEK }
        if piece > 0 || offset > 0 { wasRepeated = true }
        (piece, offset) = (0, position)
        while piece < pieces.count, offset >= pieces[piece].count {
            offset -= pieces[piece].count
            piece += 1
        }
        return CURL_SEEKFUNC_OK
    }

    private func take(_ bytes: UnsafeRawBufferPointer) -> Int {
        // Less than was offered ends the transfer with an error.
        guard answer.count + bytes.count <= largestAnswer else { return 0 }
        unsafe answer.append(Span(_unsafeBytes: bytes))
        return bytes.count
    }

    private func takeHeader(_ bytes: UnsafeRawBufferPointer) -> Int {
        let line = unsafe String(decoding: bytes, as: UTF8.self)
        if line.hasPrefix("HTTP/") {
            answerHeaders.removeAll(keepingCapacity: true)
        } else if let colon = line.firstIndex(of: ":"), answerHeaders.count < 100 {
            let value = line[line.index(after: colon)...].drop { $0 == " " }.prefix {
                $0 != "\r" && $0 != "\n" && $0 != "\r\n"
            }
            answerHeaders.append((line[..<colon].lowercased(), String(value)))
        }
        return bytes.count
    }
}
