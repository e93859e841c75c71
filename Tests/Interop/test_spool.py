"""The spool: what cannot be delivered lies on the disk, survives what kills the agent, and comes back beside live lines."""

import json
import os
import re
import shutil
import statistics
import time
import urllib.parse

import oracle
import pytest
from conftest import until


def spool(agent):
    """Bytes of the spool's segments."""
    folder = agent.state / "spool" / "stream"
    try:
        return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.name.endswith(".spool"))
    except FileNotFoundError:
        return 0


def ledger(agent):
    """The first input's account, which adds up whenever it is read."""
    account = json.loads((agent.state / "ledger.json").read_text())["inputs"][0]
    for unit in ("records", "bytes"):
        places = ("delivered", "in_flight", "spooled", "dead_lettered", "dropped")
        total = sum(account[place][unit] for place in places)
        assert account["read"][unit] + account["carried_over"][unit] == total, account
        assert all(account[place][unit] >= 0 for place in places), account
    return account


def settled(agent, path):
    return agent.checkpoints.get(path.stat().st_ino, 0)


@pytest.fixture
def outage(start_local, make_agent, logs):
    """An agent whose endpoint was there for a moment and is gone."""

    def start(**output):
        first = start_local("logs:4")
        port = urllib.parse.urlsplit(first.url).port
        agent = make_agent(logs / "app.log", first.url, "logs", **output)
        warm = oracle.Source(9)
        warm.write(logs / "app.log", 100)
        run = agent.start()
        until(lambda: settled(agent, logs / "app.log") > 0, 10, "the first lines")
        first.stop()
        return agent, run, lambda: start_local("logs:4", port=port)

    return start


def test_an_outage_goes_to_the_spool_and_comes_back_with_nothing_lost_or_twice(outage, logs, figure):
    agent, run, restore = outage()
    source = oracle.Source(1)
    path = logs / "app.log"
    for _ in range(20):
        source.write(path, 5_000)
        time.sleep(0.1)
        ledger(agent)
    until(lambda: path.stat().st_size - settled(agent, path) < 3 << 20, 20, "the spool to take what was read")
    spooled = spool(agent)
    assert spooled > 10 << 20
    until(lambda: ledger(agent)["spooled"]["records"] > 50_000, 5, "the ledger to know")
    server = restore()
    run.wait_for("everything that was spooled is delivered", timeout=30)
    assert run.terminate() == 0, run.log
    verdict = oracle.verify(server.url, "logs", [source])
    figure(f"{verdict}; {spooled / 1e6:.1f} MB were spooled, {spool(agent)} bytes are left")
    verdict.require_exact()
    assert spool(agent) == 0
    account = ledger(agent)
    assert account["delivered"] == account["read"] == {"records": 100_100, "bytes": path.stat().st_size}


def test_what_was_spooled_survives_kills_and_the_loss_of_the_file_it_came_from(outage, logs, figure):
    """Once a checkpoint has passed it, the spool is its only copy: the file may be gone."""
    agent, run, restore = outage()
    source = oracle.Source(1)
    path = logs / "app.log"
    for _ in range(4):
        source.write(path, 20_000)
        until(lambda: path.stat().st_size - settled(agent, path) < 3 << 20, 20, "the spool to take what was read")
        run.kill()
        run = agent.start()
    # A stop in an outage leaves nothing in memory: all of it is spooled.
    run.wait_for("Kinesis cannot be reached")
    time.sleep(0.5)  # it reads to the end
    began = time.monotonic()
    assert run.terminate() == 0, run.log
    took = time.monotonic() - began
    assert settled(agent, path) == path.stat().st_size, run.log
    path.unlink()
    server = restore()
    last = agent.once()
    assert last.process.returncode == 0, last.log
    verdict = oracle.verify(server.url, "logs", [source])
    figure(f"{verdict}; the stop took {took:.2f} s")
    verdict.require_nothing_lost()
    assert spool(agent) == 0


