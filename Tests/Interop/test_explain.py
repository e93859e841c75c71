"""`penstock explain`: what it says is held against what the agent then does."""

import json
import re

import boto3
import oracle
import pytest
from conftest import ROOT, environment

OPERATIONS = [
    "CreateStream", "DeleteStream", "ListStreams", "DescribeStream", "DescribeStreamSummary", "ListShards", "SplitShard",
    "MergeShards", "UpdateShardCount", "UpdateStreamMode", "UpdateMaxRecordSize", "PutRecord", "PutRecords",
    "GetShardIterator", "GetRecords",
]


def explained(penstock, agent, *options, env=None):
    agent.write_config()
    result = penstock("explain", "--json", "--config", agent.config, *options, env=env)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def watch(server):
    """Has the embedded Kinesis count each call, without doing anything to it."""
    server.admin("faults", [{"fault": "delay", "op": name, "by": "1ms", "skip": 1_000_000_000} for name in OPERATIONS])


def seen(server):
    faults = server.admin("faults")["faults"]
    return {fault["fault"].split("op=")[1].split(",")[0] for fault in faults if fault["seen"]}


@pytest.mark.parametrize("long", [False, True])
def test_the_policy_allows_exactly_the_calls_that_a_run_makes(penstock, start_local, make_agent, logs, long, figure):
    server = start_local("logs:3")
    oracle.Source(1).write(logs / "app.log", 2_000)
    options = {"inputs": {"max_record": "2MiB"}} if long else {}
    agent = make_agent(logs / "*.log", server.url, "logs", **options)
    # What explain itself asks is no more.
    watch(server)
    policies = explained(penstock, agent)["policies"]
    assert seen(server) == {"ListShards"}
    assert agent.once().process.returncode == 0
    statement, = policies[0]["policy"]["Statement"]
    assert {action.removeprefix("kinesis:") for action in statement["Action"]} == seen(server)
    assert statement["Resource"] == "arn:aws:kinesis:us-east-1:*:stream/logs" and statement["Effect"] == "Allow"
    figure(f"calls of a run: {sorted(seen(server))}")


@pytest.mark.parametrize(
    "output, resource",
    [
        ({"stream": "s", "region": "eu-west-1"}, "arn:aws:kinesis:eu-west-1:*:stream/s"),
        ({"stream": "s", "region": "cn-north-1"}, "arn:aws-cn:kinesis:cn-north-1:*:stream/s"),
        ({"stream": "s", "region": "us-gov-west-1"}, "arn:aws-us-gov:kinesis:us-gov-west-1:*:stream/s"),
        (
            {"stream": None, "stream_arn": "arn:aws:kinesis:eu-west-1:123456789012:stream/s"},
            "arn:aws:kinesis:eu-west-1:123456789012:stream/s",
        ),
    ],
)
def test_policies_are_ones_that_iam_takes_and_name_the_stream_and_the_role(
    penstock, make_agent, logs, moto_server, output, resource
):
    role = "arn:aws:iam::123456789012:role/ingest"
    agent = make_agent(logs / "*.log", None, "s", role_arn=role, external_id="quitesecret")
    agent.output |= output
    value = explained(penstock, agent, "--offline")
    iam = boto3.client(
        "iam", endpoint_url=moto_server.url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    for number, policy in enumerate(value["policies"]):
        # moto checks the grammar as IAM does.
        name = f"penstock-{number}-{resource.replace(':', '-').replace('/', '-').replace('*', 'any')}"
        iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(policy["policy"]))
    puts, assumes = (policy["policy"]["Statement"][0] for policy in value["policies"])
    assert value["policies"][0]["for"] == role and puts["Resource"] == resource
    assert puts["Action"] == ["kinesis:PutRecords", "kinesis:ListShards"]
    assert (assumes["Action"], assumes["Resource"]) == (["sts:AssumeRole"], role)
    assert any(each["service"] == "sts" and role in each["purpose"] for each in value["endpoints"])
    assert "quitesecret" not in json.dumps(value)


def test_shards_are_those_that_the_service_lists(penstock, start_local, make_agent, logs):
    server = start_local("logs:5")
    agent = make_agent(logs / "*.log", server.url, "logs")
    oracle.client(server.url).split_shard(StreamName="logs", ShardToSplit="shardId-000000000000", NewStartingHashKey="1000")
    shards = explained(penstock, agent)["shards"]
    assert shards == {"count": 6, "bytesPerSecond": 6 << 20, "recordsPerSecond": 6_000}
    text = penstock("explain", "--config", agent.config).stdout.decode()
    assert "shards: 6, which take 6 MiB and 6,000 records a second" in text
    assert explained(penstock, agent, "--offline")["shards"] == {"notAsked": "--offline"}


