"""The spool: what cannot be delivered lies on the disk, survives what kills the agent, and comes back beside live lines."""

import os
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
    until(lambda: path.stat().st_size - settled(agent, path) < 3 << 20, 20, "the spool to take what was read")
    spooled = spool(agent)
    assert spooled > 10 << 20
    server = restore()
    run.wait_for("everything that was spooled is delivered", timeout=30)
    assert run.terminate() == 0, run.log
    verdict = oracle.verify(server.url, "logs", [source])
    figure(f"{verdict}; {spooled / 1e6:.1f} MB were spooled, {spool(agent)} bytes are left")
    verdict.require_exact()
    assert spool(agent) == 0


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

