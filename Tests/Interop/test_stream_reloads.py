"""Another configuration ends an input of streams while nothing has room for what it has read."""

import json
import signal
import socket
import threading
import time

import oracle
import pytest
from conftest import until
from listener import Listener


@pytest.fixture
def stuck(make_agent, start_local, tmp_path):
    """An agent whose Kinesis has stopped, whose spool is full, and whose only sender is held back."""
    local = start_local("logs:2")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    agent = Listener(
        make_agent, local.url, "logs", f"tcp://127.0.0.1:{port}", framing="newline",
        agent={"memory_limit": "64MiB", "shutdown_timeout": "3s"},
        output={"spool": {"max_size": "16MiB", "keep_free": "0MiB"}, "timeout": "2s"},
    )
    agent.local, agent.source = local, oracle.Source(0)
    agent.sender = agent.connect()
    agent.sender.sendall(b"".join(agent.source.lines(1)))
    # Without a map of the shards it would not even spool.
    agent.expect([agent.source.line(0).rstrip(b"\n")])
    local.process.send_signal(signal.SIGSTOP)
    sent, ended = [0], threading.Event()

    def send():
        try:
            while True:
                block = b"".join(agent.source.lines(500))
                agent.sender.sendall(block)
                sent[0] += len(block)
        except OSError:
            ended.set()

    agent.ended = ended
    thread = threading.Thread(target=send, daemon=True)
    agent.sender.settimeout(100)
    thread.start()
    before, since, deadline = -1, time.monotonic(), time.monotonic() + 60
    while time.monotonic() - since < 4:
        assert time.monotonic() < deadline, f"it is never held back: {sent}"
        time.sleep(0.1)
        if sent[0] != before:
            before, since = sent[0], time.monotonic()
    yield agent
    local.process.send_signal(signal.SIGCONT)
    agent.sender.close()
    thread.join(20)


def reload(agent, answer, **settings):
    """Changes the input; the seconds until the agent says `answer` once more."""
    before, start = agent.run.log.count(answer), time.monotonic()
    agent.agent.inputs["net"] |= settings
    agent.agent.write_config()
    agent.run.process.send_signal(signal.SIGHUP)
    until(lambda: agent.run.log.count(answer) > before, 15, lambda: f"{answer} in {agent.run.log}")
    return time.monotonic() - start


def account(agent):
    inputs = json.loads((agent.agent.state / "ledger.json").read_text())["inputs"]
    return {name: value["records"] for name, value in inputs[0].items() if name != "input"}


def test_streams_that_end_without_room_follow_later_and_hold_up_nobody(stuck, figure):
    taken, refused = "another configuration is taken on", "the configuration cannot be taken on"
    took = reload(stuck, taken, framing="nul")
    figure(f"taken on after {took:.1f} s")
    assert took < 8 and "streams that end wait for room for what they have read" in stuck.run.log
    # Others are served at once.
    with stuck.connect() as other:
        other.sendall(b"a new connection\0")
        # What waits is bounded: no second change may end streams.
        reload(stuck, refused, framing="length_prefix")
        stuck.agent.inputs["net"]["framing"] = "nul"
        stuck.local.process.send_signal(signal.SIGCONT)
        assert stuck.ended.wait(40)
        stuck.run.wait_for("an input of streams has ended", 40)
        until(lambda: b"a new connection" in stuck.records(), 60, "the new connection's line", every=0.5)
    until(lambda: account(stuck)["spooled"] == account(stuck)["in_flight"] == 0, 60, lambda: account(stuck), every=0.2)
    reload(stuck, taken, framing="length_prefix")
    assert stuck.run.terminate() == 0
    # Every line that it read, up to the last, perhaps with a part of the next.
    records = set(stuck.records()) - {b"a new connection"}
    lines = {line[1] for line in map(oracle.parse, records) if line}
    assert lines == set(range(len(lines))), "there is a gap"
    pieces = [record for record in records if not oracle.parse(record)]
    assert len(pieces) <= 1 and all(stuck.source.line(len(lines)).startswith(piece) for piece in pieces)
    counts = account(stuck)
    assert counts["read"] == counts["delivered"] == len(records) + 1 and counts["dropped"] == 0
    assert stuck.run.peak < 96 << 20


def test_what_never_finds_room_is_lost_aloud(stuck, figure):
    reload(stuck, "another configuration is taken on", framing="nul")
    start = time.monotonic()
    stuck.run.terminate(timeout=30)
    assert time.monotonic() - start < 10
    line = stuck.run.wait_for("records of streams are lost", 1)
    lost = int(line.rsplit("records=", 1)[1])
    counts = account(stuck)
    figure(f"{lost} of {counts['read']} records that were read")
    assert counts["dropped"] == lost > 0
    assert counts["read"] == sum(counts[place] for place in ("delivered", "in_flight", "spooled", "dropped", "dead_lettered"))
