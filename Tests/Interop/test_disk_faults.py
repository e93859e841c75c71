"""A disk that is full, read-only, failing or damaged: the agent goes on or says clearly why not, and loses nothing.

What the state directory's disk refuses comes from disk.c, or from a small tmpfs in a mount namespace of its own; what it
damaged is done to a copy of a real state directory. PENSTOCK_SOAK=1 damages in every place.
"""

import concurrent.futures
import errno
import itertools
import json
import os
import shutil
import subprocess
import threading
import time

import oracle
import pytest
from conftest import BINARY, SEED, Run, end, environment, until
from disk import Faults, Operation
from wire import TimedKinesis

SOAK = os.environ.get("PENSTOCK_SOAK") == "1"
# What agents write to a state directory, and how it may fail.
OPERATIONS = {
    "open": Operation.OPENING, "write": Operation.WRITING, "fsync": Operation.SYNCING, "rename": Operation.RENAMING,
}
ERRORS = {
    errno.EIO: "Input/output error", errno.ENOSPC: "No space left on device", errno.EDQUOT: "Disk quota exceeded",
    errno.EROFS: "Read-only file system",
}


@pytest.fixture
def kinesis():
    server = TimedKinesis()
    yield server
    server.stop()


class Appender:
    """Appends lines to one file after another, on and on, in a thread."""

    def __init__(self, *paths):
        self.source = oracle.Source(1)
        self._paths = itertools.cycle(paths)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stopping.wait(0.02):
            self.source.write(next(self._paths), 20)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join(20)


def report(agent, penstock):
    """What `penstock files` says of each file, by its path."""
    done = penstock("files", "--json", "--config", agent.config)
    return {file["path"]: file for file in map(json.loads, done.stdout.splitlines())}


def require_everything(kinesis, source, duplicates=0):
    delivered = [number for _, number in kinesis.arrivals]
    oracle.require(not kinesis.corrupted, f"corrupted: {kinesis.corrupted[:5]}")
    lost = set(range(source.written)) - set(delivered)
    oracle.require(not lost, f"{len(lost)} of {source.written} lines are lost: {sorted(lost)[:5]}")
    again = len(delivered) - source.written
    assert again <= duplicates, f"{again} of {source.written} lines came again"
    return again


# Calls that fail


def test_while_calls_on_the_state_directory_fail_lines_are_delivered_and_it_says_what_fails(
    disk_library, make_agent, logs, kinesis, tmp_path, chance, figure, penstock
):
    agent = make_agent(logs / "app.log", kinesis.url, "logs", linger="20ms")
    agent.state.mkdir(parents=True)
    faults = Faults(tmp_path / "faults", SEED)
    env = environment(LD_PRELOAD=str(disk_library), DISK_ROOT=str(agent.state), DISK_FAULTS=str(faults.path))
    cases = [(name, error) for name in OPERATIONS for error in ERRORS]
    chance.shuffle(cases)
    met = []
    with Appender(logs / "app.log") as appender:
        run = agent.start(env=env)
        run.wait_for("tailing file")
        for name, error in cases:
            operation = OPERATIONS[name]
            failed = faults.failed[operation]
            faults.fail(operation, error, torn=chance.random() < 0.5)
            # Not every version does each of these while it runs.
            deadline = time.monotonic() + 2.5
            while faults.failed[operation] == failed and time.monotonic() < deadline:
                time.sleep(0.02)
            if faults.failed[operation] > failed:
                met.append(name)
                # What is said too often is held back for a while.
                until(lambda: ERRORS[error] in run.log, 15, lambda: f"{name} to fail with {ERRORS[error]!r} in:\n{run.log}")
            faults.heal()
        before = kinesis.lines()
        until(lambda: kinesis.lines() > before, 10, "lines to arrive")
    until(lambda: kinesis.lines() == appender.source.written, 20, lambda: f"everything to arrive:\n{run.log}")
    size = (logs / "app.log").stat().st_size
    until(
        lambda: report(agent, penstock).get(str(logs / "app.log"), {}).get("delivered") == size, 10,
        "the checkpoint to be written again",
    )
    assert run.terminate() == 0, run.log
    again = agent.once()
    assert again.process.returncode == 0, again.log
    require_everything(kinesis, appender.source)
    assert {"write", "fsync"} <= set(met)
    figure(f"{len(met)} kinds of failures met while {appender.source.written} lines came, {sum(faults.failed.values())} in all")


