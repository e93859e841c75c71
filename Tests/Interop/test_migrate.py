"""An Amazon Kinesis Agent's configuration, migrated and run: the same files, the same streams, the same records."""

import collections
import json
import re

import oracle
import pytest
from conftest import BINARY, ROOT, Run, environment

# As they stand in the guides: "Write to Amazon Kinesis Data Streams using Kinesis Agent", and that of Firehose.
DOCUMENTED = {
    "first steps": {"flows": [{"filePattern": "/tmp/app.log*", "kinesisStream": "yourkinesisstream"}]},
    "two streams": {
        "cloudwatch.emitMetrics": True,
        "kinesis.endpoint": "https://kinesis.eu-west-1.amazonaws.com",
        "firehose.endpoint": "https://firehose.eu-west-1.amazonaws.com",
        "flows": [
            {"filePattern": "/tmp/app1.log*", "kinesisStream": "yourkinesisstream"},
            {"filePattern": "/tmp/app2.log*", "deliveryStream": "yourfirehosedeliverystream"},
        ],
    },
    "a log format": {
        "flows": [
            {
                "filePattern": "/tmp/app.log*", "kinesisStream": "my-stream",
                "dataProcessingOptions": [{"optionName": "LOGTOJSON", "logFormat": "COMMONAPACHELOG"}],
            }
        ]
    },
    "records of several lines": {
        "flows": [
            {
                "filePattern": "/tmp/app.log*", "kinesisStream": "my-stream", "multiLineStartPattern": "\\[SEQUENCE=",
                "dataProcessingOptions": [
                    {"optionName": "SINGLELINE"},
                    {"optionName": "CSVTOJSON", "customFieldNames": ["f1", "f2", "f3"], "delimiter": "\\t"},
                ],
            }
        ]
    },
    "every key": {
        "assumeRoleARN": "arn:aws:iam::123456789012:role/ingest",
        "assumeRoleExternalId": "x",
        "awsAccessKeyId": "AKIAEXAMPLE",
        "awsSecretAccessKey": "secret-example",
        "cloudwatch.emitMetrics": False,
        "cloudwatch.endpoint": "monitoring.us-east-1.amazonaws.com",
        "kinesis.endpoint": "kinesis.us-east-1.amazonaws.com",
        "sts.endpoint": "https://sts.amazonaws.com",
        "userDefinedCredentialsProvider.classname": "com.example.Provider",
        "userDefinedCredentialsProvider.location": "/usr/share/provider.jar",
        "flows": [
            {
                "filePattern": "/tmp/app.log*", "kinesisStream": "my-stream", "initialPosition": "START_OF_FILE",
                "maxBufferAgeMillis": 60000, "maxBufferSizeBytes": 4194304, "maxBufferSizeRecords": 500,
                "minTimeBetweenFilePollsMillis": 100, "partitionKeyOption": "DETERMINISTIC", "skipHeaderLines": 1,
                "truncatedRecordTerminator": "~", "multiLineStartPattern": "^\\d{4}-|^\\p{Upper}+:",
            }
        ],
    },
}


@pytest.fixture
def migrate(penstock, tmp_path):
    """Migrates an object, or a text."""

    def run(configuration, *options):
        path = tmp_path / "agent.json"
        path.write_text(configuration if isinstance(configuration, str) else json.dumps(configuration, indent=2))
        return penstock("migrate", path, *options)

    return run


