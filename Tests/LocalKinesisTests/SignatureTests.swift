import Kinesis
import Testing

@testable import LocalKinesis

@Suite struct SignatureTests {
    let credentials = Credentials(accessKeyID: "AKIDEXAMPLE", secretAccessKey: "secret")
    let body = Array("{}".utf8)

    /// The answer to ListStreams, signed with `credentials` at a time that is `skew` seconds off.
    func answer(
        _ signing: Credentials?,
        skew: Int64 = 0,
        sent: [UInt8]? = nil,
        region: String = "eu-west-1"
    ) throws -> Caller.Answer {
        let caller = try Caller(.init(credentials: credentials))
        var headers = [(name: "Host", value: "127.0.0.1:4567")]
        if let signing {
            let time = SigningTime(unixSeconds: noon.seconds + skew)
            headers.append(("X-Amz-Date", time.text))
            if let token = signing.sessionToken { headers.append(("X-Amz-Security-Token", token)) }
            var signer = SigV4(credentials: signing, region: region)
            let hash = SHA256.hexadecimal(of: body)
            let request = SigV4.Request(headers: headers, bodyHash: hash)
            headers.append(("Authorization", signer.authorization(for: request, at: time)))
        }
        return caller.send("Kinesis_20131202.ListStreams", sent ?? body, headers: headers)
    }

    @Test func `the right key is let in, for any region`() throws {
        #expect(try answer(credentials).status == 200)
        #expect(try answer(credentials, region: "us-east-1").status == 200)
    }

    @Test func `no signature, an unknown key and a wrong secret get their own errors`() throws {
        #expect(try answer(nil).code == "MissingAuthenticationTokenException")
        let unknown = try answer(Credentials(accessKeyID: "OTHER", secretAccessKey: "secret"))
        #expect(unknown.code == "UnrecognizedClientException")
        #expect(unknown.message == "The security token included in the request is invalid.")
        #expect(unknown.status == 400)
        let wrong = try answer(Credentials(accessKeyID: "AKIDEXAMPLE", secretAccessKey: "other"))
        #expect(wrong.code == "InvalidSignatureException")
        let token = Credentials(accessKeyID: "AKIDEXAMPLE", secretAccessKey: "secret", sessionToken: "t")
        #expect(try answer(token).code == "UnrecognizedClientException")
    }

    @Test func `a body that was changed on its way is noticed`() throws {
        #expect(try answer(credentials, sent: Array(#"{"Limit":1}"#.utf8)).code == "InvalidSignatureException")
    }

    @Test func `clocks may differ by five minutes`() throws {
        #expect(try answer(credentials, skew: -300).status == 200)
        #expect(try answer(credentials, skew: 300).status == 200)
        let early = try answer(credentials, skew: -301)
        #expect(early.code == "InvalidSignatureException")
        #expect(
            early.message
                == "Signature expired: 20260528T202139Z is now earlier than 20260528T202140Z (20260528T202640Z - 5 min.)"
        )
        let late = try answer(credentials, skew: 301)
        #expect(late.message?.hasPrefix("Signature not yet current: 20260528T203141Z is still later than") == true)
        // The agent reads its clock's error off these.
        #expect(ServiceError(status: 400, errorType: nil, body: early.bytes.span, format: .json).kind == .clock)
    }

    @Test(arguments: ["AWS4-HMAC-SHA256", "Basic abc", "AWS4-HMAC-SHA256 Credential=a/b, Signature=c"])
    func `half an Authorization header is incomplete`(text: String) throws {
        let caller = try Caller(.init(credentials: credentials))
        let answer = caller.send("Kinesis_20131202.ListStreams", body, headers: [("Authorization", text)])
        #expect(answer.code == "IncompleteSignatureException")
    }
}
