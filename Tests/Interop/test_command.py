"""The command line, as a person at a terminal meets it."""

import base64
import gzip
import hashlib
import json
import signal
import subprocess
import time

import oracle
import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from conftest import BINARY, Agent, environment, until


def aggregate(records):
    """An aggregate of (partition key, data) pairs by AWS's own library."""
    aggregator = RecordAggregator(1 << 20)
    for key, data in records:
        aggregator.add_user_record(key, data)
    return aggregator.clear_and_get().get_contents()[2]


# check


def test_check_prints_every_fault_with_its_place_its_key_and_the_nearest_known_one(penstock, tmp_path):
    config = tmp_path / "penstock.toml"
    config.write_text(
        "[agent]\n"
        'state_dri = "/tmp/x"\n'  # 2
        'log_level = "loud"\n'  # 3
        "memory_limit = true\n"  # 4
        "\n"
        "[inputs.app]\n"
        'type = "file"\n'
        'paths = ["relative/*.log"]\n'  # 8
        'start_at = "middle"\n'  # 9
        "\n"
        "[outputs.stream]\n"
        'type = "kinesis"\n'
        'stream = "no spaces"\n'  # 13
        'from = ["nobody"]\n'  # 14
        'linger = "100"\n'  # 15
        "max_in_flight = 0\n"  # 16
        'partition_key = "colour"\n'  # 17
        'region = "${PENSTOCK_TEST_NOWHERE}"\n'  # 18
        'regoin = "eu-west-1"\n'  # 19
    )
    result = penstock("check", "--config", config)
    lines = result.stderr.decode().splitlines()
    assert result.returncode == 78
    for line, key, words in [
        (2, "agent.state_dri", 'did you mean "state_dir"?'),
        (3, "agent.log_level", '"loud" is none of'),
        (4, "agent.memory_limit", "must be a size like"),
        (8, "inputs.app.paths", "must be an absolute path"),
        (9, "inputs.app.start_at", '"middle" is none of "end", "beginning"'),
        (13, "outputs.stream.stream", "is no stream's name"),
        (15, "outputs.stream.linger", "must be a duration with its unit"),
        (16, "outputs.stream.max_in_flight", "is not within 1 to 1000"),
        (17, "outputs.stream.partition_key", "must be"),
        (18, "outputs.stream.region", "the environment has no PENSTOCK_TEST_NOWHERE"),
        (19, "outputs.stream.regoin", 'did you mean "region"?'),
    ]:
        found = [each for each in lines if each.startswith(f"{config}:{line}:")]
        assert any(f": {key}: " in each and words in each for each in found), f"{line} {key} {words}\n" + "\n".join(lines)
    nobody = [line for line in lines if '"nobody"' in line]
    assert len(nobody) == 1 and nobody[0].startswith(f"{config}:14:"), nobody
    places = [tuple(int(part) for part in line[len(str(config)) + 1 :].split(":")[:2]) for line in lines]
    assert all(line > 0 and column > 0 for line, column in places)
    assert places == sorted(places), "in the order of the file"


@pytest.mark.parametrize(
    "text, place, words",
    [
        ("[agent\n", 1, ""),
        ('[inputs.app]\ntype = "file"\npaths = ["/x"]\n', 1, "needs one output"),
        ("", 1, "needs an input"),
        ('[inputs.a]\ntype = "kafka"\n', 2, '"kafka" is none of "file"'),
    ],
)
def test_check_says_what_is_missing_and_where_the_syntax_ends(penstock, tmp_path, text, place, words):
    config = tmp_path / "penstock.toml"
    config.write_text(text)
    result = penstock("check", "--config", config)
    assert result.returncode == 78
    found = [line for line in result.stderr.decode().splitlines() if words in line]
    assert found and found[0].startswith(f"{config}:{place}:"), result.stderr.decode()


def test_check_of_a_good_file_says_what_goes_where(penstock, tmp_path):
    agent = Agent(tmp_path, "/var/log/*.log", "http://127.0.0.1:1", "logs")
    agent.write_config()
    result = penstock("check", "--config", agent.config)
    assert result.returncode == 0, result.stderr
    for words in ("no faults", "/var/log/*.log", "stream logs at http://127.0.0.1:1"):
        assert words in result.stdout.decode()


def test_a_configuration_that_cannot_be_read_ends_with_78_and_run_refuses_what_check_refuses(penstock, tmp_path):
    for command in ("check", "run"):
        result = penstock(command, "--config", tmp_path / "missing.toml")
        assert result.returncode == 78
        assert b"cannot be read: No such file or directory" in result.stderr and b"--config" in result.stderr


