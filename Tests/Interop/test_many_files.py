"""Very many tailed files, few of them active: what they cost while nothing happens, and how soon a new line is delivered.

10,000 files; 100,000 with PENSTOCK_SOAK set (`make soak`).
"""

import os
import threading
import time

import oracle
import pytest
from conftest import until

pytestmark = pytest.mark.alone

SOAK = bool(os.environ.get("PENSTOCK_SOAK"))
FILES = 100_000 if SOAK else 10_000
ACTIVE = 100
MEBIBYTE = 1 << 20
LINGER = 0.1


def path_of(logs, number):
    # As many in a folder as a machine with many containers has: some, and all in one.
    folder = logs / ("flat" if number % 2 else f"pod-{number % 100:03}")
    return folder / f"application-{number:06}.log"


def fill(logs):
    for number in range(FILES):
        path = path_of(logs, number)
        if number < 200:
            path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"the first line of file %d\n" % number)


def cpu(pid):
    fields = open(f"/proc/{pid}/stat", encoding="ascii").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Arrivals:
    """When each line of a stream arrived, by a thread that reads all shards again and again."""

    def __init__(self, server):
        kinesis = oracle.client(server.url)
        self._readers = [oracle.ShardReader(kinesis, "logs", shard) for shard in oracle.shards_of(kinesis, "logs")]
        self.at = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stopping.is_set():
            for reader in self._readers:
                for record in reader.user_records():
                    self.at.setdefault(bytes(record.data), []).append(record.arrival)
            time.sleep(0.02)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join(30)


def test_very_many_files_cost_little_and_new_lines_arrive_soon(start_local, make_agent, logs, chance, figure):
    server = start_local("logs:4")
    fill(logs)
    agent = make_agent(
        [logs / "flat" / "*.log", logs / "pod-*" / "*.log"], server.url, "logs", linger=f"{int(LINGER * 1000)}ms",
    )
    began = time.monotonic()
    run = agent.start()
    with Arrivals(server) as arrivals:
        until(lambda: len(arrivals.at) >= FILES, 300, lambda: f"{FILES} lines, {len(arrivals.at)} arrived", every=0.1)
        loaded = time.monotonic() - began
        until(lambda: len(agent.checkpoints) == FILES, 60, "the state file to name all", every=0.5)
        time.sleep(3)

        # Idle: over several of the searches that reconcile.
        before, start = cpu(run.pid), time.monotonic()
        time.sleep(60 if SOAK else 12)
        idle = (cpu(run.pid) - before) / (time.monotonic() - start)

        # Active: some files, old and new, a line each time.
        names = chance.sample(range(FILES), ACTIVE - 10) + list(range(FILES, FILES + 10))
        written, turns = {}, []
        before, start = cpu(run.pid), time.monotonic()
        for turn in range(20 if SOAK else 8):
            for name in names:
                line = b"turn %d of file %d" % (turn, name)
                with open(path_of(logs, name), "ab") as file:
                    file.write(line + b"\n")
                written[line] = time.time()
            turns.append(list(written)[-len(names):])
            time.sleep(chance.uniform(0.2, 1.0))
        active = (cpu(run.pid) - before) / (time.monotonic() - start)
        until(lambda: written.keys() <= arrivals.at.keys(), 20, "all new lines")
        assert all(len(times) == 1 for times in arrivals.at.values()), "each line once"
        delays = {line: arrivals.at[line][0] - moment for line, moment in written.items()}
        longest = sorted(max(delays[line] for line in turn) for turn in turns)
        delays = sorted(delays.values())
    descriptors = len(os.listdir(f"/proc/{run.pid}/fd"))
    assert run.terminate() == 0, run.log

    # The next start knows them all.
    again = agent.start()
    until(lambda: again.log.count("tailing file") > 0, 60, "the next start")
    began = time.monotonic()
    line = b"after the restart"
    with open(path_of(logs, 1), "ab") as file:
        file.write(line + b"\n")
    with Arrivals(server) as arrivals:
        until(lambda: line in arrivals.at, 120, "a line after the restart", every=0.1)
        restarted = time.monotonic() - began
        time.sleep(2)
        assert len(arrivals.at) == FILES + len(written) + 1
        assert all(len(times) == 1 for times in arrivals.at.values())
    assert again.terminate() == 0, again.log
    figure(
        f"{FILES} files: all read in {loaded:.1f} s, idle CPU {idle * 100:.2f} % of a core, with {len(names)} active "
        f"{active * 100:.2f} %, peak {run.peak / MEBIBYTE:.1f} MiB (again {again.peak / MEBIBYTE:.1f}), "
        f"{descriptors} descriptors, delays median {delays[len(delays) // 2] * 1000:.0f} ms, most "
        f"{delays[-1] * 1000:.0f} ms; a line {restarted:.1f} s after a restart"
    )
    assert idle <= 0.01
    assert max(run.peak, again.peak) <= 96 * MEBIBYTE
    # This machine may stand still in a turn or two.
    assert longest[-3] <= LINGER + 0.25 and longest[-1] <= 3
    assert descriptors < 4096 + 100