@pytest.mark.parametrize("name, error", [("write", errno.EIO), ("write", errno.ENOSPC), ("fsync", errno.EIO)])
def test_an_outage_while_the_spool_cannot_be_written_costs_no_line(
    disk_library, make_agent, logs, kinesis, tmp_path, figure, name, error
):
    agent = make_agent(
        logs / "app.log", kinesis.url, "logs", linger="20ms", call_max_size="64KiB", aggregate_max_size="4KiB",
        spool={"max_size": "16MiB", "keep_free": "1MiB"},
    )
    agent.state.mkdir(parents=True)
    faults = Faults(tmp_path / "faults", SEED)
    env = environment(LD_PRELOAD=str(disk_library), DISK_ROOT=str(agent.state), DISK_FAULTS=str(faults.path))
    spool = agent.state / "spool"

    def spooled():
        return sum(path.stat().st_size for path in spool.rglob("*.spool"))

    with Appender(logs / "app.log") as appender:
        run = agent.start(env=env)
        until(lambda: kinesis.lines() > 100, 10, "lines to arrive")
        kinesis.is_down = True
        until(lambda: spooled() > 100_000, 10, "the spool to be used")
        # Half of the calls fail for a while, then all; then the disk is well again, and Kinesis after it.
        faults.fail(OPERATIONS[name], error, share=0.5, torn=True)
        time.sleep(1.5)
        faults.fail(OPERATIONS[name], error, torn=True)
        time.sleep(1.5)
        assert ERRORS[error] in run.log, run.log
        faults.heal()
        time.sleep(1.5)
        run.kill()
        # One that finds a spool and cannot write to it may refuse to start; whoever supervises it starts it again.
        faults.fail(OPERATIONS[name], error, share=0.5)
        run = agent.start(env=env)
        time.sleep(1.5)
        faults.heal()
        refused = run.process.poll() is not None
        if refused:
            assert run.process.returncode == 73 and ERRORS[error] in run.log and str(spool) in run.log, run.log
            run = agent.start(env=env)
        time.sleep(0.5)
        kinesis.is_down = False
    until(lambda: kinesis.lines() == appender.source.written, 20, lambda: f"everything to arrive:\n{run.log}")
    assert run.terminate() == 0, run.log
    again = agent.once()
    assert again.process.returncode == 0, again.log
    repeated = require_everything(kinesis, appender.source, duplicates=appender.source.written)
    figure(
        f"{appender.source.written} lines, {sum(faults.failed.values())} calls failed: lost 0, {repeated} came again"
        f"{'; a start was refused' if refused else ''}"
    )


@pytest.mark.parametrize("operation", [*OPERATIONS, "mkdir"])
def test_an_agent_that_starts_on_a_failing_disk_delivers_or_exits_with_73_and_loses_nothing(
    disk_library, make_agent, logs, kinesis, tmp_path, operation
):
    source = oracle.Source(1)
    source.write(logs / "app.log", 500)
    agent = make_agent(logs / "app.log", kinesis.url, "logs")
    root = agent.folder / "root"
    root.mkdir(parents=True)
    agent.state = agent.agent["state_dir"] = root / "state"
    faults = Faults(tmp_path / "faults", SEED)
    faults.fail(OPERATIONS.get(operation, Operation.MAKING))
    env = environment(LD_PRELOAD=str(disk_library), DISK_ROOT=str(root), DISK_FAULTS=str(faults.path))
    run = agent.once(env=env, timeout=20)
    assert sum(faults.failed.values()) > 0
    assert run.process.returncode in (0, 73), run.log
    # It says what it could not do, to what, and why.
    assert "Input/output error" in run.log and str(root) in run.log, run.log
    faults.heal()
    after = agent.once(env=env)
    assert after.process.returncode == 0, after.log
    require_everything(kinesis, source, duplicates=500)


# A full disk, a read-only disk


class SmallDisk:
    """A tmpfs on a folder, in a mount namespace of its own that lives as long as this."""

    def __init__(self, folder, size):
        folder.mkdir(parents=True)
        self.folder = folder
        script = f"mount --make-rprivate / && mount -t tmpfs -o size={size} tmpfs '{folder}' && echo mounted && exec sleep 600"
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        self.is_mounted = self._holder.stdout.readline() == "mounted\n"

    def stop(self):
        end(self._holder)

    @property
    def inside(self):
        """The folder, seen from here."""
        return f"/proc/{self._holder.pid}/root{self.folder}"

    def enter(self, *command):
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *(str(word) for word in command)]

    def fill(self):
        """Takes all that is free; returns how much."""
        taken = 0
        with open(f"{self.inside}/filler", "ab", buffering=0) as file:
            for size in (4096, 512, 1):
                try:
                    while True:
                        taken += file.write(bytes(size))
                except OSError as fault:
                    assert fault.errno == errno.ENOSPC
        return taken

    def free(self):
        os.unlink(f"{self.inside}/filler")

    def remount(self, options):
        subprocess.check_call(self.enter("mount", "-o", f"remount,{options}", self.folder))


