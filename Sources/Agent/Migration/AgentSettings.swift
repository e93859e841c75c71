import Kinesis

/// What agent.json says outside its flows.
struct AgentSettings {
    /// Region, endpoint and the like, as keys of our output.
    private(set) var place: [(key: String, value: String)] = []
    private(set) var isFIPS = false
    private(set) var isDualStack = false
    private(set) var roleARN: String?
    private(set) var externalID: String?
    private(set) var shutdownTimeout: Duration?
    private(set) var connectTimeout: Duration?
    private(set) var timeout: Duration?
    private(set) var maxInFlight: Int?
    private(set) var remarks: [Migration.Remark] = []

    /// Where the SDK goes that is told nothing.
    private static let usualRegion = "us-east-1"

    /// Keys that tune what Penstock finds out, or does, by itself.
    private static let ownAffairs: Set = [
        "maxSendingThreadsPerCore", "maxConnections", "sendingThreadsKeepAliveMillis", "sendingThreadsMaxQueueSize",
        "connectionTTLMillis", "useTcpKeepAlive", "useHttpGzip", "log.emitMetrics", "log.emitInternalMetrics",
        "log.statusReportingPeriodSeconds", "userAgent", "userAgentOverride",
    ]
    private static let read: Set = [
        "flows", "kinesis.endpoint", "kinesis.region", "assumeRoleARN", "assumeRoleExternalId", "shutdownTimeoutMillis",
        "connectionTimeoutMillis", "socketTimeoutMillis", "maxSendingThreads", "checkpointFile", "sts.endpoint",
        "awsAccessKeyId", "awsSecretAccessKey", "userDefinedCredentialsProvider.classname",
        "userDefinedCredentialsProvider.location",
    ]

    private let file: AgentFile

    init(_ file: AgentFile, hasFirehose: Bool) throws(MigrationFault) {
        self.file = file
        try readPlace()
        roleARN = try file.text("assumeRoleARN")
        externalID = try file.text("assumeRoleExternalId")
        if roleARN == nil, externalID != nil {
            note("assumeRoleExternalId", "left out: it belongs to an assumeRoleARN, and there is none")
            externalID = nil
        }
        shutdownTimeout = try duration("shutdownTimeoutMillis", .zero ... .seconds(3600))
        connectTimeout = try duration("connectionTimeoutMillis", .milliseconds(100) ... .seconds(300))
        timeout = try duration("socketTimeoutMillis", .milliseconds(100) ... .seconds(300))
        maxInFlight = try file.integer("maxSendingThreads").map { min(max($0, 1), 1000) }
        try noteCredentials()
        try noteMetrics()
        if let url = try file.text("sts.endpoint") { noteTokenService(url) }
        note(
            "checkpointFile",
            "what the Kinesis Agent has sent is not known here: start Penstock first and stop the Kinesis Agent then, so that a "
                + "few lines come twice and none is missed; where a file is read from its beginning, all of it comes again"
        )
        note(
            "environment",
            "what the Kinesis Agent is given beside this file, as in /etc/sysconfig/aws-kinesis-agent, is not read: keys and region "
                + "set there belong into Penstock's environment"
        )
        for key in file.keys {
            switch key {
            case "firehose.endpoint": note(key, "has no equal: Penstock delivers to Kinesis Data Streams alone")
            case "checkpointTimeToLiveDays":
                note(key, "has no equal: the entry of a file that is gone is kept for 7 days")
            case _ where Self.ownAffairs.contains(key): note(key, "has no equal: Penstock does that by itself")
            case _ where Self.read.contains(key) || key.hasPrefix("cloudwatch."): break
            default: note(key, "left out: it is no key of the Kinesis Agent's documentation or source")
            }
        }
    }

    private mutating func note(_ key: String, _ message: String, isOpen: Bool = false) {
        remarks.append(Migration.Remark(file: file.name, key: key, message: message, isOpen: isOpen))
    }

    private mutating func duration(
        _ key: String,
        _ range: ClosedRange<Duration>
    ) throws(MigrationFault) -> Duration? {
        guard let milliseconds = try file.integer(key) else { return nil }
        let value = Duration.milliseconds(min(max(milliseconds, 0), 1 << 40))
        let fitting = min(max(value, range.lowerBound), range.upperBound)
        if fitting != value { note(key, "becomes \(Units.text(duration: fitting)), which is as far as ours goes") }
        return fitting
    }

