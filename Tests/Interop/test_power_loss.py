"""Power is lost at any moment: whatever the disk holds then, the next start goes on and nothing is lost.

An agent's calls on its state directory are recorded through several lives: rotation, an outage of the endpoint, kill -9.
powerloss.py builds from the record what a disk may hold after a crash behind any call. On each such image an agent is started
with --once. What lay in the stream at the time of the crash, and what that agent delivers, is everything.

The log files survive: they are as they were at the end, longer than at the crash, which asks for the same and more.
PENSTOCK_SOAK=1 tries every image there is, otherwise a seeded choice of them.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
import random
import shutil
import subprocess
import sys
import threading
import time

import oracle
import powerloss
import pytest
from conftest import BINARY, SEED, environment, until
from disk import Faults, Operation
from wire import TimedKinesis

SOAK = os.environ.get("PENSTOCK_SOAK") == "1"
IMAGES = 10**9 if SOAK else 100
# For the images of one test.
SECONDS = 3600 if SOAK else 60
# A checkpoint a second, and what a busy machine takes to write it: older acknowledgements are covered.
CHECKPOINT_AGE = 3.0


class Writer:
    """Appends lines in uneven pieces; renames the file away now and then."""

    def __init__(self, folder, chance):
        self.source = oracle.Source(1)
        self._path, self._chance = folder / "app.log", chance
        self._rotations = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join(20)

    def _run(self):
        rotate_at = time.monotonic() + self._chance.uniform(0.5, 1.5)
        while not self._stopping.wait(self._chance.uniform(0, 0.05)):
            self.source.write(self._path, self._chance.randint(1, 40))
            if time.monotonic() > rotate_at:
                self._rotations += 1
                os.rename(self._path, f"{self._path}.{self._rotations}")
                rotate_at = time.monotonic() + self._chance.uniform(0.5, 1.5)


@dataclasses.dataclass
class Past:
    """What was recorded."""

    record: powerloss.Record
    root: pathlib.Path
    config: str
    state: pathlib.Path
    url: str
    # Line → when it was first stored.
    stored: dict
    written: int


def live(agent, disk_library, logs, chance, faults=None):
    """Three lives of an agent, the second with an outage that lasts into the third; returns what was recorded.

    With `faults` a share of the disk's operations fails in the middle of each life.
    """
    root = agent.folder / "disk"
    root.mkdir(parents=True)
    agent.state = agent.agent["state_dir"] = root / "state"
    log = agent.folder / "calls"
    env = environment(
        LD_PRELOAD=str(disk_library), DISK_ROOT=str(root), DISK_LOG=str(log), DISK_FAULTS=faults and str(faults.path)
    )

    def disturb(seconds):
        if faults:
            time.sleep(chance.uniform(0.2, 0.4))
            before = faults.failed[Operation.SYNCING]
            faults.fail(Operation.WRITING | Operation.SYNCING | Operation.RENAMING, share=0.5, torn=True)
        time.sleep(seconds)
        if faults:
            until(lambda: faults.failed[Operation.SYNCING] > before, 10, "a sync that fails")
            faults.heal()

    server = TimedKinesis()
    try:
        agent.output["endpoint"] = server.url
        with Writer(logs, chance) as writer:
            run = agent.start(env=env)
            disturb(chance.uniform(1.5, 2.5))
            run.kill()
            run = agent.start(env=env)
            time.sleep(chance.uniform(1, 1.5))
            server.is_down = True
            disturb(chance.uniform(2, 3))
            time.sleep(chance.uniform(0, 1.2))
            run.kill()
            run = agent.start(env=env)
            disturb(chance.uniform(1.5, 2.5))
            server.is_down = False
            time.sleep(1)
        until(lambda: server.lines() == writer.source.written, 30, lambda: f"everything to arrive:\n{run.log}")
        time.sleep(1.2)
        assert run.terminate() == 0, run.log
        assert not server.corrupted
        stored = {}
        for when, number in server.arrivals:
            stored.setdefault(number, when)
    finally:
        server.stop()
    record = powerloss.Record(powerloss.read(log), root)
    # The recorder has seen everything, and the replayer understands it.
    there = {str(path): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}
    assert record.final() == there
    return Past(record, root, agent.config.read_text(), agent.state, server.url, stored, writer.source.written)


@dataclasses.dataclass
class Outcome:
    place: tuple
    fault: str | None
    lost: int
    duplicated: int
    seconds: float
    speaks_of_damage: bool


class Trial:
    """Starts an agent on an image and counts; its server is its own."""

    def __init__(self, past, folder, age):
        self._past, self._folder, self._age = past, folder, age
        self._server = TimedKinesis()
        self._number = 0

    def stop(self):
        self._server.stop()

    def _start(self, config, missing):
        """Runs an agent until it has delivered all it can; returns its exit code and its log.

        With `missing` it is one that runs on, until it has delivered these lines; otherwise it runs --once.
        """
        command = [BINARY, "run", "--config", config, *(["--once"] if missing is None else [])]
        path = config.with_name("log")
        with open(path, "w+b") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, env=environment())

            def has_done_it():
                is_running = b"penstock runs" in path.read_bytes()
                return is_running and missing <= self._server.numbers() or process.poll() is not None

            try:
                if missing is not None:
                    deadline = time.monotonic() + 20
                    while not has_done_it() and time.monotonic() < deadline:
                        time.sleep(0.01)
                    process.terminate()
                code = process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                code = None
            log.seek(0)
            return code, log.read().decode(errors="replace")

    def run(self, index, data, names, image, runs_on):
        past, server = self._past, self._server
        self._number += 1
        folder = self._folder / str(self._number)
        powerloss.write(image, past.root, folder / "disk")
        state = folder / "disk" / past.state.relative_to(past.root)
        config = folder / "penstock.toml"
        config.write_text(past.config.replace(str(past.state), str(state)).replace(past.url, server.url))
        server.clear()
        place = (index, data, names, "running on" if runs_on else "once")
        crash = past.record.time(index)
        before = {number for number, when in past.stored.items() if when <= crash}
        began = time.monotonic()
        code, log = self._start(config, set(range(past.written)) - before if runs_on else None)
        seconds = time.monotonic() - began
        delivered = {}
        for _, number in server.arrivals:
            delivered[number] = delivered.get(number, 0) + 1
        # Of one that did not end, nothing is known.
        lost = 0 if code is None else past.written - len(before | delivered.keys())
        again = sum(delivered.values()) - len(delivered.keys() - before)
        stale = sum(past.stored[number] < crash - self._age for number in delivered.keys() & before)
        faults = []
        if code is None:
            faults.append("it did not end")
        elif code != 0:
            faults.append(f"exit code {code}")
        if lost:
            faults.append(f"{lost} of {past.written} lines are lost")
        if stale:
            faults.append(f"{stale} lines came again that had been acknowledged {self._age} s before the crash")
        if server.corrupted:
            faults.append(f"{len(server.corrupted)} records that nobody wrote")
        speaks_of_damage = " error " in log or any("damaged" in path.name for path in state.rglob("*"))
        if speaks_of_damage:
            faults.append("it speaks of damage where power was lost")
        if faults:
            fault = f"{'; '.join(faults)}; kept in {folder}; its log:\n{log}"
            return Outcome(place, fault, lost, again, seconds, speaks_of_damage)
        shutil.rmtree(folder)
        return Outcome(place, None, lost, again, seconds, speaks_of_damage)


def try_images(past, folder, chance, figure, age=CHECKPOINT_AGE):
    """Starts an agent on each of the images, as many as time allows, and requires that nothing is lost."""
    outcomes = []
    source = powerloss.images(past.record, chance)
    lock = threading.Lock()
    deadline = time.monotonic() + SECONDS

    def work(number):
        trial = Trial(past, folder / f"trial-{number}", age)
        try:
            while time.monotonic() < deadline:
                with lock:
                    if len(outcomes) >= IMAGES or sum(outcome.fault is not None for outcome in outcomes) >= 5:
                        return
                    place = next(source, None)
                    # Most run once; some go on with what they have found, and write to it.
                    runs_on = chance.random() < 0.25
                if place is None:
                    return
                outcomes.append(trial.run(*place, runs_on))
        finally:
            trial.stop()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, number) for number in range(2)]:
            done.result()
    duplicated = sorted(outcome.duplicated for outcome in outcomes)
    figure(
        f"{len(past.record.calls)} calls, {past.written} lines, {len(outcomes)} images: lost "
        f"{sum(outcome.lost for outcome in outcomes)}; duplicated {duplicated[len(duplicated) // 2]} in the middle, "
        f"{duplicated[-1]} at most; {1000 * sum(outcome.seconds for outcome in outcomes) / len(outcomes):.0f} ms a start; "
        f"{sum(outcome.speaks_of_damage for outcome in outcomes)} speak of damage"
    )
    faults = [
        f"crash behind call {outcome.place[0]} (data: {outcome.place[1]}, names: {outcome.place[2]}, {outcome.place[3]}): {outcome.fault}"
        for outcome in outcomes if outcome.fault
    ]
    oracle.require(not any(outcome.lost for outcome in outcomes), "\n".join(faults))
    assert not faults, "\n".join(faults)
    return outcomes


# The recorder and the replayer

# Writes a file five times over in one way or another: its name is durable only after a sync of the file and of the folder.
REPLACER = """
import os, sys
folder, how = sys.argv[1:]
for number in range(5):
    file = os.open(f"{folder}/new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(file, b"%d" % number * 3000)
    if "sync" in how: os.fsync(file)
    os.close(file)
    os.rename(f"{folder}/new", f"{folder}/state")
    if "folder" in how:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(file)
        os.close(file)
"""

# Appends blocks to a file, each synced before the next.
APPENDER = """
import os, sys
folder, how = sys.argv[1:]
file = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
os.fsync(above)
for number in range(6):
    os.writev(file, [b"%d" % number * 700, b"%d" % number * 800])
    os.fdatasync(file)
"""


def recorded(disk_library, folder, program, how=""):
    """Runs a little program under the recorder; returns what a crash may leave: (index, {name: bytes})."""
    root, log = folder / "root", folder / "calls"
    root.mkdir()
    env = environment(LD_PRELOAD=str(disk_library), DISK_ROOT=str(root), DISK_LOG=str(log))
    subprocess.check_call([sys.executable, "-c", program, root, how], env=env, timeout=30)
    record = powerloss.Record(powerloss.read(log), root)
    assert record.final() == {str(path): path.read_bytes() for path in root.iterdir()}
    chance, images = random.Random(SEED), []
    for index in range(1, len(record.calls) + 1):
        for data, names in powerloss.VARIANTS * 10:
            image = record.image(index, chance, data, names)
            images.append((index, {os.path.basename(path): content for path, content in image.items()}))
    return record, images


def states(images):
    """The different contents of `state`: a digit when it is whole, otherwise "torn"; None where there is none."""
    whole = {b"%d" % number * 3000: number for number in range(5)}
    return {whole.get(image["state"], "torn") if "state" in image else None for _, image in images}


def test_a_rename_without_a_sync_may_leave_a_torn_file_and_one_behind_a_sync_may_not(disk_library, tmp_path):
    for how in ("", "sync", "sync folder"):
        folder = tmp_path / (how or "none")
        folder.mkdir()
        record, images = recorded(disk_library, folder, REPLACER, how)
        assert states(images) == {None, 0, 1, 2, 3, 4} | ({"torn"} if not how else set()), how
        at_the_end = states((index, image) for index, image in images if index == len(record.calls))
        # Only a synced folder promises that the last name is there.
        if how == "sync folder":
            assert at_the_end == {4}
        else:
            assert {None, 4} < at_the_end


def test_what_was_synced_is_whole_and_only_the_last_block_may_be_torn_or_hold_zeros(disk_library, tmp_path):
    record, images = recorded(disk_library, tmp_path, APPENDER)
    blocks = [b"%d" % number * 700 + b"%d" % number * 800 for number in range(6)]
    ends = [index for index, call in enumerate(record.calls, 1) if call.kind == powerloss.SYNC_END][1:]
    kinds = set()
    for index, image in images:
        synced = b"".join(blocks[: sum(end <= index for end in ends)])
        content = image.get("log", b"")
        assert content.startswith(synced), f"behind call {index}"
        tail = content[len(synced) :]
        following = b"".join(blocks)[len(synced) :][: len(tail)]
        kinds.add("whole" if tail == following else "zeros" if not tail.strip(b"0123456789\0") else "stale")
        if tail == following and len(tail) % 1500:
            kinds.add("torn")
        assert len(tail) <= 1500
    assert kinds == {"whole", "torn", "zeros", "stale"}


# The product

# Ways to use the disk: what a spool promises by its settings, it must keep.
SPOOLS = {
    "failure": {"when": "failure", "sync": "1s"},
    "always": {"when": "always", "sync": "always"},
    "never synced": {"when": "failure", "sync": "never"},
}


def use_spool(agent, spool):
    agent.output["spool"] = {"max_size": "16MiB", "keep_free": "1MiB"} | SPOOLS[spool]
    # Little stays in memory, and what goes to the disk goes in many pieces.
    agent.output |= {"call_max_size": "64KiB", "aggregate_max_size": "4KiB"}


def test_power_lost_behind_any_call_on_the_state_directory_loses_no_line(disk_library, make_agent, logs, tmp_path, chance, figure):
    agent = make_agent(logs / "app.log*", "http://127.0.0.1:1", "logs", linger="20ms")
    past = live(agent, disk_library, logs, chance)
    assert len(try_images(past, tmp_path, chance, figure)) > 50


@pytest.mark.parametrize("spool", SPOOLS)
def test_power_lost_while_a_spool_holds_the_only_copy_loses_no_line(
    disk_library, make_agent, logs, tmp_path, chance, figure, spool
):
    agent = make_agent(logs / "app.log*", "http://127.0.0.1:1", "logs", linger="20ms")
    use_spool(agent, spool)
    past = live(agent, disk_library, logs, chance)
    assert sum(call.kind == powerloss.WRITE for call in past.record.calls) > 200, "the spool was hardly used"
    assert len(try_images(past, tmp_path, chance, figure)) > 50


@pytest.mark.parametrize("spool", ["none", "failure"])
def test_power_lost_behind_writes_and_syncs_that_failed_loses_no_line(
    disk_library, make_agent, logs, tmp_path, chance, figure, spool
):
    agent = make_agent(logs / "app.log*", "http://127.0.0.1:1", "logs", linger="20ms")
    if spool != "none":
        use_spool(agent, spool)
    faults = Faults(tmp_path / "faults", SEED)
    past = live(agent, disk_library, logs, chance, faults)
    # What could not be written down comes twice, however long ago it was acknowledged.
    assert len(try_images(past, tmp_path, chance, figure, age=float("inf"))) > 50
