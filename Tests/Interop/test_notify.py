"""The service manager's side of the agent: sd_notify(3) with READY, RELOADING, STOPPING, STATUS and the watchdog's beat."""

import os
import signal
import socket
import time

import pytest
from conftest import environment, until


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
