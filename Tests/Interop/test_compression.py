"""Compressed records through the whole agent, read as a consumer would: boto3, aws_kinesis_agg and Python's gzip."""

import base64
import gzip
import json
import re
import textwrap
import time
from collections import Counter

import oracle
import pytest
from conftest import ROOT, until


def kinesis_records(url):
    """(shard's range, record) of every Kinesis record."""
    return oracle.by_shard(url, "logs", oracle.ShardReader.kinesis_records)


def lines_of(records):
    """As the README's consumer does it."""
    for record in records:
        for line in gzip.decompress(record["Data"]).splitlines():
            yield line


def written(source, count):
    """The next lines of a source, without their line ends."""
    return [line[:-1] for line in source.lines(count)]


def require_same(found, expected):
    missing, more = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
    assert not missing and not more, (len(missing), len(more), list(missing)[:3], list(more)[:3])


def test_a_block_of_lines_becomes_one_record(start_local, make_agent, logs, penstock, figure):
    server = start_local("logs:4")
    lines = written(oracle.Source(1), 120_000)
    (logs / "app.log").write_bytes(b"".join(line + b"\n" for line in lines))
    run = make_agent(logs / "*.log", server.url, "logs", compression="gzip").once()
    assert run.process.returncode == 0, run.log
    assert "records=120000" in run.log and f"bytes={sum(map(len, lines))}" in run.log
    found = list(kinesis_records(server.url))
    require_same(lines_of(record for _, record in found), lines)
    assert {record["PartitionKey"] for _, record in found} == {"a"}
    sizes = sorted(len(record["Data"]) for _, record in found)
    figure(
        f"{sum(map(len, lines))} bytes of lines became {sum(sizes)} in {len(sizes)} records, median {sizes[len(sizes) // 2]}, "
        f"largest {sizes[-1]}; {run.cpu:.2f} s of CPU"
    )
    # About aggregate_max_size, as soon as the ratio is known.
    assert 35_000 < sizes[len(sizes) // 2] < 65_000 and sizes[-1] < 100_000
    place = ["logs", "--endpoint", server.url]
    result = penstock("read", *place)
    assert result.returncode == 0
    require_same(result.stdout.splitlines(), lines)
    packed = penstock("read", *place, "--no-gunzip", "--format", "hex").stdout.split()
    require_same([bytes.fromhex(text.decode()) for text in packed], [record["Data"] for _, record in found])
    # --limit counts lines, and JSON says which of its block each is.
    records = [json.loads(line) for line in penstock("read", *place, "--format", "json", "--limit", 7).stdout.splitlines()]
    assert [record["line"] for record in records] == list(range(7))
    assert len({record["sequenceNumber"] for record in records}) == 1
    event = {"Records": [{"kinesis": {"data": base64.b64encode(found[0][1]["Data"]).decode(), "partitionKey": "a"}}]}
    decoded = penstock("decode", input=json.dumps(event).encode()).stdout
    assert decoded.splitlines() == list(lines_of([found[0][1]]))


@pytest.mark.parametrize("key", ["spread", "source", "random", "=one"])
def test_each_record_is_compressed_by_itself_inside_its_aggregate(start_local, make_agent, logs, penstock, key):
    server = start_local("logs:4")
    lines = written(oracle.Source(1), 5_000)
    (logs / "app.log").write_bytes(b"".join(line + b"\n" for line in lines))
    run = make_agent(logs / "*.log", server.url, "logs", compression="gzip_record", partition_key=key).once()
    assert run.process.returncode == 0 and f"bytes={sum(map(len, lines))}" in run.log
    found = oracle.user_records(server.url, "logs")
    require_same([gzip.decompress(record.data) for record in found], lines)
    assert all(record.is_aggregated for record in found[:10])
    require_same(penstock("read", "logs", "--endpoint", server.url).stdout.splitlines(), lines)


@pytest.mark.parametrize("compression", ["gzip", "gzip_record"])
@pytest.mark.parametrize("key", ["spread", "source", "random"])
def test_lines_of_every_kind_come_back_as_they_were(start_local, make_agent, logs, penstock, chance, compression, key):
    server = start_local("logs:3")
    # What compresses well teaches a ratio that what does not compress at all then breaks.
    lines = [b"same" * 60] * 20_000
    lines += [chance.randbytes(chance.randrange(2_000)).replace(b"\n", b"") for _ in range(3_000)]
    lines += [b"", b"in\rside", b"\0", "日本語".encode(), b"\x1f\x8b\x08 not gzip", gzip.compress(b"x", mtime=0)]
    # As long as a record may be, and above.
    longest = (1 << 20) - 1024
    lines += [chance.randbytes(size).translate(None, b"\n\r")[: longest] for size in (longest + 9_000, longest + 9_000, 2 << 19)]
    # A CR in front of a line end belongs to it.
    lines = [line.rstrip(b"\r") for line in lines]
    ends = [chance.choice([b"\n", b"\r\n"]) for _ in lines]
    (logs / "app.log").write_bytes(b"".join(line + end for line, end in zip(lines, ends)))
    run = make_agent(
        logs / "*.log", server.url, "logs", compression=compression, partition_key=key, inputs={"max_record": longest}
    ).once()
    assert run.process.returncode == 0 and "dead" not in run.log, run.log
    assert f"records={len(lines)} " in run.log
    if compression == "gzip":
        records = [record for _, record in kinesis_records(server.url)]
        blocks = [gzip.decompress(record["Data"]) for record in records]
        assert all(block.endswith(b"\n") for block in blocks)
        found = [line for block in blocks for line in block[:-1].split(b"\n")]
        assert max(len(record["Data"]) for record in records) < 1 << 20
    else:
        found = [gzip.decompress(record.data) for record in oracle.user_records(server.url, "logs")]
    require_same(found, lines)


@pytest.mark.parametrize("key", ["spread", "source"])
def test_blocks_survive_throttling_failures_and_reshards(start_local, make_agent, logs, figure, key):
    server = start_local(
        "logs:4", "--fault=record:code=ProvisionedThroughputExceededException,rate=20%", "--fault=record:rate=5%"
    )
    kinesis = oracle.client(server.url)
    source = oracle.Source(1)
    agent = make_agent(logs / "*.log", server.url, "logs", compression="gzip", partition_key=key, linger="20ms")
    run = agent.start()
    lines = []
    for round_ in range(12):
        for _ in range(5):
            lines += written(source, 2_000)
            with open(logs / f"app-{round_ % 3}.log", "ab") as file:
                file.write(b"".join(line + b"\n" for line in lines[-2_000:]))
            time.sleep(0.05)
        kinesis.update_shard_count(
            StreamName="logs", TargetShardCount=[3, 5, 8, 4][round_ % 4], ScalingType="UNIFORM_SCALING"
        )
    until(lambda: len(list(lines_of(record for _, record in kinesis_records(server.url)))) >= len(lines), 30, lambda: run.log)
    assert run.terminate() == 0
    found = list(kinesis_records(server.url))
    require_same(lines_of(record for _, record in found), lines)
    figure(f"{len(lines)} lines in {len(found)} blocks through 12 reshards: lost 0, duplicated 0")


def test_blocks_come_out_of_the_spool_after_a_restart(start_local, make_agent, logs, figure):
    server = start_local("logs:4")
    port = server.url.rsplit(":", 1)[1]
    source, path = oracle.Source(1), logs / "app.log"
    agent = make_agent(path, server.url, "logs", compression="gzip", linger="20ms")
    oracle.Source(9).write(path, 100)
    run = agent.start()
    until(lambda: agent.checkpoints.get(path.stat().st_ino, 0) > 0, 10, "the first lines")
    server.stop()
    lines = written(source, 50_000)
    with open(path, "ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))
    run.wait_for("what cannot be delivered goes to the spool", 20)
    # Now and then one block is kept back to try the endpoint with; it is spooled when the agent stops.
    assert run.terminate() == 0
    assert agent.checkpoints[path.stat().st_ino] == path.stat().st_size
    # What lies in the spool is the only copy.
    path.unlink()
    server = start_local("logs:4", port=port)
    run = agent.start()
    run.wait_for("everything that was spooled is delivered", 30)
    assert run.terminate() == 0
    found = list(lines_of(record for _, record in kinesis_records(server.url)))
    require_same(found, lines)
    figure(f"{len(found)} lines out of the spool: lost 0, duplicated 0")


def test_open_blocks_of_many_shards_stay_within_the_memory(start_local, make_agent, logs, figure):
    server = start_local("logs:400")
    lines = written(oracle.Source(1), 500_000)
    (logs / "app.log").write_bytes(b"".join(line + b"\n" for line in lines))
    agent = make_agent(
        logs / "*.log", server.url, "logs", compression="gzip", partition_key="random", agent={"memory_limit": "64MiB"},
        linger="5s",
    )
    run = agent.once()
    assert run.process.returncode == 0, run.log
    figure(f"peak {run.peak / 2**20:.0f} MiB of 64 + 32")
    assert run.peak <= (64 + 32) << 20
    require_same(lines_of(record for _, record in kinesis_records(server.url)), lines)


def test_the_readme_s_lambda_function_gets_every_line(start_local, make_agent, logs):
    server = start_local("logs:2")
    lines = written(oracle.Source(1), 3_000)
    (logs / "app.log").write_bytes(b"".join(line + b"\n" for line in lines))
    assert make_agent(logs / "*.log", server.url, "logs", compression="gzip").once().process.returncode == 0
    readme = (ROOT / "README.md").read_text()
    code = re.search(r"\n((    .*\n)*    .*gzip\.decompress.*\n(    .*\n)*)", readme)[1]
    event = {
        "Records": [
            {"kinesis": {"data": base64.b64encode(record["Data"]).decode()}} for _, record in kinesis_records(server.url)
        ]
    }
    found = []
    exec(textwrap.dedent(code), {"base64": base64, "gzip": gzip, "event": event, "handle": found.append})
    require_same(found, lines)
