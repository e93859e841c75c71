import Agent
import Bytes
import Kinesis
import Logging
import Platform
import Seeded
import Testing

@Suite struct CredentialSourceTests {
    static func source(_ environment: [String: String], profile: String = "") -> CredentialSource {
        CredentialSource(profile: profile) { environment[$0] }
    }

    @Test func `the environment comes first, unless a profile is named`() throws {
        let scratch = try Scratch()
        try scratch.write(
            "credentials",
            """
            # mine
            [default]
            aws_access_key_id = D
            aws_secret_access_key=ds==
            [other]\r
            aws_access_key_id = O  # old\r
            aws_secret_access_key = os\r
            aws_session_token = ot\r
            [half]
            aws_access_key_id = H
            """
        )
        try scratch.write(
            "config",
            "[profile half]\naws_access_key_id = HC\naws_secret_access_key = hs\n[profile third]\n"
                + "AWS_ACCESS_KEY_ID = T\n\taws_secret_access_key\t=\tts\n"
        )
        var environment = [
            "AWS_SHARED_CREDENTIALS_FILE": scratch.path + "/credentials",
            "AWS_CONFIG_FILE": scratch.path + "/config",
        ]
        func load(_ profile: String = "") throws -> [String?] {
            let credentials = try Self.source(environment, profile: profile).load().credentials
            return [credentials.accessKeyID, credentials.secretAccessKey, credentials.sessionToken]
        }
        #expect(try load() == ["D", "ds==", nil])
        #expect(try load("other") == ["O", "os", "ot"])
        #expect(try load("half") == ["HC", "hs", nil])
        try check(load("third") == ["T", "ts", nil])
        environment["AWS_PROFILE"] = "other"
        try check(load() == ["O", "os", "ot"])
        environment["AWS_ACCESS_KEY_ID"] = "E"
        try check(load() == ["O", "os", "ot"])
        environment["AWS_SECRET_ACCESS_KEY"] = "es"
        environment["AWS_SESSION_TOKEN"] = ""
        try check(load() == ["E", "es", nil])
        environment["AWS_SESSION_TOKEN"] = "et"
        try check(load() == ["E", "es", "et"])
        try check(load("half") == ["HC", "hs", nil])
    }

    @Test func `titles in quotes, comments, nested values and keys of any case are read as the AWS tools read them`()
        throws
    {
        let scratch = try Scratch()
        try scratch.write(
            "config",
            """
            [default]
            region=eu-west-3;no comment without a space
            s3 =
              aws_access_key_id = NESTED
              aws_secret_access_key = nested
            [profile "two words"]
            aws_access_key_id = Q ; mine
            aws_secret_access_key = q#s
              aws_session_token = t
            [sso-session default]
            aws_access_key_id = SSO
            aws_secret_access_key = sso
            """
        )
        let environment = ["AWS_CONFIG_FILE": scratch["config"], "AWS_EC2_METADATA_DISABLED": "true"]
        let keys = try Self.source(environment, profile: "two words").load().credentials
        #expect(keys.accessKeyID == "Q" && keys.secretAccessKey == "q#s" && keys.sessionToken == "t")
        #expect(throws: CredentialSource.Missing.self) { try Self.source(environment).load() }
        #expect(Self.source(environment).region() == "eu-west-3;no comment without a space")
    }

    @Test func `missing ones are told with the places to write them`() {
        #expect {
            try Self.source(["HOME": "/nowhere", "AWS_EC2_METADATA_DISABLED": "true"]).load()
        } throws: { error in
            let text = "\(error)"
            return text.contains("AWS_ACCESS_KEY_ID") && text.contains("[default]")
                && text.contains("/nowhere/.aws/credentials") && text.contains("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        }
    }

    @Test func `a secret is in no description`() {
        let credentials = Credentials(accessKeyID: "AKID", secretAccessKey: "hunter2", sessionToken: "hunter3")
        var dumped = ""
        dump(Holder(credentials: credentials), to: &dumped)
        for text in ["\(credentials)", String(reflecting: credentials), "\([credentials])", dumped] {
            #expect(text.contains("AKID") && !text.contains("hunter"), "\(text)")
        }
    }

    private struct Holder { var credentials: Credentials }

    @Test(arguments: [
        ("http://169.254.170.2/v2/x", true), ("http://169.254.170.23/v1/credentials", true),
        ("http://[fd00:ec2::23]/v1/credentials", true), ("http://127.0.0.1:8080/", true), ("http://127.1.2.3", true),
        ("http://localhost:1/x", true), ("http://[::1]:80/", true), ("https://anywhere.example/", true),
        ("http://169.254.170.24/", false), ("http://169.254.169.254/", false), ("http://128.0.0.1/", false),
        ("http://127.0.0.1.example.com/", false), ("http://127.0.0/", false), ("http://localhost.example/", false),
        ("http://localhost@10.0.0.1/", false), ("http://10.0.0.1/#@localhost", false), ("ftp://localhost/", false),
        ("//localhost/", false), ("", false),
    ])
    func `a container's token goes in clear text to this machine and its links alone`(url: String, isAllowed: Bool) {
        #expect(ContainerEndpoint.isAllowed(url) == isAllowed)
    }

    @Test func `keys are renewed ahead of their end, more often towards it, and no two agents together`() {
        for chance in [0, 0.5, 1] {
            // An hour: 12 to 18 minutes ahead; six hours no earlier.
            let hour = TemporaryKeys.renewal(after: .seconds(3600), chance: chance)
            #expect(hour >= .seconds(3600 - 1081) && hour <= .seconds(3600 - 719))
            let long = TemporaryKeys.renewal(after: .seconds(21_600), chance: chance)
            #expect(long >= .seconds(21_600 - 1081) && long <= .seconds(21_600 - 719))
            // A server that answers the same keys to their end is asked some ten times, not in a loop.
            var (left, asked) = (Duration.seconds(3600), 0)
            while left > .zero {
                left -= TemporaryKeys.renewal(after: left, chance: chance)
                asked += 1
            }
            #expect((4...12).contains(asked), "\(asked)")
        }
        #expect(
            TemporaryKeys.renewal(after: .seconds(3600), chance: 0)
                != TemporaryKeys.renewal(after: .seconds(3600), chance: 1)
        )
    }
}
