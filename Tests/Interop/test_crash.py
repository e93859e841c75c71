"""kill -9 at moments that a random one seldom hits; the random ones are in test_soak.py."""

import os
import time

import oracle
import pytest
from conftest import until

# From the opening of a file to a state file that names it.
TIME_TO_WRITE_DOWN = 0.25


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


@pytest.mark.parametrize("made", [0.4, 1], ids=["half made", "made"])
def test_a_start_between_copy_and_truncation_does_not_take_the_copy_for_another_file(
    start_local, make_agent, logs, made
):
    """copytruncate's copy matches the pattern: an agent that starts just then has read what is in it under another name."""
    server = start_local("logs:4")
    source = oracle.Source(1)
    path = logs / "app.log"
    source.write(path, 2000)
    agent = make_agent(logs / "app.log*", server.url, "logs")
    run = agent.start()
    until(lambda: path.stat().st_size in agent.checkpoints.values(), 5, "the checkpoint")
    run.kill()
    text = path.read_bytes()
    (logs / "app.log.1").write_bytes(text[: int(len(text) * made)])
    run = agent.start()
    run.wait_for("tailing file")
    time.sleep(0.5)
    (logs / "app.log.1").write_bytes(text)
    os.truncate(path, 0)
    source.write(path, 100)
    run.wait_for("finishing its copy")
    until(lambda: path.stat().st_size in agent.checkpoints.values(), 5, "the rest")
    assert run.terminate() == 0
    oracle.verify(server.url, "logs", [source]).require_exact()