# files


def test_files_tells_what_is_delivered_and_its_exit_code_lets_a_script_delete(
    penstock, local_kinesis, stream, make_agent, logs
):
    done, behind = oracle.Source(1), oracle.Source(2)
    done.write(logs / "done.log", 1_000)
    behind.write(logs / "behind.log", 1_000)
    agent = make_agent(logs / "*.log", local_kinesis.url, stream)
    assert agent.once().process.returncode == 0
    delivered = (logs / "behind.log").stat().st_size
    behind.write(logs / "behind.log", 10)
    command = ["files", "--config", agent.config]
    result = penstock(*command, "--json")
    files = {each["path"]: each for each in map(json.loads, result.stdout.splitlines())}
    size = (logs / "behind.log").stat().st_size
    told = files[str(logs / "behind.log")]
    assert (told["size"], told["delivered"], told["lag"]) == (size, delivered, size - delivered)
    assert not told["allDelivered"] and files[str(logs / "done.log")]["allDelivered"]
    assert result.returncode == 1
    assert b"all delivered" in penstock(*command).stdout
    for path, code in [("done.log", 0), ("behind.log", 1), ("unknown.log", 1)]:
        result = penstock(*command, "--quiet", logs / path)
        assert (result.returncode, result.stdout, result.stderr) == (code, b"", b"")


def test_files_answers_for_the_file_that_has_a_rotated_name_now(
    penstock, start_local, make_agent, logs, tmp_path
):
    server = start_local("logs:1")
    source = oracle.Source(1)
    path, rotated = logs / "app.log", logs / "app.log.1"
    agent = make_agent(path, server.url, "logs")
    for _ in range(3):
        # The one before is gone; the state still knows it, because a file system may come back.
        if rotated.exists():
            rotated.rename(tmp_path / f"gone-{source.written}")
        source.write(path, 100)
        assert agent.once().process.returncode == 0
        path.rename(rotated)
        source.write(path, 1)
        assert agent.once().process.returncode == 0
        assert penstock("files", "--config", agent.config, "--quiet", rotated).returncode == 0
    rotated.unlink()
    assert penstock("files", "--config", agent.config, "--quiet", rotated).returncode == 1


def test_files_never_calls_another_file_under_the_same_name_delivered(
    penstock, local_kinesis, stream, make_agent, logs
):
    oracle.Source(1).write(logs / "app.log", 1_000)
    agent = make_agent(logs / "*.log", local_kinesis.url, stream)
    assert agent.once().process.returncode == 0
    # Rotated since: the name is another file's now, which nobody has read, and is no longer than the first was.
    (logs / "app.log").rename(logs / "app.old")
    oracle.Source(2).write(logs / "app.log", 1_000 - 1)
    assert penstock("files", "--config", agent.config, "--quiet", logs / "app.log").returncode == 1


# read


@pytest.fixture
def filled(local_kinesis, stream):
    """A stream with an aggregate, a plain record, bytes that are no text, and gzip."""
    kinesis = oracle.client(local_kinesis.url)
    ranges = list(oracle.shards_of(kinesis, stream).values())

    def put(data, key="a", hash_key=None):
        kinesis.put_record(
            StreamName=stream, PartitionKey=key, Data=data,
            **({} if hash_key is None else {"ExplicitHashKey": str(hash_key)}),
        )

    aggregator = RecordAggregator(1 << 20)
    for number in range(3):
        aggregator.add_user_record("user", b"aggregated %d" % number, str(ranges[1][0] + number))
    put(aggregator.clear_and_get().get_contents()[2], hash_key=ranges[1][0])
    put(b"plain", key="someone")
    put(b"\xff\0bytes", key="someone")
    put(gzip.compress(b"inflated"), key="someone")
    return ["--endpoint", local_kinesis.url], stream, put


def test_read_prints_user_records_raw(penstock, filled):
    place, stream, _ = filled
    result = penstock("read", stream, *place)
    assert result.returncode == 0, result.stderr
    assert b"aggregated 0\naggregated 1\naggregated 2\n" in result.stdout
    assert b"plain\n" in result.stdout and b"\xff\0bytes\n" in result.stdout
    assert b"inflated\n" in result.stdout
    assert b"inflated" not in penstock("read", stream, *place, "--no-gunzip").stdout


