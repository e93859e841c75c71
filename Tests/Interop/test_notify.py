"""The service manager's side of the agent: sd_notify(3) with READY, RELOADING, STOPPING, STATUS and the watchdog's beat."""

import os
import signal
import socket
import subprocess
import time

import pytest
from conftest import BINARY, environment, until


class Manager:
    """The owner of NOTIFY_SOCKET, as systemd is."""

    def __init__(self, address):
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.messages = []

    def receive(self):
        while True:
            try:
                message = self.socket.recv(65536).decode()
            except BlockingIOError:
                return self.messages
            self.messages.append((time.monotonic(), dict(line.split("=", 1) for line in message.split("\n"))))

    def wait_for(self, key, after=0, timeout=10):
        """The first message with `key` behind the first `after`, with how many there are up to it."""

        def found():
            messages = self.receive()
            return next((index + 1 for index in range(after, len(messages)) if key in messages[index][1]), None)

        count = until(found, timeout, lambda: f"{key} in {self.messages}")
        return self.messages[count - 1][1], count

    def environment(self, **more):
        return environment(NOTIFY_SOCKET=self.address, **more)


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else f"@penstock-{os.getpid()}-{tmp_path.name}")
    yield manager
    manager.socket.close()


def test_ready_reloading_and_stopping_are_told_in_their_order(manager, local_kinesis, stream, make_agent, logs):
    agent = make_agent(logs / "app.log", local_kinesis.url, stream)
    run = agent.start(env=manager.environment())
    ready, count = manager.wait_for("READY")
    assert ready["READY"] == "1" and ready["STATUS"] == "0 records delivered"

    # A reload begins, with the time by which systemd tells it from an earlier one, and ends.
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    agent.output["linger"] = "50ms"
    agent.write_config()
    run.process.send_signal(signal.SIGHUP)
    reloading, count = manager.wait_for("RELOADING", count)
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    ready, count = manager.wait_for("READY", count)
    assert "another configuration is taken on" in run.log

    # One that is refused ends as well, and the status says so.
    agent.output["linger"] = "soon"
    agent.output["lingr"] = "soon"
    agent.write_config()
    run.process.send_signal(signal.SIGHUP)
    _, count = manager.wait_for("RELOADING", count)
    ready, count = manager.wait_for("READY", count)
    assert ready["STATUS"] == "a configuration with 2 faults is refused, the old one stays; 0 records delivered"

    assert run.terminate() == 0, run.log
    stopping, count = manager.wait_for("STOPPING", count)
    # shutdown_timeout is 20 s: systemd waits for longer than that.
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) == 30_000_000
    assert not any("WATCHDOG" in message for _, message in manager.receive()), "nobody asked for a sign of life"


def test_the_watchdog_gets_its_beat_while_threads_turn_and_the_status_when_it_has_changed(
    manager, local_kinesis, stream, make_agent, logs, figure
):
    agent = make_agent(logs / "app.log", local_kinesis.url, stream)
    run = agent.start(env=manager.environment(WATCHDOG_USEC="2000000"))
    _, count = manager.wait_for("READY")
    for _ in range(4):
        _, count = manager.wait_for("WATCHDOG", count)
    (logs / "app.log").write_text("one\ntwo\nthree\n")
    told, count = manager.wait_for("STATUS", count)
    while told["STATUS"] != "3 records delivered":
        told, count = manager.wait_for("STATUS", count)
    enough = time.monotonic() + 3
    until(lambda: manager.receive() and time.monotonic() > enough, 10, "some beats")
    beats = [at for at, message in manager.receive() if "WATCHDOG" in message]
    longest = max(later - earlier for earlier, later in zip(beats, beats[1:]))
    figure(f"{len(beats)} beats, {longest:.2f} s apart at most, of 2 s")
    assert longest < 2
    # An agent to which nothing happens has nothing to tell but that it lives.
    assert not any("STATUS" in message for _, message in manager.messages[count:])
    assert run.terminate() == 0, run.log


def test_an_agent_that_stands_still_gives_no_sign_of_life_until_it_goes_on(
    manager, local_kinesis, stream, make_agent, logs
):
    run = make_agent(logs / "app.log", local_kinesis.url, stream).start(env=manager.environment(WATCHDOG_USEC="1000000"))
    manager.wait_for("WATCHDOG")
    run.process.send_signal(signal.SIGSTOP)
    time.sleep(0.2)
    count = len(manager.receive())
    time.sleep(2)
    assert len(manager.receive()) == count
    run.process.send_signal(signal.SIGCONT)
    manager.wait_for("WATCHDOG", count)
    assert run.terminate() == 0, run.log


def test_the_sign_of_life_is_not_given_for_another_process(manager, local_kinesis, stream, make_agent, logs):
    env = manager.environment(WATCHDOG_USEC="400000", WATCHDOG_PID="1")
    run = make_agent(logs / "app.log", local_kinesis.url, stream).start(env=env)
    manager.wait_for("READY")
    time.sleep(1)
    assert not any("WATCHDOG" in message for _, message in manager.receive())
    assert run.terminate() == 0, run.log


def test_a_file_that_appears_once_the_agent_is_ready_is_new(manager, local_kinesis, stream, make_agent, logs):
    """With start_at = "end", at the very first start: what was there before begins at its end, what comes then does not."""
    for number in range(500):
        (logs / f"old-{number}.log").write_bytes(b"an old line\n")
    agent = make_agent(logs / "*.log", local_kinesis.url, stream, inputs={"start_at": "end"})
    run = agent.start(env=manager.environment())
    manager.wait_for("READY")
    (logs / "new.log").write_bytes(b"a new line\n")
    until(lambda: "records=1 " in run.log or delivered(agent) == {"new.log"}, 10, lambda: run.log)
    assert run.terminate() == 0
    assert " records=1 " in run.log, run.log


def delivered(agent):
    """Names of the files of which something is delivered that was not there before."""
    return {os.path.basename(entry["path"]) for entry in agent.entries.values() if entry["position"] == 11}


def test_no_core_dump_has_the_agents_memory(local_kinesis, stream, make_agent, logs):
    run = make_agent(logs / "*.log", local_kinesis.url, stream).start()
    until(lambda: "penstock runs" in run.log, 10, lambda: run.log)
    limits = open(f"/proc/{run.process.pid}/limits", encoding="ascii").read()
    assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size")] == [["0", "0"]]
    # A program that takes cores asks for no limit; it gets no mapping.
    assert int(open(f"/proc/{run.process.pid}/coredump_filter", encoding="ascii").read(), 16) == 0
    assert run.terminate() == 0


def test_the_journal_gets_each_lines_priority(local_kinesis, stream, make_agent, logs, tmp_path):
    (logs / "a.log").write_bytes(b"a line\n")
    agent = make_agent(logs / "*.log", local_kinesis.url, stream)
    agent.write_config()

    def log(*of):
        """What an agent logs that is told that its log is the journal, if its device and inode are these."""
        with open(tmp_path / "stderr", "wb") as stderr:
            status = os.fstat(stderr.fileno())
            named = ":".join(str(number) for number in of or (status.st_dev, status.st_ino))
            subprocess.run([BINARY, "run", "--once", "--config", agent.config], stderr=stderr, timeout=20, check=True,
                           env=environment(JOURNAL_STREAM=named))
        return (tmp_path / "stderr").read_text().splitlines()

    lines = log()
    assert lines and all(line.startswith("<5>20" if " notice " in line else "<6>20") for line in lines), lines
    # Somebody else's: what it starts inherits the name, and may log elsewhere.
    assert all(line.startswith("20") for line in log(1, 2))
