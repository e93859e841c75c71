"""The real binary, and what stands around it: an embedded Kinesis, moto, an agent with its configuration and its log.

PENSTOCK_BINARY names the binary (default: .build/release/penstock), PENSTOCK_SEED repeats a run's random choices.
Servers listen on loopback, on ports the kernel chooses. Whatever a test starts ends with it.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import pytest
from _pytest import runner

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("PENSTOCK_BINARY", ROOT / ".build" / "release" / "penstock"))
# Left to those that run a share of the tests.
SEED = int(os.environ.setdefault("PENSTOCK_SEED", str(random.SystemRandom().randrange(1 << 31))))

sys.path.insert(0, str(pathlib.Path(__file__).parent))
# The binary decides, not the shell the tests were started from.
for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
    del os.environ[name]

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}

import machine  # noqa: E402
import oracle  # noqa: E402

# How often a run may repeat tests, and how often one: what goes on longer than that has a reason of its own.
REPEATS, REPEATS_OF_ONE = 20, 2

_figures = []


def environment(**changes):
    """What a command sees of the environment: no credentials but these, and no files of the user."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"HOME": "/nonexistent"} | KEYS | {name: value for name, value in changes.items() if value is not None}


def pytest_sessionstart(session):
    session.machine = machine.Watch(tempfile.mkdtemp(prefix="penstock-tests-"))
    session.repeats = 0


def pytest_sessionfinish(session):
    session.machine.stop()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    """Runs a test; again, and says so, if it failed while the machine was taken away. Nothing excuses a line found to be lost."""
    session, hook = item.session, item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for again in range(REPEATS_OF_ONE + 1):
        began = time.monotonic()
        reports = runner.runtestprotocol(item, nextitem=nextitem, log=False)
        failure = next((report for report in reports if report.failed), None)
        if failure is None or failure.is_loss or again == REPEATS_OF_ONE or session.repeats == REPEATS:
            break
        halts = session.machine.since(began)
        if not halts:
            break
        item.user_properties.append(("figure", f"run again, because {halts}; it had failed with {str(failure.longrepr)[-300:]!r}"))
        session.repeats += 1
        session.machine.wait_until_quiet()
        item._initrequest()
        # A fixture that failed would fail again, without being tried.
        for fixture in (each for several in item._fixtureinfo.name2fixturedefs.values() for each in several):
            if fixture.cached_result and fixture.cached_result[2]:
                fixture.finish(item._request)
    for report in reports:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    report.is_loss = call.excinfo is not None and isinstance(call.excinfo.value, oracle.Loss)
    return report


def pytest_runtest_logreport(report):
    if report.when == "teardown":
        name = report.nodeid.rsplit("::")[-1]
        _figures.extend((name, value) for key, value in report.user_properties if key == "figure")


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: measures what other tests beside it would disturb")
    if not os.access(BINARY, os.X_OK):
        raise pytest.UsageError(f"there is no binary at {BINARY}: run `make build`, or set PENSTOCK_BINARY")


def pytest_collection_modifyitems(items):
    # By far the longest: where files are shared out, nobody waits for it at the end.
    items.sort(key=lambda item: item.path.name != "test_soak.py")


def pytest_report_header():
    return [f"penstock: {BINARY}", f"seed: {SEED} (repeat with PENSTOCK_SEED={SEED})"]


def pytest_terminal_summary(terminalreporter):
    # Where something failed nothing may stand between its reasons and their list.
    if _figures and not terminalreporter.stats.keys() & {"failed", "error"}:
        terminalreporter.section("figures")
        for name, text in _figures:
            terminalreporter.line(f"{name}: {text}")
        terminalreporter.line(f"seed: {SEED}")


@pytest.fixture
def figure(request):
    """Notes a figure for the summary."""

    def note(text):
        request.node.user_properties.append(("figure", str(text)))
        print(f"figure: {text}")

    return note


@pytest.fixture
def chance(request):
    """A random source of the test's own: the same for a seed, whichever tests run beside it."""
    print(f"seed {SEED}")
    return random.Random(f"{SEED} {request.node.name}")


def until(condition, timeout, what, every=0.02):
    """Waits until `condition()` is true and returns its value; fails after `timeout` seconds, those not counted for which the
    machine stood still.
    """
    began, left = time.monotonic(), timeout
    while not (value := condition()):
        if left <= 0:
            raise AssertionError(f"waited {timeout} s for {what() if callable(what) else what}")
        time.sleep(every)
        now = time.monotonic()
        left -= min(now - began, every + 0.5)
        began = now
    return value


