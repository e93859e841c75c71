"""Rotated and packed before it was finished: the rest is read from the .gz, by real gzip and real logrotate."""

import gzip
import os
import signal
import subprocess

import oracle
import pytest
from conftest import until
from test_copytruncate import rotate
from test_same_content import HEADER, Lines, require_exact


@pytest.fixture
def server(start_local):
    return start_local("logs:4", "--memory=1GiB")


def pack(path):
    subprocess.run(["gzip", "-f", path], check=True, timeout=60)


@pytest.mark.parametrize("header", [b"", HEADER], ids=["plain", "header"])
def test_what_was_packed_while_no_agent_ran_is_finished_from_its_gz(header, server, make_agent, logs):
    """Three rotations, so that two of the packed files are others that begin alike."""
    source = oracle.Source(1)
    path = logs / "app.log"
    path.write_bytes(header)
    source.write(path, 5000)
    agent = make_agent(path, server.url, "logs")
    assert agent.once().process.returncode == 0
    source.write(path, 40_000)
    with open(path, "ab") as file:
        [line] = source.lines(1)
        file.write(line[:-1])
    os.rename(path, logs / "app.log.1")
    pack(logs / "app.log.1")
    for number in (2, 3):
        (logs / f"app.log.{number}").write_bytes(header + b"what another program wrote\n" * 60_000 * number)
        pack(logs / f"app.log.{number}")
    source.write(path, 100)
    run = agent.once()
    assert run.process.returncode == 0, run.log
    assert "reading the rest from its .gz" in run.log and "packed file is finished" in run.log
    require_exact(server, source)
    # It is finished, and known to be.
    again = agent.once()
    assert ".gz" not in again.log and "records=0" in again.log
    assert len(agent.entries) == 1


@pytest.mark.parametrize("is_rotated", [False, True])
def test_what_was_packed_is_finished_though_its_inode_is_another_files_by_now(server, make_agent, logs, is_rotated):
    """Both have entries: the one was read from its .gz when the agent was killed, the other was new then."""
    source = oracle.Source(1)
    path = logs / "app.log"
    source.write(path, 1000)
    agent = make_agent(path, server.url, "logs")
    assert agent.once().process.returncode == 0
    source.write(path, 1000)
    with gzip.open(logs / "app.log.1.gz", "wb") as packed:
        packed.write(path.read_bytes())
    # File systems give the inode of a file that was removed to the next one: here for certain.
    os.truncate(path, 0)
    source.write(path, 500)
    inode = str(path.stat().st_ino)
    server.process.send_signal(signal.SIGSTOP)
    run = agent.start()
    run.wait_for("reading the rest from its .gz")
    until(lambda: [entry["inode"] for entry in agent.entries.values()].count(inode) == 2, 10, "both entries")
    run.kill()
    server.process.send_signal(signal.SIGCONT)
    if is_rotated:
        os.rename(path, logs / "app.log.2")
        source.write(path, 100)
    last = agent.once()
    assert last.process.returncode == 0 and "file is gone" not in last.log, last.log
    oracle.verify(server.url, "logs", [source]).require_nothing_lost()
    again = agent.once()
    assert ".gz" not in again.log and "records=0" in again.log


def test_a_member_a_line_and_a_kill_in_the_middle(server, make_agent, logs):
    """gzip files may be joined; and what a dead agent had begun is begun again behind what was acknowledged."""
    source = oracle.Source(1)
    path = logs / "app.log"
    source.write(path, 1000)
    agent = make_agent(path, server.url, "logs", rate_limit=100)
    assert agent.once().process.returncode == 0
    source.write(path, 60_000)
    text = path.read_bytes()
    cuts = [0, 100_000, 100_001, 5_000_000, len(text)]
    packed = b"".join(gzip.compress(text[start:end]) for start, end in zip(cuts, cuts[1:]))
    (logs / "app.log.1.gz").write_bytes(packed + bytes(512))
    path.unlink()
    run = agent.start()
    run.wait_for("reading the rest from its .gz")
    lines = Lines(server)
    lines.wait_for_some(5000)
    run.kill()
    agent.output["rate_limit"] = 0
    last = agent.once()
    assert last.process.returncode == 0, last.log
    verdict = oracle.verify(server.url, "logs", [source])
    verdict.require_nothing_lost()
    assert verdict.duplicated < 40_000


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_logrotate_packs_while_no_agent_runs_and_while_one_lags(pattern, server, make_agent, logs, tmp_path):
    source = oracle.Source(1)
    path = logs / "app.log"
    source.write(path, 2000)
    # The shards' own limits hold the agent back.
    agent = make_agent(logs / pattern, server.url, "logs", rate_limit=100, inputs={"exclude": [str(logs / "*.gz")]})
    run = agent.start()
    lines = Lines(server)
    lines.wait(source)
    source.write(path, 40_000)
    rotate(tmp_path, path, "  compress\n")
    source.write(path, 1000)
    run.wait_for("file was truncated", timeout=20)
    lines.wait(source)
    assert run.terminate() == 0
    source.write(path, 20_000)
    rotate(tmp_path, path, "  compress\n")
    source.write(path, 1000)
    agent.output["rate_limit"] = 0
    last = agent.once()
    assert last.process.returncode == 0, last.log
    assert "reading the rest from its .gz" in last.log
    require_exact(server, source)


def test_a_damaged_gz_is_told_and_its_entry_kept_until_it_is_whole(server, make_agent, logs):
    source = oracle.Source(1)
    path = logs / "app.log"
    source.write(path, 1000)
    agent = make_agent(path, server.url, "logs")
    assert agent.once().process.returncode == 0
    source.write(path, 10_000)
    pack(path)
    packed = logs / "app.log.gz"
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    # What of it can be inflated is delivered; the rest is waited for.
    first = agent.once()
    assert first.process.returncode == 0, first.log
    assert "damaged .gz" in first.log and len(agent.entries) == 1
    run = agent.start()
    run.wait_for("damaged .gz")
    packed.write_bytes(whole)
    run.wait_for("packed file is finished", timeout=20)
    Lines(server).wait(source)
    assert run.terminate() == 0
    require_exact(server, source)
    assert agent.entries == {}


def test_with_read_compressed_off_packed_files_are_left_alone(server, make_agent, logs):
    source = oracle.Source(1)
    path = logs / "app.log"
    source.write(path, 1000)
    agent = make_agent(path, server.url, "logs", inputs={"read_compressed": False})
    assert agent.once().process.returncode == 0
    source.write(path, 1000)
    pack(path)
    run = agent.once()
    assert run.process.returncode == 0 and "records=0" in run.log and ".gz" not in run.log
