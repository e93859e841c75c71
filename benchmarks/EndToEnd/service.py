"""The agent as a service: how late lines are, what it takes when nothing comes, how soon it is there, what it allocates."""

import os
import signal
import statistics
import subprocess
import time
from dataclasses import dataclass

import datagrams
import inputs
from processes import Agent, Sink, cpu, file_input, memory, until

RATE = 10_000
LINGER = 100


@dataclass
class Point:
    """A figure beside what is wanted of it: at most so much."""

    name: str
    figure: float
    unit: str
    target: float | None = None


def latency(programs, folder, seconds=13):
    """From a line's write to the answer that its call got: lines come one by one, shards take what they take.

    Not of the first three seconds, which are printed by themselves: until then the pacer finds out what the stream takes.
    """
    lines = folder / "latency.log"
    lines.touch()
    with Sink(programs, 4) as sink, Agent(folder, {"app": file_input(lines)}, sink.url, "").running() as process:
        until(lambda: sink.figures["listed"], "the agent")
        before, began = cpu(process.pid), time.monotonic()
        subprocess.check_call([programs["feed"], "file", lines, str(RATE * seconds), "217", str(RATE)])
        until(lambda: sink.figures["lines"] >= RATE * seconds, "the last lines")
        busy = (cpu(process.pid) - before) / (time.monotonic() - began)
        found = sink.figures
    lines.unlink()
    return [
        Point("latency, 10,000 lines/s, 4 shards: p50", found["p50"], "ms", LINGER / 2 + 5),
        Point("  p99", found["p99"], "ms", LINGER + 15),
        Point("  p99.9", found["p99.9"], "ms"),
        Point("  longest", found["most"], "ms"),
        Point("  p50 of the first 3 seconds", found["start_p50"], "ms"),
        Point("  p99 of the first 3 seconds", found["start_p99"], "ms"),
        Point("  CPU meanwhile", busy * 100, "%"),
    ]


def everything(folder, port):
    """Inputs of every kind."""
    return {
        "app": file_input(folder / "*.log"),
        "udp": f'type = "syslog"\nlisten = ["udp://127.0.0.1:{port}"]',
        "unix": f'type = "socket"\nlisten = ["unix://{folder}/{port}.sock"]',
    }


def rest(programs, folder, seconds=20):
    """CPU and memory of an agent to which nothing ever came, and of one behind a burst that the endpoint did not take at once."""
    quiet, busy = folder / "quiet", folder / "busy"
    quiet.mkdir(), busy.mkdir()
    with (
        Sink(programs, 4) as sink,
        Agent(folder, everything(quiet, datagrams.free_port()), sink.url).running() as idle,
        Agent(folder, everything(busy, datagrams.free_port()), sink.url).running() as other,
    ):
        until(lambda: sink.figures["listed"], "the agents")
        time.sleep(0.5)
        # Its own: code comes and goes with what runs.
        fresh = memory(other.pid, "RssAnon")
        sink.process.send_signal(signal.SIGSTOP)
        inputs.write(busy / "burst.log", inputs.sized_lines(1_000_000, 217))
        time.sleep(2)
        sink.process.send_signal(signal.SIGCONT)
        until(lambda: sink.figures["bytes"] > 216_000_000, "the burst")
        time.sleep(2)
        took = [cpu(process.pid) for process in (idle, other)]
        time.sleep(seconds)
        shares = [(cpu(process.pid) - before) / seconds * 100 for process, before in zip((idle, other), took)]
        peak, kept, resident = memory(other.pid, "VmHWM"), memory(other.pid, "RssAnon"), memory(idle.pid)
    return [
        Point("idle: CPU", shares[0], "%", 0.1),
        Point("  resident", resident / 1024, "MiB", 24),
        Point("behind a burst of 217 MB: CPU", shares[1], "%", 0.1),
        Point("  resident at most", peak / 1024, "MiB"),
        Point("  more than before the burst", (kept - fresh) / 1024, "MiB"),
    ]


def start(programs, folder, times=7):
    """From exec to a bound socket and a shard map, and to the answer of a first call, its line without linger."""
    place = folder / "start"
    place.mkdir()
    inputs.write(place / "first.log", ["first\n"])
    ready, delivered = [], []
    with Sink(programs, 4) as sink:
        for _ in range(times):
            port = datagrams.free_port()
            tables = everything(place, port)
            tables["app"] += 'start_at = "beginning"\n'
            agent = Agent(folder, tables, sink.url, 'linger = "1ms"')
            began = time.monotonic()
            with agent.running():
                until(lambda: datagrams.udp(port), "its socket", every=0.001)
                bound = time.monotonic()
                until(lambda: sink.figures["put"] > began, "its first call")
                ready.append(max(bound, sink.figures["listed"]) - began)
                delivered.append(sink.figures["put"] - began)
    return [
        Point("start: to a bound socket and a shard map", statistics.median(ready) * 1e3, "ms", 50),
        Point("  to the first delivery", statistics.median(delivered) * 1e3, "ms"),
    ]


def allocations(programs, folder, size=40_000_000):
    """What four times the records in the same bytes allocate more, and what a call costs, on the lane."""
    counts, lines_of, sent = [], [], []
    for width in (217, 54):
        lines = inputs.write(folder / "allocations.log", inputs.sized_lines(size // width, width))
        report = folder / "allocations"
        with Sink(programs, 4) as sink:
            Agent(folder, {"app": file_input(lines)}, sink.url).once(
                LD_PRELOAD=programs["liballocations.so"], ALLOCATIONS=str(report))
            sent.append(sink.figures)
        names = (line.rsplit(" ", 1) for line in report.read_text().splitlines())
        counts.append(sum(int(count) for name, count in names if name == "penstock-lane"))
        lines_of.append(size // width)
        os.unlink(lines)
    # Short lines make more aggregates of the same bytes, and each of those costs some.
    expected = counts[0] * sent[1]["records"] / sent[0]["records"]
    more = max(0, counts[1] - expected) / (lines_of[1] - lines_of[0])
    return [
        Point("allocations on the lane: more for each further line", more, "", 0),
        Point("  for a call of 1 MiB", counts[0] / sent[0]["calls"], ""),
    ]


PARTS = [latency, rest, start, allocations]