def test_read_prints_json_with_keys_and_position(penstock, filled):
    place, stream, _ = filled
    result = penstock("read", stream, *place, "--format", "json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(records) == 6
    inner = [record for record in records if record.get("partitionKey") == "user"]
    assert [record["data"] for record in inner] == [f"aggregated {number}" for number in range(3)]
    assert [record["subSequenceNumber"] for record in inner] == [0, 1, 2]
    assert len({record["sequenceNumber"] for record in inner}) == 1
    assert all(record["shard"] == "shardId-000000000001" and int(record["explicitHashKey"]) for record in inner)
    plain = next(record for record in records if record.get("data") == "plain")
    assert plain["partitionKey"] == "someone" and "subSequenceNumber" not in plain
    assert b"\xff\0bytes" in [base64.b64decode(record["dataBase64"]) for record in records if "dataBase64" in record]


def test_read_prints_hexadecimal_and_stops_at_a_limit(penstock, filled):
    place, stream, _ = filled
    result = penstock("read", stream, *place, "--format", "hex")
    assert bytes.fromhex(result.stdout.decode().split("\n")[0])
    assert b"plain".hex().encode() in result.stdout.split(b"\n")
    for limit in (1, 2, 5):
        assert penstock("read", stream, *place, "--limit", limit).stdout.count(b"\n") == limit


def test_read_begins_at_a_time_or_at_the_end(penstock, filled):
    place, stream, put = filled
    time.sleep(1.1)
    now = time.time()
    put(b"later", key="someone")
    for moment in (f"{now - 0.5:.3f}", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))):
        result = penstock("read", stream, *place, "--from", moment)
        assert result.stdout == b"later\n", (moment, result)
    assert penstock("read", stream, *place, "--from", "latest").stdout == b""
    assert penstock("read", stream, *place, "--from", "trim-horizon").stdout.count(b"later") == 1
    assert penstock("read", stream, *place, "--from", "yesterday").returncode == 64


def test_read_follows_until_it_is_stopped(filled, tmp_path):
    place, stream, put = filled
    out = tmp_path / "out"
    with open(out, "wb") as file:
        process = subprocess.Popen(
            [BINARY, "read", stream, *place, "--follow", "--from", "latest"], stdout=file, stderr=subprocess.PIPE,
            env=environment(),
        )
    try:
        time.sleep(0.7)
        put(b"first", key="someone")
        until(lambda: out.read_bytes() == b"first\n", 5, lambda: out.read_bytes())
        put(b"second", key="someone")
        until(lambda: out.read_bytes() == b"first\nsecond\n", 5, lambda: out.read_bytes())
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.communicate()


def test_read_of_a_stream_that_does_not_exist_ends_with_69(penstock, local_kinesis):
    result = penstock("read", "nowhere", "--endpoint", local_kinesis.url)
    assert result.returncode == 69 and b"nowhere" in result.stderr and b"ResourceNotFoundException" in result.stderr


def test_read_says_when_records_lie_in_a_shard_where_the_kcl_drops_them(penstock, filled):
    place, stream, put = filled
    # Of one of them every record is misplaced, of the other, if it is another shard's, none.
    put(aggregate([("user", b"one"), ("user", b"two")]), hash_key=0)
    put(aggregate([("user", b"one"), ("user", b"two")]), hash_key=2**128 - 1)
    first, last = oracle.shards_of(oracle.client(place[1]), stream)["shardId-000000000003"]
    keys = {key: int.from_bytes(hashlib.md5(key.encode()).digest(), "big") for key in (f"key-{number}" for number in range(100))}
    inside = [key for key, hash_key in keys.items() if first <= hash_key <= last]
    outside = next(key for key in keys if key not in inside)
    # One that lies elsewhere takes its neighbours with it.
    put(aggregate([(inside[0], b"three"), (outside, b"four"), (inside[1], b"five")]), hash_key=last)
    put(aggregate([(inside[0], b"six"), (inside[1], b"seven")]), hash_key=last)
    whole, dropped = penstock("read", stream, *place, "--misplaced"), penstock("read", stream, *place)
    for result in (whole, dropped):
        assert result.returncode == 65 and b"outside the range of the shard" in result.stderr
        assert b"six\nseven\n" in result.stdout and b"aggregated 0\n" in result.stdout
    assert b"three\nfour\nfive\n" in whole.stdout and whole.stdout.count(b"one\ntwo\n") == 2
    assert b"--misplaced" in dropped.stderr and dropped.stdout.count(b"one\n") <= 1
    assert not {b"three", b"four", b"five"} & set(dropped.stdout.split())


# decode


RECORDS = [("a", b"first"), ("b", b"second \xff\0"), ("a", "日本語".encode())]