    // MARK: where Kinesis is

    private mutating func readPlace() throws(MigrationFault) {
        let region = try file.text("kinesis.region")
        guard var url = try file.text("kinesis.endpoint") else {
            if region == nil {
                note(
                    "kinesis.endpoint",
                    "none is set, so the Kinesis Agent goes to \(Self.usualRegion), and so does this; correct region if its "
                        + "environment tells it another"
                )
            }
            place = [("region", region ?? Self.usualRegion)]
            return
        }
        // The SDK takes a bare host, too.
        if !url.contains("://") { url = "https://" + url }
        while url.hasSuffix("/") { url.removeLast() }
        guard !url.contains("@"), !url.contains("${") else {
            throw MigrationFault("\(file.name): kinesis.endpoint: must be a plain URL, without user or ${}")
        }
        let host = ServiceURL(url).host.lowercased()
        let named = Self.region(in: host)
        for (isFIPS, isDualStack) in [(false, false), (true, false), (false, true), (true, true)] {
            guard let named, region == nil || region == named else { break }
            let endpoints = RegionalEndpoints(region: named, isFIPS: isFIPS, isDualStack: isDualStack)
            guard ServiceURL(endpoints.url(of: "kinesis")).host == host, url.hasPrefix("https://") else { continue }
            place = [("region", named)]
            (self.isFIPS, self.isDualStack) = (isFIPS, isDualStack)
            return
        }
        place = [("endpoint", url), ("region", region ?? named ?? Self.usualRegion)]
    }

    /// The region behind the service's name, as in `vpce-0a.kinesis.eu-west-1.vpce.amazonaws.com`.
    private static func region(in host: String) -> String? {
        let labels = host.split(separator: ".")
        guard let service = labels.firstIndex(where: { $0 == "kinesis" || $0 == "kinesis-fips" }) else { return nil }
        return labels[(service + 1)...].first { $0.contains("-") && $0.last!.isNumber }.map(String.init)
    }

    // MARK: what has no equal

    private mutating func noteCredentials() throws(MigrationFault) {
        if try file.text("awsAccessKeyId") != nil || file.keys.contains("awsSecretAccessKey") {
            note(
                "awsAccessKeyId, awsSecretAccessKey",
                "secrets are not copied: write the key into .aws/credentials of Penstock's user, or set AWS_ACCESS_KEY_ID and "
                    + "AWS_SECRET_ACCESS_KEY in its environment; the role of the instance needs neither",
                isOpen: true
            )
        }
        if let name = try file.text("userDefinedCredentialsProvider.classname") {
            note(
                "userDefinedCredentialsProvider.classname",
                "the class \(name) cannot be loaded: let a command print the key, as credential_process of a profile",
                isOpen: true
            )
        }
        if file.keys.contains("userDefinedCredentialsProvider.location") {
            note("userDefinedCredentialsProvider.location", "left out, with the class in it")
        }
    }

    private mutating func noteMetrics() throws(MigrationFault) {
        if try file.bool("cloudwatch.emitMetrics") ?? true {
            note(
                "cloudwatch.emitMetrics",
                "has no equal: metrics are at /metrics of admin, for Prometheus, and not sent to CloudWatch; alarms on what the Kinesis Agent sends there (the namespace "
                    + "AWSKinesisAgent) will have no data"
            )
        }
        for key in file.keys where key.hasPrefix("cloudwatch.") && key != "cloudwatch.emitMetrics" {
            note(key, "has no equal: nothing is sent to CloudWatch")
        }
    }

    private mutating func noteTokenService(_ url: String) {
        let region = place.first { $0.key == "region" }?.value ?? Self.usualRegion
        let ours = RegionalEndpoints(region: region, isFIPS: isFIPS, isDualStack: isDualStack).url(of: "sts")
        let host = ServiceURL(url.contains("://") ? url : "https://" + url).host
        guard host != ServiceURL(ours).host else { return }
        note(
            "sts.endpoint",
            "has no key: roles are taken on at \(ours); if that will not do, set AWS_ENDPOINT_URL_STS in Penstock's environment",
            isOpen: roleARN != nil && host != "sts.amazonaws.com"
        )
    }
}
