"""What a measurement starts: sinks, the embedded Kinesis, agents, the C floors; and what each of them has taken."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("PENSTOCK_BINARY", ROOT / ".build/release/penstock"))
STREAM = "bench"
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}


def cpu(pid):
    """The CPU seconds of a process, to the nanosecond: the kernel's clock of it (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


def memory(pid, field="VmRSS"):
    """KiB that are resident, or VmHWM: that were at most."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    sys.exit(f"process {pid} has ended")


def until(condition, what, timeout=30, every=0.02):
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"waited {timeout} s for {what}")
        time.sleep(every)
    return value


def ended(process, name):
    """Waits for a process, and gives what it has used."""
    _, status, use = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{name} ended with {process.returncode}")
    return use


class Programs:
    """The C programs of this folder, built with the Swift toolchain's compiler: what it makes of the checksums is the same."""

    def __init__(self, folder):
        self.folder = folder
        compiler = os.environ.get("CC") or shutil.which("clang") or sys.exit("there is no clang: it comes with Swift")
        here, sums = pathlib.Path(__file__).parent, ROOT / "Sources/C/MD5"
        more = {"floor": ["-I", sums / "include", sums / "md5.c", "-lcrypto"], "sink": ["-lcrypto"]}
        for name in ["floor", "sink", "feed", "send", "udpfloor"]:
            subprocess.check_call([compiler, "-O3", "-o", folder / name, here / f"{name}.c", *more.get(name, [])])
        counter = ROOT / "Tests/Interop/allocations.c"
        subprocess.check_call([compiler, "-O2", "-shared", "-fPIC", "-o", folder / "liballocations.so", counter])

    def __getitem__(self, name):
        return str(self.folder / name)


class Sink:
    """A Kinesis in C that only counts (sink.c)."""

    def __init__(self, programs, shards, core=None):
        self.command = pinned([programs["sink"], str(shards)], core)

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    @property
    def figures(self):
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.url, timeout=10) as answer:
            return json.load(answer)


class Kinesis:
    """The embedded Kinesis."""

    def __init__(self, shards, *options):
        self.command = [BINARY, "local", "--port", "0", "--stream", f"{STREAM}:{shards}", "--memory", "64MiB", *options]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().split()[-1]
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def pinned(command, core=None):
    return [*(["taskset", "-c", core] if core else []), *command]


def least(programs, file, url, core=None):
    """CPU seconds of the C floor, once over a file."""
    command = pinned([programs["floor"], url.rsplit(":", 1)[1], file, STREAM], core)
    return float(subprocess.check_output(command, text=True).split()[1])


class Agent:
    """An agent with a folder of its own.

    inputs: tables by name, output: lines of TOML for it; without pacing unless they say so.
    """

    def __init__(self, folder, inputs, url, output="rate_limit = 0"):
        self.folder = pathlib.Path(folder) / f"agent-{time.monotonic_ns()}"
        self.folder.mkdir()
        self.config = self.folder / "penstock.toml"
        tables = "\n".join(f"[inputs.{name}]\n{text}" for name, text in inputs.items())
        self.config.write_text(
            f'[agent]\nstate_dir = "{self.folder}/state"\nlog_level = "error"\n{tables}\n'
            f'[outputs.stream]\ntype = "kinesis"\nstream = "{STREAM}"\nregion = "us-east-1"\nendpoint = "{url}"\n{output}\n')
        self.environment = dict(os.environ, **KEYS)

    def once(self, **environment):
        """CPU seconds and peak KiB of shipping files to their end, from the process's start to its end."""
        process = subprocess.Popen(
            [BINARY, "run", "--once", "--config", self.config], env=self.environment | environment)
        use = ended(process, "the agent")
        shutil.rmtree(self.folder)
        return use.ru_utime + use.ru_stime, use.ru_maxrss

    @contextlib.contextmanager
    def running(self, core=None):
        """Runs it as a service; gives the process."""
        process = subprocess.Popen(pinned([BINARY, "run", "--config", self.config], core), env=self.environment)
        try:
            yield process
            if process.poll() is not None:
                sys.exit(f"the agent ended with {process.returncode}")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            shutil.rmtree(self.folder)


def file_input(pattern, more=""):
    return f'type = "file"\npaths = ["{pattern}"]\n{more}'


def quiet(pid, every=0.3, timeout=20):
    """Waits until a process takes next to no CPU any more; gives what it has taken."""
    before, deadline = cpu(pid), time.monotonic() + timeout
    while time.monotonic() < deadline:
        time.sleep(every)
        now = cpu(pid)
        if now - before < 0.01 * every:
            break
        before = now
    return now
