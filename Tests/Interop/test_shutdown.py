"""A stop delivers what was read within shutdown_timeout; the rest stays in its files, for the next start."""

import signal
import socket
import threading
import time
import urllib.parse

import oracle
import pytest
from conftest import until
from listener import Listener
from test_spool import ledger


def message_of(record):
    """What stands behind a syslog message's header."""
    return [record.split(b" - - - ", 1)[1]]


def free_port():
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Appender:
    """Appends lines to a file, on and on, in a thread."""

    def __init__(self, path):
        self.source = oracle.Source(1)
        self._path = path
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stopping.wait(0.005):
            self.source.write(self._path, 100)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join(20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_stop_delivers_what_was_read_and_the_next_start_goes_on_there(
    local_kinesis, stream, make_agent, logs, figure, number
):
    agent = make_agent(logs / "app.log", local_kinesis.url, stream, agent={"shutdown_timeout": "10s"})
    with Appender(logs / "app.log") as appender:
        took = []
        for _ in range(4):
            run = agent.start()
            run.wait_for("tailing file")
            time.sleep(0.5)
            began = time.monotonic()
            assert run.terminate(number, timeout=11) == 0, run.log
            took.append(time.monotonic() - began)
            assert f"signal={number.name}" in run.log or "stopping" in run.log
            assert "everything that was read is delivered" in run.log, run.log
    assert agent.once().process.returncode == 0
    verdict = oracle.verify(local_kinesis.url, stream, [appender.source])
    figure(f"{verdict}; stops took {max(took) * 1000:.0f} ms at most")
    assert verdict.written > 5_000
    verdict.require_exact()


def test_a_stop_does_not_wait_for_linger(local_kinesis, stream, make_agent, logs):
    source = oracle.Source(1)
    source.write(logs / "app.log", 10)
    agent = make_agent(logs / "app.log", local_kinesis.url, stream, linger="60s")
    run = agent.start()
    run.wait_for("tailing file")
    time.sleep(0.3)
    assert run.terminate(timeout=5) == 0, run.log
    oracle.verify(local_kinesis.url, stream, [source]).require_exact()


def test_a_stop_while_the_endpoint_is_down_ends_in_time_and_the_next_start_delivers(
    start_local, make_agent, logs, figure
):
    port = free_port()
    source = oracle.Source(1)
    source.write(logs / "app.log", 20_000)
    agent = make_agent(logs / "app.log", f"http://127.0.0.1:{port}", "logs", agent={"shutdown_timeout": "2s"})
    run = agent.start()
    run.wait_for("Kinesis cannot be reached")
    began = time.monotonic()
    code = run.terminate(timeout=10)
    took = time.monotonic() - began
    figure(f"ended after {took:.2f} s with shutdown_timeout 2 s")
    assert 1.5 < took < 3.5, run.log
    assert code == 0
    assert "not everything was delivered; it stays in its files" in run.log
    server = start_local("logs:4", port=port)
    assert agent.once().process.returncode == 0
    oracle.verify(server.url, "logs", [source]).require_exact()


def test_a_stop_while_kinesis_accepts_connections_and_never_answers_ends_in_time(start_local, make_agent, logs):
    source = oracle.Source(1)
    source.write(logs / "app.log", 5_000)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        agent = make_agent(logs / "app.log", f"http://127.0.0.1:{port}", "logs", agent={"shutdown_timeout": "2s"})
        run = agent.start()
        run.wait_for("tailing file")
        time.sleep(0.5)
        began = time.monotonic()
        assert run.terminate(timeout=10) == 0
        assert time.monotonic() - began < 3.5, run.log
    server = start_local("logs:4", port=port)
    assert agent.once().process.returncode == 0
    oracle.verify(server.url, "logs", [source]).require_exact()


HINDRANCES = {
    "throttled": [f"--shard-limit=logs:{shard}=0" for shard in range(4)],
    # Each call may hold the record that is to blame: all are under suspicion, and none is delivered.
    "refused": ["--fault=error:op=PutRecords,code=ValidationException,status=400"],
    "unanswered": ["--fault=hang:op=PutRecords,for=60s"],
}


@pytest.mark.parametrize("output", [{}, {"partition_key": "source", "ordered": True}, {"spool": {"when": "always"}}], ids=str)
@pytest.mark.parametrize("hindrance", HINDRANCES)
def test_a_stop_that_cannot_deliver_leaves_everything_it_has_read_in_the_spool_and_ends_in_time(
    start_local, make_agent, logs, figure, hindrance, output
):
    """Where records come from sockets there is no file that they could stay in."""
    server = start_local("logs:4", *HINDRANCES[hindrance])
    source, path = oracle.Source(1), logs / "app.log"
    source.write(path, 20_000)
    agent = make_agent(logs / "*.log", server.url, "logs", agent={"shutdown_timeout": "3s"}, timeout="60s", **output)
    run = agent.start()
    run.wait_for("tailing file")
    time.sleep(1)
    began = time.monotonic()
    assert run.terminate(timeout=10) == 0, run.log
    took = time.monotonic() - began
    account = ledger(agent)
    figure(f"stopped after {took:.2f} s of 3 s: {account}")
    # The disk may stand still for a moment.
    assert took < 5, run.log
    assert account["in_flight"] == {"records": 0, "bytes": 0}, run.log
    assert account["spooled"] == account["read"] and account["read"]["records"] > 1000
    assert agent.checkpoints[path.stat().st_ino] == account["read"]["bytes"]
    # Only the spool has them now; what was not read is written anew.
    unread = path.read_bytes()[account["read"]["bytes"] :]
    path.unlink()
    (logs / "rest.log").write_bytes(unread)
    server.admin("faults", method="DELETE")
    for shard in range(4):
        server.admin("limits", {"stream": "logs", "shard": shard, "percent": 100_000})
    last = agent.once()
    assert last.process.returncode == 0, last.log
    verdict = oracle.verify(server.url, "logs", [source])
    verdict.require_nothing_lost()
    if hindrance != "unanswered":
        verdict.require_exact()
    assert ledger(agent)["dead_lettered"]["records"] == 0


def test_a_stop_in_an_outage_keeps_what_sockets_sent_and_a_reshard_took_apart(start_local, make_agent, figure):
    """No file has it: the aggregates made anew for other shards are in the spool, whole, or nowhere."""
    server = start_local("logs:1")
    source, sent = oracle.Source(1), 0
    agent = Listener(
        make_agent, server.url, "logs", "tcp://127.0.0.1:0", agent={"shutdown_timeout": "3s"},
        output={"partition_key": "host", "linger": "500ms"},
    )

    def send(count):
        nonlocal sent
        lines = source.lines(count)
        connection.sendall(b"".join(b"<13>1 - host%d app - - - %s" % (n % 100, line) for n, line in enumerate(lines)))
        sent += count

    with agent.connect() as connection:
        send(1000)
        agent.settle(1000)
        # One more call comes through: its answer names shards that the agent does not know.
        server.admin(body={"fault": "error", "op": "PutRecords", "code": "InternalFailure", "status": 500, "skip": 1})
        oracle.client(server.url).split_shard(
            StreamName="logs", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(1 << 127)
        )

        def is_told():
            # Some of it is open whenever the answer comes.
            send(100)
            return "the stream has other shards now" in agent.run.log

        until(is_told, 20, "other shards", every=0.02)
        until(lambda: ledger(agent.agent)["read"]["records"] == sent, 20, "all to be read")
        assert agent.run.terminate(timeout=10) == 0, agent.run.log
    account = ledger(agent.agent)
    figure(f"stopped with {account}")
    assert account["in_flight"] == {"records": 0, "bytes": 0}, agent.run.log
    assert account["spooled"]["records"] == sent - account["delivered"]["records"] > 0
    server.admin(method="DELETE")
    second = agent.agent.start()
    until(lambda: ledger(agent.agent)["spooled"]["records"] == 0, 20, "the spool to be delivered")
    assert second.terminate() == 0, second.log
    # A consumer drops those that the last call brought to the wrong shard.
    verdict = oracle.verify(server.url, "logs", [source], drops=True, decoder=message_of)
    figure(f"{verdict}")
    verdict.require_nothing_lost()


def test_an_outage_in_the_middle_loses_nothing_and_is_told_when_it_is_over(start_local, make_agent, logs, figure):
    """The embedded Kinesis goes away with what it held; what it had acknowledged is counted before it goes."""
    first = start_local("logs:4")
    port = urllib.parse.urlsplit(first.url).port
    agent = make_agent(logs / "app.log", first.url, "logs")
    before, after = oracle.Source(1), oracle.Source(2)
    before.write(logs / "app.log", 10_000)
    run = agent.start()
    kinesis = oracle.client(first.url)
    readers = [oracle.ShardReader(kinesis, "logs", shard) for shard in oracle.shards_of(kinesis, "logs")]
    arrived = []

    def is_complete():
        for reader in readers:
            arrived.extend(oracle.parse(record.data) for record in reader.user_records())
        return len(arrived) >= 10_000

    until(is_complete, 10, "the first lines")
    assert sorted(arrived) == [(1, number) for number in range(10_000)]
    # Acknowledged is more than stored: the answers must have been read.
    until(lambda: (logs / "app.log").stat().st_size in agent.checkpoints.values(), 5, "the checkpoint")
    first.stop()
    after.write(logs / "app.log", 10_000)
    run.wait_for("Kinesis cannot be reached")
    time.sleep(1)
    second = start_local("logs:4", port=port)
    run.wait_for("Kinesis answers again", timeout=20)
    run.wait_for("everything that was spooled is delivered", timeout=20)
    assert run.terminate() == 0, run.log
    verdict = oracle.verify(second.url, "logs", [after])
    figure(verdict)
    verdict.require_exact()
    assert run.log.count("Kinesis cannot be reached") <= 6, "a flood of one message is held back"


def test_run_once_ends_with_69_when_connections_are_refused(make_agent, logs, tmp_path):
    oracle.Source(1).write(logs / "app.log", 10)
    agent = make_agent(
        logs / "app.log", f"http://127.0.0.1:{free_port()}", "logs", agent={"shutdown_timeout": "1s"}
    )
    run = agent.once(timeout=10)
    assert run.process.returncode == 69, run.log
    assert "Kinesis cannot be reached" in run.log
    assert "not everything was delivered; it stays in its files" in run.log
    assert all(position == 0 for position in agent.checkpoints.values())