@pytest.fixture
def small_disk(tmp_path):
    disk = SmallDisk(tmp_path / "small", "256k")
    if not disk.is_mounted:
        disk.stop()
        pytest.skip("a tmpfs in a mount namespace of its own is not permitted here")
    yield disk
    disk.stop()


def start_on(disk, agent, *options):
    """Starts the agent with its state directory on that disk."""
    agent.state = agent.agent["state_dir"] = disk.folder / "state"
    agent.write_config()
    run = Run(
        disk.enter(BINARY, "run", "--config", agent.config, *options), agent.folder / f"run-{len(agent.runs)}.log",
        environment(),
    )
    agent.runs.append(run)
    return run


def test_a_full_disk_costs_no_line_through_kills_and_starts_and_is_used_again_once_it_has_room(
    small_disk, make_agent, logs, kinesis, figure
):
    # So many files that each write of their positions needs room of its own.
    paths = [logs / f"app-{number:02}.log" for number in range(30)]
    agent = make_agent(logs / "*.log", kinesis.url, "logs", linger="20ms")
    reason = "No space left on device"

    def delivered():
        done = subprocess.run(
            small_disk.enter(BINARY, "files", "--json", "--config", agent.config), capture_output=True, env=environment()
        )
        return sum(json.loads(line)["delivered"] for line in done.stdout.splitlines())

    def require_lines_arrive():
        before = kinesis.lines()
        until(lambda: kinesis.lines() > before + 100, 10, "lines to arrive all the same")

    with Appender(*paths) as appender:
        run = start_on(small_disk, agent)
        until(delivered, 10, "a checkpoint")
        small_disk.fill()
        run.wait_for(reason)
        require_lines_arrive()
        small_disk.free()
        kept = delivered()
        until(lambda: delivered() > kept, 10, "the checkpoint to move again")
        small_disk.fill()
        time.sleep(1.5)
        run.kill()
        # What meets the full disk at its start goes on as well.
        run = start_on(small_disk, agent)
        run.wait_for(reason)
        require_lines_arrive()
        run.kill()
        small_disk.free()
    last = start_on(small_disk, agent, "--once")
    assert last.wait(30) == 0, last.log
    # Whatever is not written down before a kill comes again after it.
    again = require_everything(kinesis, appender.source, duplicates=2 * appender.source.written)
    assert delivered() == sum(path.stat().st_size for path in paths)
    figure(f"{appender.source.written} lines, lost 0, {again} came again after two kills on a full disk")


def test_a_read_only_disk_stops_the_start_with_73_and_the_reason(small_disk, make_agent, logs, kinesis):
    source = oracle.Source(1)
    source.write(logs / "app.log", 100)
    agent = make_agent(logs / "app.log", kinesis.url, "logs")
    small_disk.remount("ro")
    for _ in range(2):
        run = start_on(small_disk, agent)
        assert run.wait(10) == 73, run.log
        assert "Read-only file system" in run.log and str(agent.state) in run.log, run.log
        small_disk.remount("rw")
        assert start_on(small_disk, agent, "--once").wait(10) == 0
        # The second time the folder is there, with what is known.
        small_disk.remount("ro")
    require_everything(kinesis, source)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run the agent as another user")
def test_a_state_directory_that_may_not_be_written_stops_the_start_with_73_and_the_reason(
    make_agent, logs, kinesis, tmp_path, monkeypatch
):
    import conftest

    nobody = 65534
    monkeypatch.setattr(conftest, "BINARY", shutil.copy(BINARY, tmp_path / "penstock"))
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.owner() == "root" and not folder.stat().st_mode & 0o001 and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    agent = make_agent(logs / "app.log", kinesis.url, "logs")
    agent.state.mkdir(parents=True, mode=0o755)
    run = agent.once(user=nobody)
    assert run.process.returncode == 73, run.log
    assert "Permission denied" in run.log and str(agent.state) in run.log and "agent.state_dir" in run.log, run.log
    assert not kinesis.puts()


# Damage


@pytest.fixture(scope="module")
def past(tmp_path_factory):
    """A state directory after a busy life that ended by kill -9, and what was delivered."""
    from conftest import Agent

    folder = tmp_path_factory.mktemp("damage")
    logs = folder / "logs"
    logs.mkdir()
    kinesis = TimedKinesis()
    agent = Agent(folder / "agent", logs / "*.log*", kinesis.url, "logs", linger="20ms")
    source = oracle.Source(1)
    try:
        run = agent.start()
        for turn in range(40):
            for number in range(25):
                source.write(logs / f"app-{number:02}.log", 2)
            if turn == 20:
                os.rename(logs / "app-00.log", logs / "app-00.log.1")
            time.sleep(0.1)
        until(lambda: kinesis.lines() == source.written, 10, "everything to arrive")
        run.kill()
        first = {}
        for when, number in kinesis.arrivals:
            first.setdefault(number, when)
    finally:
        agent.stop()
        kinesis.stop()
    return agent, source, logs, kinesis.url, set(first)