@pytest.mark.parametrize("sync", ["always", "50ms"])
def test_with_always_a_kill_loses_nothing_that_was_synced_though_it_was_never_sent(
    start_local, make_agent, logs, figure, sync
):
    """`when = "always"`: copies are on the disk before Kinesis has them. The endpoint hangs, the file goes, the agent dies."""
    server = start_local("logs:4")
    source = oracle.Source(1)
    path = logs / "app.log"
    agent = make_agent(
        path, server.url, "logs", spool={"when": "always", "sync": sync}, timeout="30s", linger="10ms",
    )
    source.write(path, 1000)
    run = agent.start()
    until(lambda: settled(agent, path) == path.stat().st_size, 10, "the first lines")
    server.process.send_signal(19)  # it hangs: no failure is seen yet
    source.write(path, 5000)
    until(lambda: settled(agent, path) == path.stat().st_size, 10, "the copies")
    run.kill()
    path.unlink()
    server.process.send_signal(18)
    last = agent.once()
    assert last.process.returncode == 0, last.log
    verdict = oracle.verify(server.url, "logs", [source])
    figure(verdict)
    verdict.require_nothing_lost()
    # What hung may have been stored after all; what was acknowledged may be newer than the spool's position.
    assert verdict.duplicated <= 6000


def test_with_always_and_no_failure_nothing_comes_twice_and_the_spool_is_empty_again(
    start_local, make_agent, logs, figure
):
    server = start_local("logs:4")
    source = oracle.Source(1)
    agent = make_agent(logs / "app.log", server.url, "logs", spool={"when": "always"})
    run = agent.start()
    for _ in range(20):
        source.write(logs / "app.log", 5000)
        time.sleep(0.1)
    until(lambda: settled(agent, logs / "app.log") == (logs / "app.log").stat().st_size, 10, "the last line")
    assert run.terminate() == 0, run.log
    assert "everything that was read is delivered" in run.log
    verdict = oracle.verify(server.url, "logs", [source])
    figure(verdict)
    verdict.require_exact()
    assert spool(agent) == 0


def test_a_full_spool_makes_files_wait_and_no_byte_more_is_written(outage, logs, figure):
    agent, run, restore = outage(spool={"max_size": "16MiB", "keep_free": "0MiB"})
    source = oracle.Source(1)
    path = logs / "app.log"
    most = 0
    for _ in range(30):
        source.write(path, 10_000)
        time.sleep(0.05)
        most = max(most, spool(agent))
    run.wait_for("the spool is full")
    assert most <= 16 << 20
    waiting = path.stat().st_size - settled(agent, path)
    assert waiting > 30 << 20
    server = restore()
    until(lambda: settled(agent, path) == path.stat().st_size, 60, "the file")
    assert run.terminate() == 0, run.log
    verdict = oracle.verify(server.url, "logs", [source])
    figure(f"{verdict}; spool {most / 1e6:.1f} MB at most, {waiting / 1e6:.1f} MB waited in the file; peak {run.peak >> 20} MiB")
    verdict.require_exact()


def test_the_spool_command_lists_verifies_exports_and_repairs(outage, penstock, logs, figure):
    agent, run, restore = outage()
    source = oracle.Source(1)
    path = logs / "app.log"
    source.write(path, 400_000)
    # What is read, a stop spools to the last line.
    until(lambda: ledger(agent)["read"]["records"] == 400_100, 30, "everything to be read")
    # While the agent runs: looking changes nothing.
    assert penstock("spool", "list", "-c", agent.config).returncode == 0
    assert penstock("spool", "verify", "-c", agent.config).returncode == 0
    refused = penstock("spool", "repair", "-c", agent.config)
    assert refused.returncode == 73 and f"process {run.pid}" in refused.stderr.decode()
    run.wait_for("Kinesis cannot be reached")
    assert run.terminate() == 0, run.log

    def segments():
        return [json.loads(line) for line in penstock("spool", "list", "--json", "-c", agent.config).stdout.splitlines()]

    listed = segments()
    assert len(listed) >= 2 and all(segment["closed"] for segment in listed)
    assert sum(segment["inputs"][0]["records"] for segment in listed) == 400_000
    exported = penstock("spool", "export", "-c", agent.config, timeout=60).stdout.splitlines()
    assert sorted(oracle.parse(line)[1] for line in exported) == list(range(400_000))
    few = penstock("spool", "export", "--limit", 7, "--format", "json", "-c", agent.config).stdout.splitlines()
    assert len(few) == 7 and "data" in json.loads(few[0])

    # The first segment's header and one record in its middle: the next start sets it aside, the repair saves the rest.
    victim = listed[0]["segment"]
    with open(victim, "r+b") as file:
        file.write(b"x")
        file.seek(20 << 20)
        file.write(b"torn" * 16)
    verified = penstock("spool", "verify", "-c", agent.config, timeout=60)
    assert verified.returncode == 65 and victim in verified.stdout.decode()
    server = restore()
    last = agent.once()
    assert last.process.returncode == 0, last.log
    assert "set aside" in last.log
    lost = len(oracle.verify(server.url, "logs", [source]).lost)
    assert lost > 100_000
    repaired = penstock("spool", "repair", "-c", agent.config, timeout=60).stdout.decode()
    assert re.search(r"\b[1-9]\d* records saved", repaired), repaired
    assert penstock("spool", "repair", "-c", agent.config).stdout == b"nothing to repair\n"
    last = agent.once()
    assert last.process.returncode == 0, last.log
    verdict = oracle.verify(server.url, "logs", [source])
    figure(f"{repaired.strip().rsplit('/', 1)[1]}; {verdict}")
    # Two aggregates at most were hit by 64 bytes.
    assert 0 < len(verdict.lost) <= 2 * 260 and verdict.duplicated == 0


