"""UDP on loopback → Kinesis, beside the least that receives as much and ships as much, and beside rsyslog into /dev/null.

Senders and sinks have one core, who receives has another: so many messages a second, well below what any of them can take.
"""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import inputs
from measure import Group, Ratio, Sample
from processes import Agent, Sink, cpu, least, memory, pinned, quiet, until

SIZE = 235
BUFFER = 8 << 20
# What an aggregate has for each message besides its bytes.
FRAME = 10
RATE = 150_000
MINE, THEIRS, TAKEN, SHIPPED = "UDP, 235 bytes", "rsyslog, UDP to /dev/null", "C floor, UDP", "C floor, 235-byte lines"


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def udp(port):
    """The drops of the socket on a port, and the bytes that wait in it; None if there is none."""
    for line in pathlib.Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port:
            return int(fields[-1]), int(fields[4].split(":")[1], 16)
    return None


def gathered(programs):
    """Who receives gathers as long as the agent does by default."""
    port = free_port()
    return port, [programs["udpfloor"], str(port), str(BUFFER), "1000"]


def rsyslog(folder):
    port = free_port()
    config = folder / "rsyslog.conf"
    config.write_text(
        f'global(workDirectory="{folder}")\n'
        'module(load="imudp" batchSize="256" threads="1")\n'
        f'input(type="imudp" address="127.0.0.1" port="{port}" rcvbufSize="{BUFFER}")\n'
        '*.* action(type="omfile" file="/dev/null")\n')
    return port, ["rsyslogd", "-n", "-f", str(config), "-i", str(folder / "rsyslog.pid")]


class Receiver:
    """A process that receives on a UDP port."""

    def __init__(self, pid, port, programs, cores, sink=None):
        self.pid, self.port, self.sink = pid, port, sink
        self.sender = pinned([programs["send"], str(port)], cores[0])
        until(lambda: udp(port), f"a socket on port {port}")

    def take(self, rate=RATE, seconds=1.5, *options):
        """What the messages took that arrived, with the share that was lost."""
        drops, stored, busy = udp(self.port)[0], self.stored(), cpu(self.pid)
        words = subprocess.check_output([*self.sender, str(int(rate * seconds)), str(SIZE), str(rate), *options], text=True).split()
        until(lambda: udp(self.port)[1] == 0, "an empty queue")
        now = quiet(self.pid)
        sent = int(words[0])
        arrived = sent - (udp(self.port)[0] - drops)
        if self.sink:
            # What was received and then dropped for want of room has not arrived either.
            arrived = min(arrived, self.stored() - stored)
        return Sample(now - busy, arrived * SIZE, arrived, float(words[1]), memory(self.pid, "VmHWM"), 1 - arrived / sent)

    def stored(self):
        """Messages in Kinesis, from its bytes; what an aggregate has besides is not a message's worth."""
        return self.sink.figures["bytes"] // (SIZE + FRAME) if self.sink else 0


@contextlib.contextmanager
def running(command, core):
    process = subprocess.Popen(pinned(command, core), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def group(stack, programs, folder, count=200_000):
    """Sets everything up; what has to end is left to `stack`."""
    if not shutil.which("rsyslogd"):
        sys.exit("there is no rsyslogd: apt-get install rsyslog")
    cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
    cores = [cores[0], cores[-1]]
    lines = inputs.write(folder / "messages.log", inputs.sized_lines(count, SIZE + 1))
    sink = stack.enter_context(Sink(programs, 4, cores[0]))
    port = free_port()
    agent = Agent(
        folder, {"udp": f'type = "syslog"\nlisten = ["udp://127.0.0.1:{port}"]\nreceive_buffer = {BUFFER}'}, sink.url)
    receivers = {MINE: Receiver(stack.enter_context(agent.running(cores[1])).pid, port, programs, cores, sink)}
    for name, (port, command) in {TAKEN: gathered(programs), THEIRS: rsyslog(folder)}.items():
        receivers[name] = Receiver(stack.enter_context(running(command, cores[1])).pid, port, programs, cores)
    for receiver in receivers.values():
        receiver.take(seconds=0.2)

    def shipped():
        return Sample(least(programs, lines, sink.url, core=cores[1]), count * SIZE, count, 0)

    things = {name: receiver.take for name, receiver in receivers.items()}
    things[SHIPPED] = shipped
    ratios = [
        Ratio(f"{MINE}: to UDP floor + C floor", MINE, [TAKEN, SHIPPED], 1.2),
        Ratio(f"{MINE}: to rsyslog", MINE, [THEIRS], 0.62, must=True),
    ]
    return Group(f"UDP, {SIZE} bytes, {RATE:,} messages a second", things, ratios)


def floods(group, rates=(900_000, 700_000, 550_000, 450_000, 350_000, 250_000), seconds=2):
    """What rsyslog and the agent lose at rates that rsyslog can hardly take."""
    for rate in rates:
        theirs, mine = (group.things[name](rate, seconds, "whole") for name in (THEIRS, MINE))
        sent = rate * seconds / theirs.seconds
        yield f"at {sent:,.0f} messages a second rsyslog loses {theirs.lost:.2%}, penstock {mine.lost:.2%}"
        if theirs.lost == 0:
            return
