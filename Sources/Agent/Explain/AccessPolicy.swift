public import Kinesis

/// What IAM must allow: the calls that the agent makes, on its stream, and nothing more.
public struct AccessPolicy: Equatable, Sendable {
    /// Whose policy it is.
    public var holder: String
    public var statements: [Statement]

    public struct Statement: Equatable, Sendable {
        public var actions: [String]
        public var resource: String
    }

    /// The policies that a configuration needs: none for the embedded Kinesis, two where a role is taken on.
    static func all(of configuration: Configuration) -> [AccessPolicy] {
        let output = configuration.outputs[0]
        guard output.endpoint != .embedded else { return [] }
        var actions = ["kinesis:PutRecords", "kinesis:ListShards"]
        // Only then the stream is asked for its limit.
        if configuration.activeInputs.contains(where: \.hasLongRecords) {
            actions.append("kinesis:DescribeStreamSummary")
        }
        let stream = Statement(actions: actions, resource: output.streamARN)
        guard !output.roleARN.isEmpty else {
            return [AccessPolicy(holder: "whoever the credentials belong to", statements: [stream])]
        }
        let role = Statement(actions: ["sts:AssumeRole"], resource: output.roleARN)
        return [
            AccessPolicy(holder: output.roleARN, statements: [stream]),
            AccessPolicy(holder: "whoever the credentials belong to, to take on that role", statements: [role]),
        ]
    }

    /// The policy's document.
    public var document: WireValue {
        .object([
            "Version": .text("2012-10-17"),
            "Statement": .list(
                statements.map { statement in
                    .object([
                        "Effect": .text("Allow"), "Action": .list(statement.actions.map { .text($0) }),
                        "Resource": .text(statement.resource),
                    ])
                }
            ),
        ])
    }
}

extension Configuration.Output {
    /// The stream's ARN; of any account where only its name is known.
    var streamARN: String {
        switch stream {
        case .arn(let arn): arn
        case .name(let name): "arn:\(Partition(region: region).name):kinesis:\(region):*:stream/\(name)"
        }
    }
}