@pytest.mark.parametrize(
    "input",
    [
        aggregate(RECORDS),
        base64.b64encode(aggregate(RECORDS)) + b"\n",
        b"\n".join(base64.b64encode(aggregate([record])) for record in RECORDS),
        json.dumps(
            {
                "MillisBehindLatest": 0,
                "Records": [
                    {"SequenceNumber": "49", "PartitionKey": "a", "Data": base64.b64encode(aggregate(RECORDS)).decode()}
                ],
            },
            indent=4,
        ).encode(),
        json.dumps(
            {
                "Records": [
                    {
                        "kinesis": {
                            "kinesisSchemaVersion": "1.0", "partitionKey": "a", "sequenceNumber": "49",
                            "data": base64.b64encode(aggregate(RECORDS)).decode(),
                            "approximateArrivalTimestamp": 1545084650.987,
                        },
                        "eventSource": "aws:kinesis",
                        "eventID": "shardId-000000000006:49",
                    }
                ]
            }
        ).encode(),
    ],
    ids=["raw", "base64", "base64 lines", "GetRecords", "Lambda"],
)
def test_decode_takes_what_aws_kinesis_agg_made_apart(penstock, input):
    result = penstock("decode", input=input)
    assert result.returncode == 0, result.stderr
    assert result.stdout == b"".join(data + b"\n" for _, data in RECORDS)
    records = [json.loads(line) for line in penstock("decode", "--format", "json", input=input).stdout.splitlines()]
    assert [record["partitionKey"] for record in records] == [key for key, _ in RECORDS]
    assert records[0]["data"] == "first" and base64.b64decode(records[1]["dataBase64"]) == RECORDS[1][1]


@pytest.mark.parametrize("input", [b"", b"{\"a\": 1}", b"{\"Records\": [{}]}", b"{", b"not base64!\n"])
def test_decode_of_something_else_ends_with_65_and_says_why(penstock, input):
    result = penstock("decode", input=input)
    assert result.returncode == 65 and result.stderr.startswith(b"penstock: "), result
    assert result.stderr.count(b"\n") == 1


def test_what_the_aws_command_prints_goes_through_decode(penstock, filled, local_kinesis):
    _, stream, _ = filled
    kinesis = oracle.client(local_kinesis.url)
    iterator = kinesis.get_shard_iterator(
        StreamName=stream, ShardId="shardId-000000000001", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    answer = kinesis.get_records(ShardIterator=iterator)
    # As `aws kinesis get-records` prints it.
    text = json.dumps(
        {
            "Records": [
                record
                | {
                    "Data": base64.b64encode(record["Data"]).decode(),
                    "ApproximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].isoformat(),
                }
                for record in answer["Records"]
            ]
        }
    )
    assert penstock("decode", input=text.encode()).stdout.startswith(b"aggregated 0\naggregated 1\naggregated 2\n")


# completion, version, help, demo


@pytest.mark.parametrize("shell, words", [("bash", b"complete"), ("zsh", b"#compdef penstock"), ("fish", b"complete -c")])
def test_there_is_a_completion_script_for_each_shell(penstock, shell, words):
    result = penstock("completion", shell)
    assert result.returncode == 0
    assert words in result.stdout and b"decode" in result.stdout
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=result.stdout).returncode == 0


def test_another_shell_is_a_usage_error(penstock):
    result = penstock("completion", "tcsh")
    assert result.returncode == 64 and b"bash, zsh and fish" in result.stderr


def test_the_version_is_one_line(penstock):
    result = penstock("--version")
    assert result.returncode == 0
    assert [part.isdigit() for part in result.stdout.decode().strip().split(".")] == [True] * 3


@pytest.mark.parametrize("command", ["run", "check", "files", "demo", "local", "read", "decode", "completion"])
def test_every_command_is_listed_and_explains_itself(penstock, command):
    assert command in penstock("--help").stdout.decode()
    result = penstock(command, "--help")
    assert result.returncode == 0 and b"USAGE: penstock " + command.encode() in result.stdout


def test_an_unknown_option_is_a_usage_error(penstock):
    result = penstock("run", "--colour")
    assert result.returncode == 64 and b"--colour" in result.stderr


def test_the_configuration_is_named_by_c_too(penstock, tmp_path):
    assert penstock("check", "-c", tmp_path / "missing.toml").returncode == 78


def test_the_demo_shows_that_every_line_arrived_once(penstock, figure):
    began = time.monotonic()
    result = penstock("demo", "--duration", "2s", timeout=30)
    out = result.stdout.decode()
    assert result.returncode == 0, out + result.stderr.decode()
    assert "Every line arrived once." in out
    figure(f"{[line for line in out.splitlines() if 'lines went in' in line][0].strip()} ({time.monotonic() - began:.1f} s)")