def test_a_kinesis_that_does_not_answer_is_told_and_the_rest_as_well(penstock, start_local, make_agent, logs):
    server = start_local("logs:1")
    agent = make_agent(logs / "*.log", server.url, "nowhere")
    assert "ResourceNotFoundException" in explained(penstock, agent)["shards"]["notReachable"]
    server.stop()
    value = explained(penstock, agent)
    assert "notReachable" in value["shards"] and value["keys"] and value["policies"]
    result = penstock("explain", "--config", agent.config)
    assert result.returncode == 0 and b"shards: not reachable: " in result.stdout


def test_inputs_tell_what_is_there_and_what_is_not_delivered_yet(penstock, start_local, make_agent, logs):
    server = start_local("logs:1")
    source = oracle.Source(1)
    source.write(logs / "a.log", 1_000)
    oracle.Source(2).write(logs / "b.log", 100)
    (logs / "c.txt").write_text("not matched\n")
    (logs / "link.log").symlink_to(logs / "a.log")
    agent = make_agent(logs / "*.log", server.url, "logs")
    agent.inputs["device"] = {"type": "socket", "listen": ["udp://127.0.0.1:5514", f"unix://{logs}/sock"]}
    agent.output["from"] = ["app"]
    sizes = {name: (logs / name).stat().st_size for name in ("a.log", "b.log")}

    def app(*options):
        value = explained(penstock, agent, "--offline", *options)
        files, sockets = value["inputs"]
        assert sockets == {"input": "device", "active": False, "listen": ["udp://127.0.0.1:5514", f"unix://{logs}/sock"]}
        return files

    # A file counts once, whatever leads to it.
    found = app()
    assert (found["fileCount"], found["bytes"], found["undelivered"]) == (2, sum(sizes.values()), sum(sizes.values()))
    agent.inputs["app"]["start_at"] = "end"
    assert app()["undelivered"] == 0
    agent.inputs["app"]["start_at"] = "beginning"
    assert agent.once().process.returncode == 0
    assert app()["undelivered"] == 0
    source.write(logs / "a.log", 10)
    grown = (logs / "a.log").stat().st_size - sizes["a.log"]
    found = app()
    assert found["undelivered"] == grown and found["faults"] == []
    assert found["files"][0] == {"path": str(logs / "a.log"), "size": sizes["a.log"] + grown, "undelivered": grown}
    # New since the first start: read from its beginning, whatever start_at says.
    agent.inputs["app"]["start_at"] = "end"
    oracle.Source(3).write(logs / "new.log", 10)
    assert app()["undelivered"] == grown + (logs / "new.log").stat().st_size


def test_a_state_that_cannot_be_read_is_told(penstock, make_agent, logs):
    (logs / "a.log").write_text("a line\n")
    agent = make_agent(logs / "*.log", "http://127.0.0.1:1", "logs")
    assert "stateNotReadable" not in explained(penstock, agent, "--offline")
    agent.state.mkdir()
    (agent.state / "checkpoints").write_text("penstock-checkpoints 99 0\n")
    assert "newer penstock (version 99)" in explained(penstock, agent, "--offline")["stateNotReadable"]
    text = penstock("explain", "--offline", "--config", agent.config).stdout
    assert b"what is delivered cannot be told: " in text


def test_of_very_many_files_those_furthest_behind_are_shown(penstock, make_agent, logs, figure):
    for number in range(3_000):
        (logs / f"{number}.log").write_bytes(b"x" * (number % 1_000) + b"\n")
    agent = make_agent(logs / "*.log", "http://127.0.0.1:1", "logs")
    found = explained(penstock, agent, "--offline")["inputs"][0]
    assert found["fileCount"] == 3_000 and found["bytes"] == 3 * sum(range(1, 1_001))
    behind = [file["undelivered"] for file in found["files"]]
    assert len(behind) == 20 and behind == sorted(behind, reverse=True) and behind[0] == 1_000 and behind[-1] == 994
    text = penstock("explain", "--offline", "--config", agent.config).stdout.decode()
    assert "and 2,980 files that are not further behind" in text