def end(process, timeout=10):
    """Ends a process that we started, gently first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait(timeout)


# The embedded Kinesis


class Server:
    """A process that says where it listens."""

    def __init__(self, command, log, ready, timeout=30, env=None):
        self.log = log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=env or environment(),
            )

        def url():
            found = re.search(ready, self.log.read_text(errors="replace"))
            assert found or self.process.poll() is None, f"{command[0]} ended: {self.log.read_text(errors='replace')}"
            return found and found[1]

        try:
            self.url = until(url, timeout, f"{command[0]} to listen")
        except BaseException:
            self.stop()
            raise

    def stop(self):
        end(self.process)

    def admin(self, path="faults", body=None, method=None):
        """A call to the embedded Kinesis' admin side."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_penstock/{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


@pytest.fixture
def start_local(tmp_path):
    """Starts embedded Kineses: `start_local("logs:4", "--refuse-cbor", port=0)`."""
    with contextlib.ExitStack() as stack:

        def start(*streams_and_options, port=0):
            command = [BINARY, "local", "--port", port]
            for word in streams_and_options:
                command += [word] if word.startswith("--") else ["--stream", word]
            log = tmp_path / f"local-{time.monotonic_ns()}.log"
            server = Server(command, log, r"Kinesis listens on (https?://\S+)")
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="session")
def local_kinesis(tmp_path_factory):
    """One embedded Kinesis for all tests that make their own streams in it."""
    log = tmp_path_factory.mktemp("local") / "log"
    server = Server([BINARY, "local", "--port", 0], log, r"Kinesis listens on (http://\S+)")
    yield server
    server.stop()


@pytest.fixture
def kinesis(local_kinesis):
    """boto3 for the common embedded Kinesis."""
    import clients

    return clients.client_for(local_kinesis.url)


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory):
    log = tmp_path_factory.mktemp("moto") / "log"
    command = [sys.executable, "-c", "import sys; from moto.server import main; main(sys.argv[1:])"]
    server = Server([*command, "-H", "127.0.0.1", "-p", 0], log, r"Running on (http://\S+)", timeout=60)
    yield server
    server.stop()


@pytest.fixture
def stream(local_kinesis):
    """A stream of four shards with a name of its own in the common embedded Kinesis."""
    import uuid

    import oracle

    name = f"test-{uuid.uuid4()}"
    kinesis = oracle.client(local_kinesis.url)
    kinesis.create_stream(StreamName=name, ShardCount=4)
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 5})
    yield name
    kinesis.delete_stream(StreamName=name)


# The agent


