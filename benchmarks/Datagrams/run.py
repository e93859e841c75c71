"""UDP on loopback into Kinesis, beside rsyslog's imudp into /dev/null: CPU for a message, and what is lost.

python benchmarks/Datagrams/run.py [--rate N] [--pairs N]     (make bench)

The sender and the embedded Kinesis have one core, who receives has another. Ratios of one run mean something on any
machine; absolute figures do not.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("PENSTOCK_BINARY", ROOT / ".build/release/penstock"))
SIZE = 235
BUFFER = 8 << 20
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def udp(port):
    """The drops of the socket on a port, or None if there is none."""
    with open("/proc/net/udp", encoding="ascii") as table:
        for line in table.readlines()[1:]:
            fields = line.split()
            if int(fields[1].split(":")[1], 16) == port:
                return int(fields[-1]), int(fields[4].split(":")[1], 16)
    return None


def cpu(pid):
    fields = open(f"/proc/{pid}/stat", encoding="ascii").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Receiver:
    """A process on the second core that receives on a UDP port."""

    def __init__(self, command, port, cores):
        self.port = port
        self.process = subprocess.Popen(
            ["taskset", "-c", cores[1], *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=dict(os.environ, AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench"))
        self.cores = cores
        deadline = time.monotonic() + 15
        while udp(port) is None:
            if time.monotonic() > deadline or self.process.poll() is not None:
                sys.exit(f"{command[0]} does not listen on {port}")
            time.sleep(0.05)

    def take(self, program, count, rate):
        """CPU µs for each message that arrived, the share that was lost, and the rate at which they were sent."""
        drops, busy = udp(self.port)[0], cpu(self.process.pid)
        text = subprocess.check_output(
            ["taskset", "-c", self.cores[0], program, str(self.port), str(count), str(SIZE), str(rate)], text=True)
        sent, seconds = int(text.split()[0]), float(text.split()[1])
        # Until the queue is empty and nothing is left to do.
        before, deadline = -1.0, time.monotonic() + 10
        while time.monotonic() < deadline:
            now = cpu(self.process.pid)
            if udp(self.port)[1] == 0 and now == before:
                break
            before = now
            time.sleep(0.4)
        lost = udp(self.port)[0] - drops
        return (now - busy) / (sent - lost) * 1e6, lost / sent, sent / seconds

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def agent(folder, url, cores):
    port = free_port()
    config = folder / "penstock.toml"
    config.write_text(
        f'[agent]\nstate_dir = "{folder}/state"\nlog_level = "error"\n'
        f'[inputs.udp]\ntype = "syslog"\nlisten = ["udp://127.0.0.1:{port}"]\nreceive_buffer = {BUFFER}\n'
        f'[outputs.stream]\ntype = "kinesis"\nstream = "bench"\nregion = "us-east-1"\nendpoint = "{url}"\nrate_limit = 0\n')
    return Receiver([str(BINARY), "run", "--config", str(config)], port, cores)


def rsyslog(folder, cores):
    port = free_port()
    config = folder / "rsyslog.conf"
    config.write_text(
        f'global(workDirectory="{folder}")\n'
        'module(load="imudp" batchSize="256" threads="1")\n'
        f'input(type="imudp" address="127.0.0.1" port="{port}" rcvbufSize="{BUFFER}")\n'
        '*.* action(type="omfile" file="/dev/null")\n')
    return Receiver(["rsyslogd", "-n", "-f", str(config), "-i", str(folder / "rsyslog.pid")], port, cores)


@contextlib.contextmanager
def kinesis(cores):
    process = subprocess.Popen(
        ["taskset", "-c", cores[0], str(BINARY), "local", "--port", "0", "--stream", "bench:4", "--memory", "64MiB"],
        stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait()


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--rate", type=int, default=150_000, help="messages a second, for the CPU of each")
    options.add_argument("--seconds", type=float, default=2)
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--rates", type=int, nargs="*", default=[450_000, 350_000, 250_000])
    options = options.parse_args()
    if not shutil.which("rsyslogd"):
        sys.exit("there is no rsyslogd: apt-get install rsyslog")
    cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
    cores = [cores[0], cores[1] if len(cores) > 1 else cores[0]]
    with tempfile.TemporaryDirectory() as folder, kinesis(cores) as url, contextlib.ExitStack() as stack:
        folder = pathlib.Path(folder)
        program = str(folder / "send")
        compiler = os.environ.get("CC") or shutil.which("cc") or "clang"
        subprocess.check_call([compiler, "-O2", "-o", program, pathlib.Path(__file__).with_name("send.c")])
        receivers = {"penstock, into Kinesis": agent(folder, url, cores), "rsyslog, into /dev/null": rsyslog(folder, cores)}
        for receiver in receivers.values():
            stack.callback(receiver.stop)
        mine, theirs = receivers
        count = int(options.rate * options.seconds)
        for receiver in receivers.values():
            receiver.take(program, count // 10, options.rate)
        results = {name: [] for name in receivers}
        for _ in range(options.pairs):
            for name, receiver in receivers.items():
                results[name].append(receiver.take(program, count, options.rate))
        print(f"UDP, {SIZE} bytes, {options.rate} messages a second, medians of {options.pairs} interleaved runs\n")
        print(f"{'':30}{'µs/message':>12}{'lost':>8}{'sent/s':>10}{'to rsyslog':>12}")
        for name, runs in results.items():
            ratio = statistics.median(run[0] / base[0] for run, base in zip(runs, results[theirs]))
            print(f"{name:30}{statistics.median(run[0] for run in runs):12.3f}{max(run[1] for run in runs):8.2%}"
                  f"{statistics.median(run[2] for run in runs):10.0f}{ratio:12.2f}")
        for rate in options.rates:
            count = int(rate * options.seconds)
            _, lost, sent = receivers[theirs].take(program, count, rate)
            _, own, _ = receivers[mine].take(program, count, rate)
            print(f"at {sent:.0f} a second rsyslog loses {lost:.2%}, penstock {own:.2%}")
            if lost == 0:
                break


main()