@pytest.mark.parametrize(
    "variables, services",
    [
        ({}, []),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/t", "AWS_ROLE_ARN": "arn:aws:iam::1:role/a"}, ["https://sts.eu-west-1.amazonaws.com"]),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/quitesecret"}, ["http://169.254.170.2"]),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/quitesecret"}, ["http://127.0.0.1:9"]),
        ({"AWS_EC2_METADATA_DISABLED": "false"}, ["http://169.254.169.254"]),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, []),
    ],
)
def test_endpoints_are_those_of_the_region_and_of_whoever_has_the_key(penstock, make_agent, logs, variables, services):
    agent = make_agent(logs / "*.log", None, "s", region="eu-west-1")
    env = environment(**variables)
    if variables:
        env = {name: value for name, value in env.items() if not name.startswith("AWS_")} | variables
    value = explained(penstock, agent, "--offline", env=env)
    assert [each["url"] for each in value["endpoints"]] == ["https://kinesis.eu-west-1.amazonaws.com", *services]
    assert "quitesecret" not in json.dumps(value)


@pytest.mark.parametrize(
    "profile, services",
    [
        ("aws_access_key_id = quitesecret\naws_secret_access_key = quitesecret", []),
        ("credential_process = /bin/quitesecret", []),
        ("role_arn = arn:aws:iam::1:role/a\nsource_profile = other", ["https://sts.eu-west-1.amazonaws.com"]),
        (
            "role_arn = arn:aws:iam::1:role/a\ncredential_source = Ec2InstanceMetadata",
            ["http://169.254.169.254", "https://sts.eu-west-1.amazonaws.com"],
        ),
        ("region = eu-west-1", ["http://169.254.169.254"]),
    ],
)
def test_endpoints_follow_the_profile(penstock, make_agent, logs, tmp_path, profile, services):
    key = "aws_access_key_id = quitesecret\naws_secret_access_key = quitesecret"
    (tmp_path / "config").write_text(f"[profile mine]\n{profile}\n[profile other]\n{key}\n")
    agent = make_agent(logs / "*.log", None, "s", region="eu-west-1", profile="mine")
    env = environment(AWS_CONFIG_FILE=str(tmp_path / "config"), HTTPS_PROXY="http://me:quitesecret@127.0.0.1:2")
    value = explained(penstock, agent, "--offline", env=env)
    assert [each["url"] for each in value["endpoints"]] == [
        "https://kinesis.eu-west-1.amazonaws.com", "http://127.0.0.1:2", *services,
    ]
    assert "quitesecret" not in json.dumps(value)


def test_no_secret_is_shown(penstock, make_agent, logs):
    agent = make_agent(logs / "*.log", None, "s", region="eu-west-1", proxy="http://me:quitesecret@127.0.0.1:1")
    agent.output |= {"role_arn": "arn:aws:iam::1:role/a", "external_id": "quitesecret"}
    env = environment(AWS_SECRET_ACCESS_KEY="quitesecret", AWS_SESSION_TOKEN="quitesecret")
    value = explained(penstock, agent, "--offline", env=env)
    keys = {key["key"]: key for key in value["keys"]}
    assert "http://127.0.0.1:1" in [each["url"] for each in value["endpoints"]]
    assert keys["outputs.stream.proxy"]["value"] == "set, not shown" and not keys["outputs.stream.proxy"]["default"]
    for result in (penstock("explain", "--config", agent.config, env=env), penstock("explain", "--json", "--config", agent.config, env=env)):
        assert result.returncode == 0 and b"quitesecret" not in result.stdout + result.stderr


def test_a_bad_configuration_ends_with_78(penstock, tmp_path):
    (tmp_path / "p.toml").write_text("[agent]\n")
    assert penstock("explain", "--config", tmp_path / "p.toml").returncode == 78


def test_every_documented_key_is_explained_and_no_other(penstock, tmp_path):
    shipped = (ROOT / "config" / "penstock.toml").read_text()
    documented, table = set(), ""
    for line in shipped.splitlines():
        if found := re.match(r"(?:# )?\[([a-z.]+)\]", line):
            table = found[1]
        elif (found := re.match(r"(?:# )?([a-z_]+) = ", line)) and found[1] != "type":
            documented.add(f"{table}.{found[1]}")
    config = tmp_path / "penstock.toml"
    # With the input of syslog, too.
    config.write_text(re.sub(r"(?m)^# (\[inputs.syslog\]|type = \"syslog\"|listen = )", r"\1", shipped))
    result = penstock("explain", "--offline", "--json", "--config", config)
    assert result.returncode == 0, result.stderr
    keys = json.loads(result.stdout)["keys"]
    # spool.max_size is a part of spool.
    assert {re.sub(r"(spool|dead_letters)\..*", r"\1", key["key"]) for key in keys} == documented
    assert all(key["meaning"] and key["value"] for key in keys)
    changed = {key["key"] for key in keys if not key["default"]} - {"outputs.stream.ca_file"}
    assert changed == {
        "inputs.app.paths", "inputs.syslog.listen", "outputs.stream.stream", "outputs.stream.region",
    }