def toml(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(each) for each in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


class Agent:
    """An agent's configuration, and the runs of the binary under it."""

    def __init__(self, folder, paths, url, stream, *, agent=None, inputs=None, **output):
        self.folder = folder
        self.state = folder / "state"
        self.config = folder / "penstock.toml"
        self.runs = []
        # Many run at once: who looks at one's admin server gives it a port.
        self.agent = {"state_dir": self.state, "shutdown_timeout": "20s", "admin": ""} | (agent or {})
        paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        self.inputs = {"app": {"type": "file", "paths": [str(path) for path in paths], "start_at": "beginning"}}
        self.inputs["app"] |= inputs or {}
        self.output = {"type": "kinesis", "stream": stream, "endpoint": url, "rate_limit": 0} | output

    def write_config(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        tables = {"agent": self.agent} | {f"inputs.{name}": table for name, table in self.inputs.items()}
        tables["outputs.stream"] = self.output
        self.config.write_text(
            "\n".join(
                f"[{name}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in table.items() if value is not None)
                for name, table in tables.items()
            )
        )

    def start(self, *options, env=None, user=None):
        """Starts `penstock run`."""
        self.write_config()
        run = Run(
            [BINARY, "run", "--config", self.config, *options], self.folder / f"run-{len(self.runs)}.log",
            env or environment(), user,
        )
        self.runs.append(run)
        return run

    def once(self, timeout=60, **options):
        """Runs `penstock run --once` to its end."""
        run = self.start("--once", **options)
        run.wait(timeout)
        return run

    @property
    def checkpoints(self):
        """Delivered positions by inode, as the state file has them."""
        return {int(entry["inode"]): entry["position"] for entry in self.entries.values()}

    @property
    def entries(self):
        """The state file's entries by number: those of its whole batches."""
        try:
            text = (self.state / "checkpoints").read_bytes()
        except FileNotFoundError:
            return {}
        entries, batch, number = {}, {}, 0
        magic, version, generation = text.split(b"\n", 1)[0].split()
        assert (magic, version) == (b"penstock-checkpoints", b"2")
        sha = hashlib.sha256(b"%s %d\n" % (generation, 0))
        for line in text.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            if not line.startswith(b'{"batch":'):
                sha.update(line)
                if line.startswith(b'{"id":'):
                    entry = json.loads(line)
                    key = entry.pop("id")
                    batch[key] = None if "gone" in entry else (batch.get(key) or entries.get(key, {})) | entry
                continue
            if json.loads(line) != {"batch": number, "sha256": sha.hexdigest()}:
                break
            entries = {key: entry for key, entry in (entries | batch).items() if entry is not None}
            batch, number = {}, number + 1
            sha = hashlib.sha256(b"%s %d\n" % (generation, number))
        return entries

    def stop(self):
        for run in self.runs:
            end(run.process)


class Run:
    """One process of the agent, its log, and the most memory it held."""

    def __init__(self, command, log, env, user=None):
        self._log = log
        self.started = time.time()
        began = time.monotonic()
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output,
                env=env, **({"user": user, "group": user, "extra_groups": []} if user is not None else {}),
            )
        # wait4's ru_maxrss would count our own pages from before the exec; the kernel's mark counts from behind it.
        self.peak = 0
        self.cpu = 0.0
        self.seconds = None
        self._began = began
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def _sample(self):
        tick = os.sysconf("SC_CLK_TCK")
        while self.process.returncode is None:
            try:
                with open(f"/proc/{self.process.pid}/status", encoding="ascii", errors="replace") as status:
                    found = re.search(r"VmHWM:\s+(\d+) kB", status.read())
                with open(f"/proc/{self.process.pid}/stat", encoding="ascii", errors="replace") as stat:
                    fields = stat.read().rsplit(")", 1)[1].split()
            except OSError:
                return
            if found:
                self.peak = max(self.peak, int(found[1]) * 1024)
                self.cpu = (int(fields[11]) + int(fields[12])) / tick
            time.sleep(0.01)

    @property
    def log(self):
        return self._log.read_text(errors="replace")

    @property
    def lines(self):
        return self.log.splitlines()

    @property
    def pid(self):
        return self.process.pid

    def wait_for(self, text, timeout=10):
        """Waits for a line that contains `text`, and returns it."""

        def found():
            line = next((line for line in self.lines if text in line), None)
            if line is None and self.process.poll() is not None:
                raise AssertionError(f"the agent ended with {self.process.returncode} before {text!r}:\n{self.log}")
            return line

        return until(found, timeout, lambda: f"{text!r} in:\n{self.log}")

    def wait(self, timeout):
        """Waits for its end and returns the exit code."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the agent did not end within {timeout} s:\n{self.log}") from None
        self.seconds = time.monotonic() - self._began
        self._sampler.join(5)
        return code

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def terminate(self, number=signal.SIGTERM, timeout=30):
        """Asks it to stop; returns the exit code."""
        self.process.send_signal(number)
        return self.wait(timeout)

    @property
    def files(self):
        """Inodes of the files it holds open."""
        inodes = set()
        try:
            for name in os.listdir(f"/proc/{self.pid}/fd"):
                with contextlib.suppress(OSError):
                    inodes.add(os.stat(f"/proc/{self.pid}/fd/{name}").st_ino)
        except OSError:
            pass
        return inodes


@pytest.fixture
def make_agent(tmp_path):
    """Makes agents, each in a folder of its own; what they run ends with the test."""
    agents = []

    def make(paths, url, stream, **options):
        agents.append(Agent(tmp_path / f"agent-{len(agents)}", paths, url, stream, **options))
        return agents[-1]

    yield make
    for agent in agents:
        agent.stop()
    # Shown where a test fails.
    for run in (run for agent in agents for run in agent.runs[-2:]):
        print(f"log of {run.pid}:\n{run.log[-3000:]}")


@pytest.fixture(scope="session")
def disk_library(tmp_path_factory):
    """What records and disturbs the agent's calls on a folder, to be loaded before it."""
    import disk

    return disk.build(tmp_path_factory.mktemp("disk"))


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


@pytest.fixture
def penstock():
    """Runs a command of the binary to its end."""

    def run(*words, input=None, timeout=30, env=None):
        return subprocess.run(
            [str(BINARY), *(str(word) for word in words)], input=input, capture_output=True, timeout=timeout,
            env=env or environment(),
        )

    return run
