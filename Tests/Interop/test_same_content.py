"""Files that look alike: what tells them apart must lose nothing and repeat nothing."""

import os
import shutil

import oracle
import pytest
from conftest import until

HEADER = b"#Software: the same in every file, and longer than what identifies a file\n" * 20
assert len(HEADER) > 1024


class Lines:
    """What has arrived of the lines that sources have written."""

    def __init__(self, server):
        kinesis = oracle.client(server.url)
        self._readers = [oracle.ShardReader(kinesis, "logs", shard) for shard in oracle.shards_of(kinesis, "logs")]
        self._arrived = set()

    def wait(self, *sources, timeout=60):
        self.wait_for_some(sum(source.written for source in sources), timeout)

    def wait_for_some(self, count, timeout=60):
        def complete():
            for reader in self._readers:
                self._arrived.update(oracle.parse(record.data) for record in reader.user_records())
            return len(self._arrived - {None}) >= count

        until(complete, timeout, lambda: f"{count} lines, {len(self._arrived)} arrived", every=0.1)


@pytest.fixture
def server(start_local):
    return start_local("logs:4", "--memory=1GiB")


@pytest.fixture
def lines(server):
    return Lines(server)


def require_exact(server, *sources):
    """Each line once; headers are lines that no source wrote."""
    verdict = oracle.verify(server.url, "logs", list(sources))
    oracle.require(not verdict.lost, verdict)
    assert not verdict.duplicated, verdict
    return verdict


def test_two_files_with_the_same_first_lines_are_two(server, make_agent, logs, lines):
    one, two = oracle.Source(1), oracle.Source(2)
    for name, source in (("a.log", one), ("b.log", two)):
        (logs / name).write_bytes(HEADER)
        source.write(logs / name, 500)
    agent = make_agent(logs / "*.log", server.url, "logs")
    run = agent.start()
    lines.wait(one, two)
    one.write(logs / "a.log", 500)
    two.write(logs / "b.log", 500)
    lines.wait(one, two)
    assert run.terminate() == 0
    one.write(logs / "a.log", 500)
    # Their names change places while nobody looks.
    os.rename(logs / "a.log", logs / "c.log")
    os.rename(logs / "b.log", logs / "a.log")
    os.rename(logs / "c.log", logs / "b.log")
    two.write(logs / "a.log", 500)
    assert agent.once().process.returncode == 0
    require_exact(server, one, two)


def test_a_file_without_a_whole_first_line_is_known_by_what_it_has(server, make_agent, logs, lines):
    source = oracle.Source(1)
    [first] = source.lines(1)
    path = logs / "app.log"
    path.write_bytes(first[:40])
    agent = make_agent(path, server.url, "logs")
    run = agent.start()
    until(lambda: agent.checkpoints, 10, "the state file")
    assert run.terminate() == 0
    # Rotated while nobody looks: only its inode and 40 bytes tell which it is.
    os.rename(path, logs / "app.log.1")
    with open(logs / "app.log.1", "ab") as file:
        file.write(first[40:])
    source.write(logs / "app.log.1", 100)
    source.write(path, 100)
    assert agent.once().process.returncode == 0
    require_exact(server, source)


@pytest.mark.parametrize("open_files", [4096, 16], ids=["open", "closed"])
def test_an_inode_that_is_given_again_is_another_file(open_files, server, make_agent, logs, lines):
    """No file system gives one again when a test wants it: an emptied file under another name is the same thing."""
    sources = [oracle.Source(number) for number in range(60)]
    for source in sources:
        (logs / f"{source.number}.log").write_bytes(HEADER)
        source.write(logs / f"{source.number}.log", 20)
    agent = make_agent(logs / "*.log", server.url, "logs", agent={"max_open_files": open_files})
    run = agent.start()
    lines.wait(*sources)
    for running in (True, False):
        if not running:
            assert run.terminate() == 0
        for old in sources[:30] if running else sources[30:60]:
            path = logs / f"{old.number}.log"
            os.truncate(path, 0)
            # Longer than the one whose inode it has, and often under its name.
            source = oracle.Source(len(sources))
            sources.append(source)
            name = path if old.number % 2 else logs / f"{source.number}.log"
            os.rename(path, name)
            with open(name, "r+b") as file:
                file.write(HEADER + b"".join(source.lines(40)))
        if running:
            lines.wait(*sources)
    assert agent.once().process.returncode == 0
    require_exact(server, *sources)


@pytest.mark.parametrize("header", [b"", HEADER], ids=["plain", "header"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_a_file_that_is_rewritten_and_longer_is_read_from_its_start(header, running, server, make_agent, logs, lines):
    source = oracle.Source(1)
    path = logs / "app.log"
    path.write_bytes(header)
    source.write(path, 1000)
    agent = make_agent(path, server.url, "logs")
    run = agent.start()
    lines.wait(source)
    for round_ in range(5):
        if not running:
            assert run.terminate() == 0
        with open(path, "r+b") as file:
            file.truncate()
            file.write(header + b"".join(source.lines(1100 + 100 * round_)))
        if not running:
            run = agent.start()
        lines.wait(source)
    assert run.terminate() == 0
    require_exact(server, source)


def test_a_copy_is_finished_from_the_newest_of_many_that_look_alike(server, make_agent, logs, lines):
    """An older copy has the same beginning, but what was written since is in the newest alone."""
    source = oracle.Source(1)
    path = logs / "app.log"
    path.write_bytes(HEADER)
    source.write(path, 1000)
    agent = make_agent(path, server.url, "logs")
    run = agent.start()
    lines.wait(source)
    assert run.terminate() == 0
    shutil.copyfile(path, logs / "a-backup.log")
    source.write(path, 1000)
    shutil.copyfile(path, logs / "b-backup.log")
    source.write(path, 1000)
    shutil.copyfile(path, logs / "app.log.1")
    # Begins alike, and is another's.
    (logs / "zzz.log").write_bytes(HEADER + b"x" * path.stat().st_size)
    os.truncate(path, 0)
    source.write(path, 10)
    last = agent.once()
    assert last.process.returncode == 0
    assert "finishing its copy" in last.log and "app.log.1" in last.log
    require_exact(server, source)


def test_copytruncate_while_the_agent_lags_by_100_megabytes_loses_nothing(
    server, make_agent, logs, figure
):
    source = oracle.Source(1)
    path = logs / "app.log"
    source.write(path, 1000)
    agent = make_agent(logs / "app.log*", server.url, "logs", rate_limit=100)
    run = agent.start()
    run.wait_for("tailing file")
    source.write(path, 580_000)
    lag = path.stat().st_size - max(agent.checkpoints.values(), default=0)
    shutil.copyfile(path, logs / "app.log.1")
    os.truncate(path, 0)
    source.write(path, 1000)
    run.wait_for("finishing its copy", timeout=30)
    assert run.terminate() == 0
    # Not at four shards' own rate: that would take half a minute.
    agent.output["rate_limit"] = 0
    last = agent.once(timeout=120)
    assert last.process.returncode == 0, last.log
    figure(f"{lag} bytes behind when truncated; {require_exact(server, source)}")
    assert lag > 100_000_000, "the test must have tested something"