@pytest.mark.parametrize("name", DOCUMENTED)
def test_what_the_guides_show_becomes_a_configuration_that_check_accepts(migrate, penstock, tmp_path, name):
    output = tmp_path / "penstock.toml"
    result = migrate(DOCUMENTED[name], "--output", output)
    assert result.returncode == (0 if name == "first steps" else 1), result.stderr
    assert result.stdout == b"" and (result.returncode == 0) == (b"NOT CARRIED OVER" not in result.stderr)
    checked = penstock("check", "--config", output)
    assert checked.returncode == 0, checked.stderr
    assert b"input app" in checked.stdout
    assert output.stat().st_mode & 0o777 == 0o640
    # To standard output it is the same.
    assert migrate(DOCUMENTED[name]).stdout == output.read_bytes()
    for key in DOCUMENTED[name]:
        told = result.stderr.decode() + output.read_text()
        equal = {"flows", "kinesis.endpoint", "assumeRoleARN", "assumeRoleExternalId", "sts.endpoint"}
        assert key in told or key in equal or key == "cloudwatch.emitMetrics", key
    assert b"secret-example" not in result.stderr + output.read_bytes()
    assert b"AKIAEXAMPLE" not in result.stderr + output.read_bytes()


def agents_records(text, start=None):
    """What the Kinesis Agent makes of a file, but for the line end of each record (its SingleLineSplitter, RegexSplitter)."""
    records = []
    for line in text.splitlines(keepends=True):
        if start is None or not records or re.match(start, line):
            records.append(line)
        else:
            records[-1] += line
    return [record.removesuffix(b"\n").removesuffix(b"\r") for record in records]


def test_the_migrated_agents_deliver_the_records_of_the_files_that_the_kinesis_agent_reads(
    start_local, migrate, penstock, logs, tmp_path, chance, figure
):
    server = start_local("lines:4", "traces:2")
    lines = {
        # A name that begins with a dot is as good as another to Java, and packed files are left out.
        name: b"".join(b"%s %06d %s\n" % (name.encode(), number, b"x" * chance.randrange(300)) for number in range(2_000))
        for name in ("app.log", "app.log.1", ".hidden.txt", "other.txt", "app.log.gz", "APP.LOG.ZIP", "app.csv", "apple.log")
    }
    lines["app.log"] += b"a CR before its end\r\n\nbehind an empty one\n"
    traces = b"".join(
        b"2026-11-21 %06d failed\n" % number + b"\tat 2026-11-21\n" * chance.randrange(9) for number in range(1_000)
    )
    for name, text in lines.items():
        (logs / name).write_bytes(text)
    (logs / "traces").mkdir()
    (logs / "traces" / "app.trace").write_bytes(traces)
    options = {"initialPosition": "START_OF_FILE", "maxBufferAgeMillis": 1000}
    output = tmp_path / "penstock.toml"
    result = migrate(
        {
            "kinesis.endpoint": server.url,
            "flows": [
                {"filePattern": f"{logs}/app.log*", "kinesisStream": "lines"} | options,
                {"filePattern": f"{logs}/*.tx[t]", "kinesisStream": "lines"} | options,
                {
                    "filePattern": f"{logs}/traces/{{app,x}}.trace", "kinesisStream": "traces",
                    "multiLineStartPattern": r"\d{4}-\d\d|NEVER",
                }
                | options,
            ],
        },
        "--output", output,
    )
    assert result.returncode == 0, result.stderr
    expected = {
        "lines": sum((agents_records(lines[name]) for name in ("app.log", "app.log.1", ".hidden.txt", "other.txt")), []),
        "traces": agents_records(traces, rb"\d{4}-\d\d|NEVER"),
    }
    assert (len(expected["lines"]), len(expected["traces"])) == (8_003, 1_000)
    kinesis = oracle.client(server.url)
    for stream, records in expected.items():
        config = tmp_path / f"penstock.{stream}.toml"
        assert penstock("check", "--config", config).returncode == 0
        text = config.read_text()
        config.write_text(text.replace(f"/var/lib/penstock/stream-{stream}", f"{tmp_path}/state-{stream}"))
        assert config.read_text() != text
        run = Run([BINARY, "run", "--once", "--config", config], tmp_path / f"{stream}.log", environment())
        assert run.wait(60) == 0, run.log
        found = [
            record
            for shard in oracle.shards_of(kinesis, stream)
            for record in oracle.ShardReader(kinesis, stream, shard).kinesis_records()
        ]
        # Each is a Kinesis record of its own, which nobody needs to deaggregate.
        assert collections.Counter(bytes(record["Data"]) for record in found) == collections.Counter(records)
        shards = collections.Counter(record["PartitionKey"] for record in found)
        figure(f"{stream}: {len(found)} records, as expected, under {len(shards)} partition keys")


