"""A million real-looking lines through the agent into the embedded Kinesis, read back by AWS's own tools."""

import time

import oracle
import pytest

pytestmark = pytest.mark.alone

MEBIBYTE = 1 << 20


def run_and_verify(agent, server, stream, sources, figure, timeout=120):
    run = agent.once(timeout=timeout)
    assert run.process.returncode == 0, run.log
    began = time.monotonic()
    verdict = oracle.verify(server.url, stream, sources)
    figure(
        f"{verdict}; {verdict.aggregates} aggregates; agent {run.seconds:.2f} s, CPU {run.cpu:.2f} s, peak "
        f"{run.peak / MEBIBYTE:.1f} MiB; verified in {time.monotonic() - began:.1f} s"
    )
    return run, verdict


def test_a_million_lines_arrive_once_each_whole_and_in_place(start_local, make_agent, logs, figure):
    server = start_local("logs:4", "--memory=1GiB")
    sources = [oracle.Source(number) for number in range(4)]
    for source in sources:
        source.write(logs / f"app-{source.number}.log", 250_000)
    size = sum(file.stat().st_size for file in logs.iterdir())
    assert 200 < size / 1_000_000 < 235, "lines should be as long as real ones"
    agent = make_agent(logs / "*.log", server.url, "logs")
    run, verdict = run_and_verify(agent, server, "logs", sources, figure)
    verdict.require_exact()
    assert verdict.written == 1_000_000
    # Lines went in aggregates, full ones, and every shard got its part.
    assert verdict.kinesis_records < size / 40_000
    assert all(tally.kinesis_records > verdict.kinesis_records / 8 for tally in verdict.shards)
    assert 0 < run.peak < 64 * MEBIBYTE
    # Run again, it finds nothing to do.
    again = agent.once()
    assert again.process.returncode == 0 and "records=0" in again.log, again.log


def test_with_partition_key_source_and_one_call_in_flight_each_file_keeps_its_order(
    start_local, make_agent, logs, figure
):
    server = start_local("logs:4", "--memory=1GiB")
    sources = [oracle.Source(number) for number in range(8)]
    for source in sources:
        source.write(logs / f"app-{source.number}.log", 25_000)
    agent = make_agent(logs / "*.log", server.url, "logs", partition_key="source", max_in_flight=1)
    _, verdict = run_and_verify(agent, server, "logs", sources, figure)
    verdict.require_exact()
    assert verdict.out_of_order == 0
    assert verdict.scattered == 0, "a file's lines are all in one shard"
    keys = set().union(*(tally.partition_keys for tally in verdict.shards))
    assert keys == {str(path) for path in logs.iterdir()}


@pytest.mark.parametrize("key", ["random", "host", "=customer-7", "=日本"])
def test_every_way_of_placing_records_puts_each_in_its_shard(start_local, make_agent, logs, figure, key):
    server = start_local("logs:4")
    sources = [oracle.Source(number) for number in range(2)]
    for source in sources:
        source.write(logs / f"app-{source.number}.log", 25_000)
    agent = make_agent(logs / "*.log", server.url, "logs", partition_key=key)
    _, verdict = run_and_verify(agent, server, "logs", sources, figure)
    verdict.require_exact()
    used = [tally for tally in verdict.shards if tally.lines]
    if key == "random":
        assert len(used) == 4
        assert all(len(tally.lines) > 10_000 for tally in used), "each shard gets about a quarter"
    else:
        assert len(used) == 1, "one key is one shard"
        if key.startswith("="):
            assert used[0].partition_keys == {key[1:]}


def test_without_aggregation_every_line_is_a_record_of_its_own(start_local, make_agent, logs, figure):
    server = start_local("logs:4")
    source = oracle.Source(0)
    source.write(logs / "app.log", 20_000)
    agent = make_agent(logs / "*.log", server.url, "logs", aggregate=False)
    _, verdict = run_and_verify(agent, server, "logs", [source], figure)
    verdict.require_exact()
    assert (verdict.kinesis_records, verdict.aggregates) == (20_000, 0)
