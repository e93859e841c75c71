"""Real logrotate with copytruncate, while the agent lags behind: what it had not read is finished in the copy."""

import grp
import os
import pwd
import shutil
import subprocess
import time

import oracle
import pytest
from conftest import until

LOGROTATE = shutil.which("logrotate") or "/usr/sbin/logrotate"


def rotate(tmp_path, path, more=""):
    config = tmp_path / "logrotate.conf"
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    config.write_text(f"{path} {{\n  rotate 9\n  copytruncate\n  missingok\n{more}  su {user} {group}\n}}\n")
    config.chmod(0o644)
    subprocess.run([LOGROTATE, "--force", "--state", tmp_path / "logrotate.state", config], check=True, timeout=60)


def wait_for_all(server, sources, timeout=60):
    kinesis = oracle.client(server.url)
    readers = [oracle.ShardReader(kinesis, "logs", shard) for shard in oracle.shards_of(kinesis, "logs")]
    arrived = set()

    def complete():
        for reader in readers:
            arrived.update(oracle.parse(record.data) for record in reader.user_records())
        return len(arrived) >= sum(source.written for source in sources)

    until(complete, timeout, lambda: f"{sum(s.written for s in sources)} lines, {len(arrived)} arrived", every=0.2)


# The pattern with a star meets the copy as a file of its own, which it must not read from its start.
@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_a_lagging_agent_finishes_the_copies(pattern, start_local, make_agent, logs, tmp_path, figure):
    server = start_local("logs:4")
    source = oracle.Source(1)
    path = logs / "app.log"
    source.write(path, 1000)
    # Four shards' own limits: 4 MiB a second, which the file outgrows at once.
    agent = make_agent(logs / pattern, server.url, "logs", rate_limit=100)
    run = agent.start()
    run.wait_for("tailing file")
    lags = []
    for _ in range(2):
        source.write(path, 60_000)
        until(lambda: agent.checkpoints, 10, "a checkpoint")
        lags.append(path.stat().st_size - max(agent.checkpoints.values()))
        rotate(tmp_path, path)
        source.write(path, 500)
        # The second may come before the agent has read anything of what followed the first.
        run.wait_for("finishing its copy", timeout=20)
    wait_for_all(server, [source])
    assert run.terminate() == 0
    verdict = oracle.verify(server.url, "logs", [source])
    figure(f"{pattern}: bytes behind when truncated {lags}; {verdict}")
    assert min(lags) > 1_000_000, "the test must have tested something"
    verdict.require_nothing_lost()
    assert verdict.duplicated == 0


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
@pytest.mark.parametrize("regrown", [100, 20_000], ids=["shorter", "longer"])
@pytest.mark.parametrize("more", ["", "  dateext\n  extension .log\n"], ids=["numbered", "dated"])
def test_a_file_truncated_while_no_agent_runs_is_finished_in_its_copy(
    pattern, regrown, more, start_local, make_agent, logs, tmp_path
):
    # A dated copy, app-20261121.log, is met before app.log.
    pattern = pattern.replace("app.log*", "app*.log*")
    server = start_local("logs:4")
    source = oracle.Source(1)
    path = logs / "app.log"
    agent = make_agent(logs / pattern, server.url, "logs")
    source.write(path, 5000)
    run = agent.start()
    wait_for_all(server, [source])
    assert run.terminate() == 0
    source.write(path, 5000)
    rotate(tmp_path, path, more)
    source.write(path, regrown)
    last = agent.once()
    assert last.process.returncode == 0, last.log
    assert "finishing its copy" in last.log
    verdict = oracle.verify(server.url, "logs", [source])
    verdict.require_nothing_lost()
    assert verdict.duplicated == 0


def test_a_file_that_was_read_to_its_end_is_not_read_again_as_its_copy(start_local, make_agent, logs, tmp_path):
    server = start_local("logs:4")
    source = oracle.Source(1)
    path = logs / "app.log"
    agent = make_agent(logs / "app.log*", server.url, "logs")
    source.write(path, 3000)
    run = agent.start()
    wait_for_all(server, [source])
    rotate(tmp_path, path)
    source.write(path, 3000)
    wait_for_all(server, [source])
    assert run.terminate() == 0
    last = agent.once()
    assert last.process.returncode == 0, last.log
    verdict = oracle.verify(server.url, "logs", [source])
    verdict.require_nothing_lost()
    assert verdict.duplicated == 0


def test_a_log_that_begins_like_its_neighbour_is_read_while_it_grows(start_local, make_agent, logs):
    server = start_local("logs:4")
    header = b"#Software: the same in every file\n" * 60
    old, new = oracle.Source(1), oracle.Source(2)
    (logs / "app.log").write_bytes(header)
    old.write(logs / "app.log", 100)
    agent = make_agent(logs / "*.log", server.url, "logs")
    run = agent.start()
    run.wait_for("tailing file")
    (logs / "other.log").write_bytes(header)
    # It never stands still for as long as a copy would be waited for.
    for _ in range(20):
        new.write(logs / "other.log", 10)
        time.sleep(0.1)
    assert "other.log" in run.log
    assert run.terminate() == 0
    # The headers are lines that no source wrote.
    verdict = oracle.verify(server.url, "logs", [old, new])
    oracle.require(not verdict.lost, verdict)
    assert not verdict.duplicated, verdict


def test_an_unfinished_line_that_is_cut_off_does_not_keep_a_single_run_from_ending(start_local, make_agent, logs):
    server = start_local("logs:4", "--refuse-cbor")
    path = logs / "app.log"
    source = oracle.Source(1)
    source.write(path, 10)
    whole = path.stat().st_size
    with open(path, "ab") as file:
        file.write(b"half a line")
    agent = make_agent(path, server.url, "logs")
    run = agent.start()
    wait_for_all(server, [source])
    os.truncate(path, whole)
    assert run.terminate() == 0
    assert agent.once().process.returncode == 0


def test_a_copy_with_the_inode_of_an_empty_file_of_the_last_run_is_not_read_again(start_local, make_agent, logs):
    """Of an empty file nothing is known but its inode, which another file may get."""
    server = start_local("logs:4", "--memory=256MiB")
    source, path = oracle.Source(1), logs / "app.log"
    agent = make_agent(path, server.url, "logs", rate_limit=0)
    path.touch()
    first = agent.start()
    first.wait_for("tailing file", 10)
    until(lambda: agent.checkpoints, 10, "the state of the empty file")
    assert first.terminate() == 0, first.log
    # Its inode lives on, under a name that is no rotated one.
    hidden = logs / ".hidden"
    path.rename(hidden)
    source.write(path, 5000)
    run = agent.start()
    until(lambda: path.stat().st_size in agent.checkpoints.values(), 20, "the file to settle")
    hidden.write_bytes(path.read_bytes())
    hidden.rename(logs / "app.log.1")
    # Until the folder has been searched: some copies take so long.
    time.sleep(4)
    with open(path, "r+b") as file:
        file.truncate(0)
    source.write(path, 100)
    time.sleep(1)
    until(lambda: path.stat().st_size in agent.checkpoints.values(), 20, "the rest to settle")
    assert run.terminate() == 0, run.log
    verdict = oracle.verify(server.url, "logs", [source])
    verdict.require_exact()
