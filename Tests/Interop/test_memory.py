"""Memory stays within memory_limit + 32 MiB with the endpoint stopped while files are read at full speed. Where the machine
lets us, a cgroup enforces it: who takes more is killed.
"""

import contextlib
import os
import pathlib
import random
import signal
import time

import oracle
import pytest
from conftest import environment, until

pytestmark = pytest.mark.alone

MIB = 1 << 20
# Seconds for which the endpoint is stopped.
OUTAGE = 600 if os.environ.get("PENSTOCK_SOAK") else 10


@contextlib.contextmanager
def most_memory(run, size):
    """Lets the kernel hold a process to so many bytes; false where it cannot."""
    folder = pathlib.Path(f"/sys/fs/cgroup/memory/penstock-{run.pid}")
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(size))
        (folder / "cgroup.procs").write_text(str(run.pid))
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        yield False
        return
    try:
        yield True
    finally:
        run.kill()
        until(lambda: not (folder / "cgroup.procs").read_text().strip(), 5, "the cgroup to be empty")
        folder.rmdir()


@pytest.mark.parametrize("spool", ["256MiB", "0B"])
@pytest.mark.parametrize("wire", ["cbor", "json"])
def test_a_stopped_endpoint_costs_no_more_memory_than_was_allowed(start_local, make_agent, logs, figure, spool, wire):
    """Calls hang, files are read at full speed: what waits is bounded, in memory and on disk."""
    server = start_local("logs:8", "--memory=2GiB")
    sources = [oracle.Source(number) for number in range(8)]
    for source in sources:
        source.write(logs / f"{source.number}.log", 200_000 if spool != "0B" else 100_000)
    agent = make_agent(
        logs / "*.log", server.url, "logs", agent={"memory_limit": "64MiB"}, timeout="2s", wire=wire,
        spool={"max_size": spool, "keep_free": "0B", "sync": "50ms"},
    )
    run = agent.start()
    with most_memory(run, (64 + 32) * MIB) as is_enforced:
        until(lambda: "tailing file" in run.log, 5, "the files")
        time.sleep(0.3)
        server.process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(OUTAGE)
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert run.process.poll() is None, run.log
        sizes = {path.stat().st_ino: path.stat().st_size for path in logs.iterdir()}
        until(lambda: agent.checkpoints.items() >= sizes.items(), 60, "everything to settle")
        if spool != "0B":
            run.wait_for("everything that was spooled is delivered", 60)
        assert run.terminate() == 0, run.log
        peak = run.peak
    figure(f"{wire}, spool {spool}: peak {peak / MIB:.0f} MiB of 64 + 32 ({'enforced' if is_enforced else 'measured'})")
    assert peak <= (64 + 32) * MIB
    oracle.verify(server.url, "logs", sources).require_nothing_lost()


@pytest.mark.parametrize("stopped", [0, 8])
def test_by_key_over_ten_thousand_shards_memory_stays_within_its_limit(
    start_local, make_agent, logs, chance, figure, penstock, stopped
):
    """Every key another, so that every shard has an aggregate open; with the endpoint stopped for some seconds, too."""
    server = start_local("logs:10000", "--memory=1GiB")
    dice = random.Random(chance.random())
    path = logs / "app.log"
    count = 300_000
    with open(path, "wb") as file:
        file.writelines(b'{"device":"d%08d","text":"%s"}\n' % (dice.randrange(10**8), b"x" * 200) for _ in range(count))
    agent = make_agent(
        path, server.url, "logs", agent={"memory_limit": "64MiB"}, partition_key="json:/device", linger="1s", timeout="2s",
    )
    run = agent.start()
    with most_memory(run, (64 + 32) * MIB) as is_enforced:
        if stopped:
            until(lambda: any(agent.checkpoints.values()), 30, "the first lines")
            server.process.send_signal(signal.SIGSTOP)
            time.sleep(stopped)
            server.process.send_signal(signal.SIGCONT)
        until(lambda: run.process.poll() is not None or path.stat().st_size in agent.checkpoints.values(), 120, "everything to settle")
        assert run.process.poll() is None, run.log
        if stopped:
            run.wait_for("everything that was spooled is delivered", 60)
        assert run.terminate() == 0, run.log
    figure(f"10,000 shards by key, stopped for {stopped} s: peak {run.peak / MIB:.0f} MiB of 64 + 32 ({'enforced' if is_enforced else 'measured'})")
    assert run.peak <= (64 + 32) * MIB
    read = penstock("read", "logs", "--endpoint", server.url, timeout=120, env=environment())
    assert read.returncode == 0, read.stderr
    # Calls that were cut off are sent again.
    arrived, written = read.stdout.splitlines(), path.read_bytes().splitlines()
    oracle.require(set(arrived) == set(written), f"{len(set(written) - set(arrived))} of {count} lines are lost")
    assert stopped or len(arrived) == len(written)


@pytest.mark.parametrize("wire", ["cbor", "json"])
def test_what_a_burst_has_needed_goes_back_to_the_system(start_local, make_agent, logs, figure, wire):
    server = start_local("logs:4", "--memory=1GiB")
    source, path = oracle.Source(1), logs / "app.log"
    agent = make_agent(path, server.url, "logs", wire=wire)
    run = agent.start()
    source.write(path, 1)
    until(lambda: path.stat().st_size in agent.checkpoints.values(), 20, "the first line")

    def held():
        """Bytes of its own that are in memory."""
        [line] = [line for line in pathlib.Path(f"/proc/{run.pid}/status").read_text().splitlines() if "RssAnon" in line]
        return int(line.split()[1]) << 10

    before, most = held(), 0
    # What is read meanwhile waits, and goes all at once.
    os.kill(server.process.pid, signal.SIGSTOP)
    for _ in range(30):
        source.write(path, 20_000)
    os.kill(server.process.pid, signal.SIGCONT)

    def is_delivered():
        nonlocal most
        most = max(most, held())
        return path.stat().st_size in agent.checkpoints.values()

    until(is_delivered, 60, "the burst", every=0.01)

    def is_given_back():
        # A little comes all the time.
        source.write(path, 1)
        return held() < before + 6 * MIB

    until(is_given_back, 15, lambda: f"memory to be given back: {held() >> 20} MiB, before {before >> 20}", every=0.5)
    figure(f"{before / MIB:.1f} MiB before a burst, {most / MIB:.1f} in it, {held() / MIB:.1f} behind it")
    # As much as calls in flight carry: else nothing would have been given back.
    assert most > before + 8 * MIB
    assert run.terminate() == 0, run.log