def copy_state(past, folder, name, content):
    """A copy of the state directory with another content of one file; returns its configuration."""
    agent, _, _, _, _ = past
    shutil.copytree(agent.state, folder / "state")
    (folder / "state" / name).write_bytes(content)
    config = folder / "penstock.toml"
    config.write_text(agent.config.read_text().replace(str(agent.state), str(folder / "state")))
    return config


def damages(content, chance):
    """Torn at the bytes of the last 4 KiB; one bit flipped."""
    # Each place of them is tried by the tests of the state file itself, without a process.
    sizes = range(max(0, len(content) - 4096), len(content))
    for size in sizes if SOAK else sorted(chance.sample(sizes, min(600, len(sizes)))):
        yield f"torn at {size} of {len(content)}", content[:size]
    bits = range(8 * len(content)) if SOAK else sorted(chance.sample(range(8 * len(content)), 400))
    for bit in bits:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit % 8} of byte {bit // 8} flipped", bytes(flipped)


def test_a_damaged_state_file_never_claims_more_than_was_delivered(past, tmp_path, chance, figure):
    agent, _, logs, _, _ = past
    content = (agent.state / "checkpoints").read_bytes()
    copy_state(past, tmp_path / "whole", "checkpoints", content)

    def files(config):
        done = subprocess.run(
            [BINARY, "files", "--json", "--config", config], stdin=subprocess.DEVNULL, capture_output=True, timeout=20,
            env=environment(),
        )
        return done, {file["path"]: file["delivered"] for file in map(json.loads, done.stdout.splitlines())}

    done, truth = files(tmp_path / "whole" / "penstock.toml")
    assert done.returncode in (0, 1) and len(truth) == 26
    # An earlier state knows the file that was renamed by its first name.
    first = str(logs / "app-00.log")
    most = truth | {first: max(truth[first], truth[first + ".1"])}
    outcomes = {"refused": 0, "earlier": 0, "the same": 0}
    queue, lock = enumerate(damages(content, chance)), threading.Lock()

    def work():
        while True:
            with lock:
                number, (what, damaged) = next(queue, (None, (None, None)))
            if number is None:
                return
            config = copy_state(past, tmp_path / str(number), "checkpoints", damaged)
            done, found = files(config)
            if done.returncode == 69:
                assert b"damaged" in done.stderr and str(config.parent).encode() in done.stderr, (what, done.stderr)
                outcomes["refused"] += 1
            else:
                assert done.returncode in (0, 1), f"{what}: exit code {done.returncode}: {done.stderr}"
                assert found.keys() <= truth.keys(), what
                assert all(found[path] <= most[path] for path in found), what
                outcomes["the same" if found == truth else "earlier"] += 1
            shutil.rmtree(config.parent)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(work) for _ in range(2)]:
            each.result()
    assert sum(outcomes.values()) >= 1000 and outcomes["refused"] > 0
    figure(f"a state file of {len(content)} bytes, damaged in {sum(outcomes.values())} ways: {outcomes}")


def test_an_agent_on_a_damaged_state_file_goes_on_keeps_the_file_and_loses_no_line(past, tmp_path, chance, figure):
    agent, source, _, url, before = past
    content = (agent.state / "checkpoints").read_bytes()
    ways = list(damages(content, chance))
    if not SOAK:
        ways = chance.sample(ways, 60)
    kinesis = TimedKinesis()
    set_aside = 0
    try:
        for number, (what, damaged) in enumerate(ways):
            kinesis.clear()
            config = copy_state(past, tmp_path / str(number), "checkpoints", damaged)
            config.write_text(config.read_text().replace(url, kinesis.url))
            done = subprocess.run(
                [BINARY, "run", "--once", "--config", config], stdin=subprocess.DEVNULL, capture_output=True, timeout=30,
                env=environment(),
            )
            log = done.stderr.decode(errors="replace")
            assert done.returncode == 0, f"{what}: {log}"
            lost = source.written - len(before | {line for _, line in kinesis.arrivals})
            oracle.require(lost == 0 and not kinesis.corrupted, f"{what}: {lost} of {source.written} lines are lost:\n{log}")
            kept = [path for path in (config.parent / "state").iterdir() if "damaged" in path.name]
            if kept:
                set_aside += 1
                assert [path.read_bytes() for path in kept] == [damaged], what
                assert str(kept[0]) in log and " error " in log, f"{what}: {log}"
            shutil.rmtree(config.parent)
    finally:
        kinesis.stop()
    figure(f"{len(ways)} damaged state files, {set_aside} set aside and kept: lost 0")