def test_a_file_for_each_stream_is_written_or_the_one_that_is_named(migrate, tmp_path):
    flows = [{"filePattern": f"/tmp/{name}.log", "kinesisStream": name} for name in ("one", "two")]
    result = migrate({"flows": flows})
    assert result.returncode == 64 and b"--output" in result.stderr and b"one, two" in result.stderr
    result = migrate({"flows": flows}, "--stream", "two")
    assert result.returncode == 0 and b"/tmp/two.log" in result.stdout and b"/tmp/one.log" not in result.stdout
    assert migrate({"flows": flows}, "--stream", "three").returncode == 64
    output = tmp_path / "out.toml"
    assert migrate({"flows": flows}, "--output", output).returncode == 0
    files = sorted(path.name for path in tmp_path.glob("out*"))
    assert files == ["out.one.toml", "out.two.toml"]
    # What is there may be in use.
    (tmp_path / "out.one.toml").unlink()
    result = migrate({"flows": flows}, "--output", output)
    assert result.returncode == 73 and b"out.two.toml is there already" in result.stderr
    assert not (tmp_path / "out.one.toml").exists()
    assert migrate({"flows": flows}, "--output", output, "--force").returncode == 0
    assert (tmp_path / "out.one.toml").exists()


def test_the_flows_of_agent_d_are_read_as_well(migrate, penstock, tmp_path):
    (tmp_path / "agent.d" / "old").mkdir(parents=True)
    for name in ("b.json", "a.json"):
        (tmp_path / "agent.d" / name).write_text(
            json.dumps({"flows": [{"filePattern": f"/tmp/{name}.log", "kinesisStream": "one"}]})
        )
    main = {"flows": [{"filePattern": "/tmp/main.log", "kinesisStream": "one"}]}
    result = migrate(main)
    assert result.returncode == 0, result.stderr
    assert re.findall(rb'paths = \["(.*)"\]', result.stdout) == [b"/tmp/main.log", b"/tmp/a.json.log", b"/tmp/b.json.log"]
    # Who names files means those.
    result = migrate(main, tmp_path / "agent.d" / "b.json")
    assert re.findall(rb'paths = \["(.*)"\]', result.stdout) == [b"/tmp/main.log", b"/tmp/b.json.log"]


def test_what_cannot_be_read_is_told_with_its_place(migrate, penstock, tmp_path):
    result = migrate('{\n  // flows\n  "flows": [\n    {"filePattern": "/x",}\n  ]\n}\n')
    assert result.returncode == 65 and f"{tmp_path}/agent.json:4:26: ".encode() in result.stderr, result.stderr
    assert b"repair the JSON" in result.stderr and result.stdout == b""
    result = penstock("migrate", tmp_path / "missing.json")
    assert result.returncode == 66 and b"missing.json: cannot be read: No such file" in result.stderr
    hose = migrate({"flows": [{"filePattern": "/tmp/a", "deliveryStream": "hose"}]})
    assert hose.returncode == 1 and hose.stdout == b"" and b"flows[0].deliveryStream: NOT CARRIED OVER" in hose.stderr


def test_the_readme_s_exit_codes_are_those_of_the_help(penstock):
    text = (ROOT / "README.md").read_text()
    assert "penstock migrate /etc/aws-kinesis/agent.json" in text
    help = penstock("migrate", "--help").stdout.decode()
    for code in ("1 done but for", "65 ", "66 ", "73 "):
        assert code in help