@pytest.mark.alone
def test_a_long_outage_drains_beside_live_lines_which_come_at_once(start_local, make_agent, logs, figure):
    """Scaled: 250 MB over 16 shards here, 4 GB over 32 with PENSTOCK_SOAK (the embedded Kinesis holds them in memory). The agent paces itself by the shards' limits."""
    shards, bytes_to_spool = (32, 4 << 30) if "PENSTOCK_SOAK" in os.environ else (16, 250 << 20)
    # All of it, to be counted.
    kept = f"--memory={2 * bytes_to_spool >> 20}MiB"
    first = start_local(f"logs:{shards}", kept)
    port = urllib.parse.urlsplit(first.url).port
    linger, memory = 0.1, 128 << 20
    agent = make_agent(
        [logs / "bulk.log", logs / "live.log"], first.url, "logs", rate_limit=100, agent={"memory_limit": "128MiB"},
        spool={"max_size": "12GiB", "keep_free": "0MiB"},
    )
    oracle.Source(9).write(logs / "live.log", 100)
    run = agent.start()
    until(lambda: settled(agent, logs / "live.log") > 0, 10, "the first lines")
    first.stop()
    bulk, path = oracle.Source(1), logs / "bulk.log"
    began = time.monotonic()
    while not path.exists() or path.stat().st_size < bytes_to_spool:
        bulk.write(path, 100_000)
    until(lambda: path.stat().st_size - settled(agent, path) < 3 << 20, 600, "the spool to take it")
    took_in = path.stat().st_size / (time.monotonic() - began)
    assert run.peak <= memory + (32 << 20)
    spooled = spool(agent)

    second = start_local(f"logs:{shards}", kept, port=port)
    run.wait_for("Kinesis answers again", timeout=30)
    began, live = time.time(), oracle.Source(2)
    # A quarter of the stream's rate, steadily, as long as the spool drains.
    lines_a_step = int(shards * (1 << 20) / 4 / 217 / 100)
    sent, next_step = [], time.monotonic()
    with open(logs / "live.log", "ab", buffering=0) as file:
        while "everything that was spooled is delivered" not in run.log:
            file.write(b"".join(live.lines(lines_a_step)))
            sent.append(time.time())
            next_step += 0.01
            time.sleep(max(0, next_step - time.monotonic()))
            assert time.time() - began < 600, run.log
    seconds = time.time() - began
    until(lambda: settled(agent, logs / "live.log") == (logs / "live.log").stat().st_size, 20, "the last live line")
    assert run.terminate() == 0, run.log

    kinesis = oracle.client(second.url)
    waits, live_bytes = {}, 0
    for shard in oracle.shards_of(kinesis, "logs"):
        for record in oracle.ShardReader(kinesis, "logs", shard).kinesis_records():
            first_line = oracle.LINE.search(record["Data"])
            if first_line and first_line[1] == b"0002":
                live_bytes += len(record["Data"]) + 1
                step = int(first_line[2]) // lines_a_step
                waits.setdefault(int(sent[step] - began), []).append(record["ApproximateArrivalTimestamp"].timestamp() - sent[step])
    # Of the quieter seconds: this machine may stand still for a moment again and again.
    p50, p99 = (
        statistics.quantiles((sorted(each)[int(len(each) * share)] for each in waits.values()), n=4)[0] for share in (0.5, 0.99)
    )
    left = shards * (1 << 20) * seconds - live_bytes
    verdict = oracle.verify(second.url, "logs", [bulk, live])
    figure(
        f"{spooled / 1e6:.0f} MB spooled at {took_in / 1e6:.0f} MB/s, drained in {seconds:.1f} s: {spooled / left:.2f} of what "
        f"live lines left of {shards} MiB/s; live p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms with a "
        f"linger of {linger * 1000:.0f} ms; peak {run.peak / (1 << 20):.0f} MiB of {memory >> 20} + 32; {verdict}"
    )
    verdict.require_exact()
    assert spooled >= 0.8 * left
    # The oldest line of an aggregate waits the longest: what is measured is no shorter than any line's wait.
    assert p99 <= 2 * linger
    assert run.peak <= memory + (32 << 20)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_a_spool_of_ten_gigabytes_delays_the_start_by_less_than_a_second(outage, penstock, logs, figure):
    """Real segments' heads and indices; what is between them is a hole, which no start reads."""
    agent, run, restore = outage(spool={"max_size": "20GiB", "keep_free": "0MiB"})
    path = logs / "app.log"
    oracle.Source(1).write(path, 400_000)
    until(lambda: path.stat().st_size - settled(agent, path) < 3 << 20, 30, "the spool to take what was read")
    run.wait_for("Kinesis cannot be reached")
    assert run.terminate() == 0, run.log
    folder = agent.state / "spool" / "stream"
    model = sorted(folder.glob("*.spool"))[0]
    size = model.stat().st_size
    assert size > 60 << 20
    head, tail = bytearray(model.read_bytes()[:64]), model.read_bytes()[-16384:]
    made = 0
    for number in range(1000, 1000 + (10 << 30) // size + 1):
        head[16:24] = number.to_bytes(8, "little")
        head[60:64] = crc32c(head[:60]).to_bytes(4, "little")
        with open(folder / f"{number:016}.spool", "wb") as file:
            file.write(head)
            file.seek(size - len(tail))
            file.write(tail)
        made += size
    began = time.monotonic()
    run = agent.start()
    run.wait_for("penstock runs", timeout=20)
    started = time.monotonic() - began
    assert made >= 10 << 30 and "records of an earlier run wait" in run.log
    run.wait_for("Kinesis cannot be reached")
    stopped = time.monotonic()
    assert run.terminate() == 0, run.log
    stopped = time.monotonic() - stopped
    figure(f"{made / (1 << 30):.1f} GiB in {(10 << 30) // size + 1} segments: started in {started * 1000:.0f} ms, stopped in {stopped:.1f} s")
    assert started < 1.0


def test_a_file_whose_lines_lie_in_the_spool_is_not_all_delivered(outage, penstock, logs):
    agent, run, restore = outage()
    path = logs / "app.log"
    oracle.Source(1).write(path, 20_000)
    run.wait_for("what cannot be delivered goes to the spool")
    # All of it is more than the ring holds; what is read, a stop spools to the last line.
    until(lambda: ledger(agent)["read"]["records"] == 20_100, 20, "everything to be read")
    assert run.terminate() == 0
    assert settled(agent, path) == path.stat().st_size
    asked = penstock("files", "--config", agent.config, "--json", path)
    assert asked.returncode == 1
    file = json.loads(asked.stdout)
    assert not file["allDelivered"] and file["delivered"] < 30_000 < file["size"], file
    restore()
    assert agent.once().process.returncode == 0
    assert penstock("files", "--config", agent.config, "--quiet", path).returncode == 0


def test_a_copy_whose_lines_lie_in_the_spool_is_not_all_delivered(start_local, make_agent, penstock, logs):
    server = start_local("logs:4")
    path = logs / "app.log"
    agent = make_agent(path, server.url, "logs")
    source = oracle.Source(1)
    source.write(path, 100)
    run = agent.start()
    until(lambda: path.stat().st_size in agent.checkpoints.values(), 10, "the first lines")
    server.stop()
    source.write(path, 20_000)
    run.wait_for("what cannot be delivered goes to the spool")
    # A stop spools the last of it.
    assert run.terminate() == 0
    run = agent.start()
    run.wait_for("tailing file")
    shutil.copyfile(path, logs / "app.log.1")
    os.truncate(path, 0)
    source.write(path, 10)
    run.wait_for("finishing its copy")
    until(lambda: (logs / "app.log.1").stat().st_ino in agent.checkpoints, 5, "the checkpoint")
    run.kill()
    assert penstock("files", "--config", agent.config, "--quiet", logs / "app.log.1").returncode == 1
