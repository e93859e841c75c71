"""kill -9 at random moments, while lines are appended and the file is rotated by rename: nothing is lost.

What may come twice after a kill is what was in flight and what was acknowledged since the last checkpoint: the lines that
lie in the stream at positions beyond the checkpoint that the dead agent left. They are counted after each kill, from the
stream and the state file; the sum bounds the duplicates at the end. That the checkpoint is not an old one is required as
well: what arrived in the life of an agent longer than CHECKPOINT_AGE before its death must be covered.
"""

import os
import threading
import time
from array import array

import oracle
import pytest
from conftest import until

KILLS = 20
# A checkpoint a second, and what a busy machine takes to write it.
CHECKPOINT_AGE = 3.0
# From the opening of a file to a state file that names it.
TIME_TO_WRITE_DOWN = 0.25


class Writer:
    """Appends numbered lines to a file in uneven pieces, and renames it away now and then, as logrotate does."""

    def __init__(self, folder, chance, may_rotate):
        self.path = folder / "app.log"
        self.source = oracle.Source(1)
        self.chance = chance
        # Asked with the current file's inode before it is renamed.
        self.may_rotate = may_rotate
        self.rotations = 0
        # Per line: the file it went into, by inode, and where it ends there.
        self.inodes, self.ends = array("Q"), array("Q")
        self._stopping = threading.Event()
        self._fault = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self._stopping.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self._fault:
            raise self._fault

    def _run(self):
        try:
            self._open()
            next_rotation = time.monotonic() + self.chance.uniform(0.2, 1.2)
            while not self._stopping.is_set():
                self._append(self.chance.randint(1, 300))
                if time.monotonic() >= next_rotation and self.may_rotate(self._inode):
                    self._rotate()
                    next_rotation = time.monotonic() + self.chance.uniform(0.2, 1.2)
                self._stopping.wait(self.chance.uniform(0, 0.02))
            os.close(self._file)
        except Exception as fault:
            self._fault = fault

    def _open(self):
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        self._inode = os.fstat(self._file).st_ino
        self._size = 0

    def _append(self, count):
        lines = list(self.source.lines(count))
        for line in lines:
            self._size += len(line)
            self.inodes.append(self._inode)
            self.ends.append(self._size)
        text = b"".join(lines)
        # Often in two writes, torn within a line.
        cut = self.chance.randrange(len(text)) if self.chance.random() < 0.3 else len(text)
        os.write(self._file, text[:cut])
        if cut < len(text):
            time.sleep(self.chance.uniform(0, 0.005))
            os.write(self._file, text[cut:])

    def _rotate(self):
        # app.log.2 → app.log.3, app.log.1 → app.log.2, app.log → app.log.1
        for number in range(self.rotations, 0, -1):
            os.rename(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        os.rename(self.path, f"{self.path}.1")
        self.rotations += 1
        # A program goes on in the renamed file until it is told.
        if self.chance.random() < 0.5:
            self._append(self.chance.randint(1, 100))
        os.close(self._file)
        self._open()


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_twenty_kills_lose_no_line_and_repeat_only_what_the_checkpoint_did_not_cover(
    start_local, make_agent, logs, chance, figure, pattern
):
    server = start_local("logs:4")
    agent = make_agent(logs / pattern, server.url, "logs", linger="20ms")
    kinesis = oracle.client(server.url)
    readers = [oracle.ShardReader(kinesis, "logs", shard) for shard in oracle.shards_of(kinesis, "logs")]
    # What has arrived: number → when, last.
    arrived = {}
    # A file that comes and goes under a pattern while nobody runs cannot be known: with "app.log" alone a file is
    # renamed only once the state file names it, or an agent has held it open for a while and should have written that
    # down. With "app.log*" it is renamed at any time.
    running, held = [], {}

    def may_rotate(inode):
        if pattern == "app.log*" or inode in agent.checkpoints:
            return True
        run = running[-1] if running else None
        if run is None or inode not in run.files:
            return False
        return time.monotonic() - held.setdefault((run.pid, inode), time.monotonic()) > TIME_TO_WRITE_DOWN

    bound, kills, bounds, stale, known = 0, 0, [], [], set()
    with Writer(logs, chance, may_rotate) as writer:
        while kills < KILLS:
            run = agent.start()
            running.append(run)
            # Most lives are short; some see several checkpoints.
            time.sleep(chance.uniform(0.02, 1.5) if chance.random() < 0.8 else chance.uniform(3.0, 4.5))
            assert run.process.poll() is None, run.log
            death = time.time()
            run.kill()
            kills += 1
            # What the kernel still held of a call reaches the stream.
            time.sleep(0.1)
            for reader in readers:
                for record in reader.user_records():
                    line = oracle.parse(record.data)
                    assert line is not None, record.data[:100]
                    arrived[line[1]] = record.arrival
            covered = agent.checkpoints
            # No file is ever deleted here, so none may leave the state file.
            assert known <= covered.keys(), f"forgotten after kill {kills}: {known - covered.keys()}"
            known.update(covered)
            uncovered = [
                number for number in arrived if writer.ends[number] > covered.get(writer.inodes[number], 0)
            ]
            stale += [
                (kills, number) for number in uncovered if run.started <= arrived[number] < death - CHECKPOINT_AGE
            ]
            bounds.append(len(uncovered))
            bound += len(uncovered)
        writer.stop()
    last = agent.once(timeout=60)
    assert last.process.returncode == 0, last.log
    verdict = oracle.verify(server.url, "logs", [writer.source])
    figure(
        f"{kills} kills, {writer.rotations} rotations; {verdict}; bound on duplicates {bound} ({bounds}); "
        f"covered too late {len(stale)}"
    )
    forgotten = {writer.inodes[number] for _, number in verdict.lost}
    print(f"lost lines are in {len(forgotten)} files, of which no state file named {len(forgotten - known)}")
    verdict.require_nothing_lost()
    assert writer.rotations >= 5 and verdict.written > 10_000, "the test must have tested something"
    assert verdict.duplicated <= bound
    assert not stale, f"acknowledged more than {CHECKPOINT_AGE} s before the kill, and not in the checkpoint: {stale[:5]}"
    assert sum(count > 0 for count in bounds) > KILLS / 4, "most kills should come between two checkpoints"


def test_a_file_that_was_opened_just_before_a_kill_and_renamed_before_the_next_start_is_finished(
    start_local, make_agent, logs
):
    """The pattern matches only app.log: that the renamed file belongs to it, only the state file can tell."""
    server = start_local("logs:4")
    source = oracle.Source(1)
    path = logs / "app.log"
    source.write(path, 100)
    agent = make_agent(path, server.url, "logs")
    run = agent.start()
    until(lambda: path.stat().st_ino in agent.checkpoints, 5, "the first checkpoint")
    os.rename(path, logs / "app.log.1")
    source.write(path, 100)
    inode = path.stat().st_ino
    until(lambda: inode in run.files, 5, "the agent to open the new file", every=0.001)
    time.sleep(TIME_TO_WRITE_DOWN)
    run.kill()
    source.write(path, 100)
    os.rename(logs / "app.log.1", logs / "app.log.2")
    os.rename(path, logs / "app.log.1")
    source.write(path, 100)
    last = agent.once()
    assert last.process.returncode == 0, last.log
    oracle.verify(server.url, "logs", [source]).require_nothing_lost()


def test_lines_appended_to_a_file_after_its_rename_are_read_also_by_the_next_start(start_local, make_agent, logs):
    server = start_local("logs:4")
    source = oracle.Source(1)
    path = logs / "app.log"
    source.write(path, 100)
    agent = make_agent(path, server.url, "logs")
    run = agent.start()
    until(lambda: path.stat().st_size in agent.checkpoints.values(), 5, "the first checkpoint")
    os.rename(path, logs / "app.log.1")
    source.write(logs / "app.log.1", 100)
    run.kill()
    os.rename(logs / "app.log.1", logs / "other-name")
    source.write(logs / "other-name", 100)
    source.write(path, 100)
    last = agent.once()
    assert last.process.returncode == 0, last.log
    oracle.verify(server.url, "logs", [source]).require_nothing_lost()
