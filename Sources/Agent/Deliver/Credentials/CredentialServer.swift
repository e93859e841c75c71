import Bytes
import Kinesis
import Platform

/// Says when whoever waits for credentials wants them no more.
struct Patience: Sendable {
    let bell: Doorbell
    let isOver: @Sendable () -> Bool
}

/// A server that hands out credentials, asked one thing at a time.
struct CredentialServer {
    private let client: HTTPClient
    private let patience: Patience
    /// A server of this machine that does not answer at all is not there.
    private let retriesSilence: Bool

    struct Answer {
        var status: Int
        var body: [UInt8]
        /// The server's clock, else ours, in seconds since 1970.
        var now: Int64
        /// Whether `now` is the server's.
        var hasDate: Bool

        /// The body where it is a name: its first line.
        var name: String {
            String(String(decoding: body.prefix(256), as: UTF8.self).prefix { !$0.isNewline })
        }

        /// What an error says of itself; nothing else of a body may get into a log.
        var message: String {
            let value = try? WireFormat.json.read(body.span)
            return value?["message"]?.text(in: body.span) ?? ""
        }
    }

    init(_ options: HTTPClient.Options, retriesSilence: Bool, _ patience: Patience) {
        (client, self.retriesSilence, self.patience) = (HTTPClient(options), retriesSilence, patience)
    }

    /// Tries three times what passes by itself.
    func ask(
        _ method: HTTPClient.Method,
        _ url: String,
        _ headers: [(String, String)],
        body: String = ""
    ) throws(CredentialFault) -> Answer {
        var backoff = Backoff(first: .milliseconds(100), longest: .seconds(1))
        var attempt = 1
        while true {
            let outcome = once(method, url, headers, body: body)
            switch outcome {
            case .success(let answer) where answer.status < 500 && answer.status != 429 || attempt == 3: return answer
            case .failure(let error) where attempt == 3 || !retriesSilence || error.isPermanent || patience.isOver():
                throw .failed(error.message)
            case .success, .failure: break
            }
            attempt += 1
            patience.bell.wait(atMost: backoff.next(chance: .random(in: 0...1)))
        }
    }

    /// Why there is no answer.
    private struct Silence: Error {
        var message: String
        var isPermanent: Bool
    }

    private func once(
        _ method: HTTPClient.Method,
        _ url: String,
        _ headers: [(String, String)],
        body: String
    ) -> Result<Answer, Silence> {
        let transfer = client.transfer(method, to: url)
        for (name, value) in headers { transfer.addHeader(name, value) }
        transfer.heads.clear(keeping: 64 << 10)
        transfer.heads.append(text: body)
        transfer.addBody(unsafe BodyPiece(transfer.heads.bytes))
        client.start(transfer, token: 0)
        var result: Result<Answer, Silence>?
        while result == nil, !patience.isOver() {
            client.wait(for: patience.bell, atMost: .seconds(1))
            patience.bell.wake()
            client.finished { transfer, outcome in
                switch outcome {
                case .answered(let status):
                    let date = transfer.header("date").flatMap(CivilTime.init(httpDate:))?.unixSeconds
                    let now = date ?? Machine.wallMilliseconds() / 1000
                    result = .success(
                        Answer(status: status, body: transfer.answer.array, now: now, hasDate: date != nil)
                    )
                case .failed(let error):
                    result = .failure(Silence(message: error.message, isPermanent: error.isPermanent))
                }
            }
        }
        client.cancelAll()
        return result ?? .failure(Silence(message: "broken off", isPermanent: true))
    }
}
