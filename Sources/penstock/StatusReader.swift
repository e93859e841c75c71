import Bytes
import Kinesis
import Platform

/// Why there is no status.
struct StatusFault: Error, CustomStringConvertible {
    var description: String
    /// The token is not the right one.
    var isRefusal = false
}

/// What an agent said of itself at a moment.
struct StatusSample {
    let value: WireValue
    let bytes: [UInt8]

    init(_ bytes: [UInt8]) throws(StatusFault) {
        self.bytes = bytes
        do { value = try WireFormat.json.read(bytes.span) } catch {
            throw StatusFault(description: "what answers is no Penstock: its /status is no JSON")
        }
    }

    /// The member that a path of names leads to.
    subscript(_ path: String...) -> WireValue? { path.reduce(value) { $0?[$1] } }

    func number(_ value: WireValue?) -> Double { value?.number ?? 0 }
    func count(_ value: WireValue?) -> Int { value?.integer.map { Int($0) } ?? 0 }

    /// A text as a terminal may be given it.
    func text(_ value: WireValue?) -> String { (value?.text(in: bytes.span) ?? "").printable }
}

extension String {
    /// Without control characters: what others have named a file may hold commands to a terminal.
    var printable: String {
        func isControl(_ scalar: Unicode.Scalar) -> Bool { scalar.value < 0x20 || (0x7f..<0xa0).contains(scalar.value) }
        guard unicodeScalars.contains(where: isControl) else { return self }
        return unicodeScalars.reduce(into: "") { $0.unicodeScalars.append(isControl($1) ? "\u{fffd}" : $1) }
    }
}

/// Asks an agent's admin server for its status.
struct StatusReader {
    private let client: HTTPClient
    private let url: String
    private let token: String
    private let bell: Doorbell

    /// - Parameter tokenFile: empty: no token is sent.
    init(url: String, tokenFile: String) throws {
        let base = url.contains("://") ? url : "http://\(url)"
        self.url = base.hasSuffix("/") ? base + "status" : base + "/status"
        var options = HTTPClient.Options(url: self.url)
        (options.timeout, options.connectTimeout) = (.seconds(5), .seconds(2))
        options.proxy = .none
        client = HTTPClient(options)
        bell = try Doorbell()
        guard !tokenFile.isEmpty else {
            token = ""
            return
        }
        do {
            let text = String(decoding: try Folder.read(tokenFile, limit: 4096), as: UTF8.self)
            token = String(text.drop(while: \.isWhitespace).prefix { !$0.isWhitespace })
        } catch {
            StandardError.write("penstock: \(error)\n")
            throw Exit.noPermission
        }
    }

    /// Takes at most some seconds.
    func look() throws(StatusFault) -> StatusSample {
        let transfer = client.transfer(.get)
        if !token.isEmpty { transfer.addHeader("Authorization", "Bearer \(token)") }
        client.start(transfer, token: 0)
        var result: Result<[UInt8], StatusFault>?
        while result == nil {
            client.wait(for: bell, atMost: .seconds(1))
            client.finished { transfer, outcome in
                switch outcome {
                case .answered(200): result = .success(transfer.answer.array)
                case .answered(let status):
                    let reason = String(decoding: transfer.answer.array.prefix(200), as: UTF8.self)
                    let line = reason.prefix { !$0.isNewline }
                    result = .failure(.init(description: "\(url) answers \(status): \(line)", isRefusal: status == 401))
                case .failed(let error):
                    result = .failure(
                        .init(description: "does the agent run? Nothing answers at \(url): \(error.message)")
                    )
                }
            }
        }
        return try StatusSample(try result!.get())
    }
}
