"""Streams under load and under fire: fair, bounded, and nothing that was accepted is lost."""

import contextlib
import multiprocessing
import os
import resource
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time

import oracle
import pytest
from authority import Authority
from conftest import until
from listener import Listener

SOAK = "PENSTOCK_SOAK" in os.environ


@pytest.fixture
def listen(make_agent, local_kinesis, stream):
    return lambda *addresses, **settings: Listener(make_agent, local_kinesis.url, stream, *addresses, **settings)


def told(listener, text):
    """How many lines of the log say so: a message that repeats is held back."""
    return sum(text in line for line in listener.run.lines)


def send_for_ever(port, ready):
    """Sends numbered lines as fast as it can, until it is killed; in a process of its own."""
    source = oracle.Source(1)
    block = b"".join(source.lines(5000))
    with socket.create_connection(("127.0.0.1", port)) as sender:
        ready.set()
        while True:
            sender.sendall(block)


@pytest.fixture
def descriptors():
    """As many as we may have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_five_thousand_connections_are_read_fairly_beside_one_that_never_pauses(listen, descriptors, figure):
    """Each sends a line and its end; the agent has read both when it closes."""
    count = 5000 if descriptors >= 12_000 else 500
    agent = listen("tcp://127.0.0.1:0", agent={"memory_limit": "96MiB"})
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    busy = spawn.Process(target=send_for_ever, args=(agent.port(), ready), daemon=True)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(agent.connect()) for _ in range(count)]
        busy.start()
        try:
            assert ready.wait(30)
            time.sleep(1)
            latencies = []
            for number, connection in enumerate(connections[:: max(1, count // 500)]):
                start = time.monotonic()
                connection.sendall(b"%d from one of many\n" % number)
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""
                latencies.append(time.monotonic() - start)
        finally:
            busy.kill()
            busy.join()
        peak = agent.run.peak
    latencies.sort()
    figure(
        f"{count} connections, read after {statistics.median(latencies) * 1000:.1f} ms (median), "
        f"{latencies[-1] * 1000:.1f} ms (worst of {len(latencies)}), {peak >> 20} MiB"
    )
    # The machine may be busy: one in a hundred may be late.
    assert latencies[-1 - len(latencies) // 100] < 0.1 and latencies[-1] < 1
    assert peak < 128 << 20
    assert agent.stop()["connections"] == count + 1


def test_a_stopped_kinesis_holds_streams_back_and_loses_nothing(make_agent, start_local, tmp_path, figure):
    local = start_local("logs:2")
    agent = Listener(
        make_agent, local.url, "logs", "tcp://127.0.0.1:0", f"unix://{tmp_path}/log.sock", agent={"memory_limit": "64MiB"},
        output={"spool": {"max_size": "16MiB", "keep_free": "0MiB"}, "timeout": "2s"},
    )
    sources = [oracle.Source(number) for number in range(2)]
    with agent.connect() as first:
        # Without a map of the shards it would not even spool.
        first.sendall(b"".join(sources[0].lines(1)))
        agent.expect([next(oracle.Source(0).lines(1)).rstrip(b"\n")])
    local.process.send_signal(signal.SIGSTOP)
    sent = [0, 0]

    def send(number, connection):
        for _ in range(200):
            block = b"".join(sources[number].lines(1000))
            connection.sendall(block)
            sent[number] += len(block)

    with agent.connect(timeout=120) as tcp, agent.connect("unix", timeout=120) as unix:
        threads = [threading.Thread(target=send, args=pair) for pair in enumerate((tcp, unix))]
        for thread in threads:
            thread.start()
        # Until nobody gets on.
        before, still = -1, 0
        deadline = time.monotonic() + 60
        while still < 14:
            assert time.monotonic() < deadline, sent
            time.sleep(0.5)
            still = still + 1 if sum(sent) == before else 0
            before = sum(sent)
        assert all(thread.is_alive() for thread in threads), "nobody was held back"
        held = sum(sent)
        local.process.send_signal(signal.SIGCONT)
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
    agent.settle(400_001)
    figures = agent.stop()
    verdict = oracle.verify(local.url, "logs", sources)
    verdict.require_nothing_lost()
    figure(f"{verdict}; held back at {held >> 20} MiB of {sum(sent) >> 20}, for {figures['held_back_ms']} ms")
    assert verdict.written == figures["records"] == 400_001
    assert figures["held_back_ms"] > 2000 and "lost" not in figures
    assert agent.run.peak < 96 << 20


def test_messages_that_end_too_soon_are_kept(listen):
    agent = listen("tcp://127.0.0.1:0")
    code = "import socket,sys,time; s=socket.create_connection(('127.0.0.1',%d)); s.sendall(b'5 whole20 half'); time.sleep(99)"
    sender = subprocess.Popen([sys.executable, "-c", code % agent.port()])
    try:
        agent.expect([b"whole"])
    finally:
        sender.kill()
        sender.wait()
    agent.expect([b"whole", b"half"])
    # A reset in the middle of a line.
    with agent.connect() as reset:
        reset.sendall(b"a line\nhalf a line")
        agent.expect([b"whole", b"half", b"a line"])
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    agent.expect([b"whole", b"half", b"a line", b"half a line"])
    assert told(agent, "a connection ended in the middle of a message") == 2
    assert agent.stop()["unfinished"] == 2


@pytest.mark.parametrize(
    "bytes, reason",
    [
        (b"1000000000000 x", "is announced"), (b"12x", "is decimal digits and a space"),
        (b"012 hello", "does not begin with 0"), (b"<13>no count\n", "is decimal digits and a space"),
        (b"\x16\x03\x01\x02", "is decimal digits and a space"),
    ],
)
def test_a_broken_octet_count_closes_its_connection_alone(listen, bytes, reason):
    agent = listen("tcp://127.0.0.1:0", framing="octet_counting")
    with agent.connect() as other, agent.connect() as broken:
        other.sendall(b"10 half of ")
        broken.sendall(b"2 ok" + bytes)
        with contextlib.suppress(ConnectionResetError):
            assert broken.recv(1) == b""
        other.sendall(b"it11 another one")
        agent.expect([b"ok", b"half of it", b"another one"])
    assert reason in agent.run.wait_for("a connection's framing is broken")
    assert agent.stop()["broken"] == 1


def test_any_bytes_go_through(listen, chance):
    agent = listen("tcp://127.0.0.1:0", framing="newline", type="socket")
    records = [
        bytes(byte for byte in chance.randbytes(chance.randrange(200)) if byte not in (10, 13)) for _ in range(500)
    ] + [b"\0" * 10, b"\xff\xfe\xc3", b"", b"\xed\xa0\x80"]
    stream = b"".join(record + chance.choice([b"\n", b"\r\n"]) for record in records)
    with agent.connect() as sender:
        at = 0
        while at < len(stream):
            size = chance.randrange(1, 2000)
            sender.sendall(stream[at : at + size])
            at += size
    agent.expect(records)


@pytest.mark.parametrize("policy", ["split", "truncate", "dead_letter"])
def test_records_that_are_too_long(listen, penstock, policy):
    agent = listen("tcp://127.0.0.1:0", max_record="1KiB", on_oversize=policy)
    long = b"".join(b"%04d" % number for number in range(700))
    with agent.connect() as lines, agent.connect() as counted:
        lines.sendall(b"before\n" + long + b"\nafter\n")
        counted.sendall(b"%d %s5 after" % (len(long), long))
        pieces = [long[:1024], long[1024:2048], long[2048:]]
        expected = {"split": pieces * 2, "truncate": pieces[:1] * 2, "dead_letter": []}[policy]
        agent.expect([b"before", b"after", b"after"] + expected)
    figures = agent.stop()
    assert figures["oversize"] == 2
    if policy == "truncate":
        assert figures["bytes_truncated"] == 2 * (len(long) - 1024) + 1
    if policy == "dead_letter":
        letters = penstock("read", "--dead-letters", "--config", agent.agent.config).stdout
        assert letters.replace(b"\n", b"") == long * 2


def test_very_many_connections_one_after_the_other(listen, figure):
    """Some with a message, some with a part of one, some with nothing, some reset."""
    agent = listen("tcp://0.0.0.0:0")
    count = 100_000 if SOAK else 10_000
    with agent.connect() as witness:
        before, start = agent.descriptors, time.monotonic()
        for number in range(count):
            # Ports of connections that ended are not free again for a minute: for each of our addresses of its own.
            with socket.create_connection((f"127.0.0.{1 + number % 16}", agent.port()), 20) as connection:
                if number % 4 == 0:
                    connection.sendall(b"whole\n")
                elif number % 4 == 1:
                    connection.sendall(b"part")
                elif number % 4 == 2:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        took = time.monotonic() - start
        witness.sendall(b"still here\n")
        # They are accepted in turn: what is closed behind this one was, too.
        with agent.connect() as last:
            last.shutdown(socket.SHUT_WR)
            assert last.recv(1) == b""
        until(lambda: agent.descriptors <= before + 10, 20, lambda: f"{agent.descriptors} descriptors, {before} before")
        peak = agent.run.peak
    figures = agent.stop()
    figure(f"{count / took:.0f} connections a second, {peak >> 20} MiB, {figures}")
    assert figures["records"] == count // 2 + 1 and figures["connections"] == count + 2
    assert peak < 96 << 20


def test_without_descriptors_connections_wait_and_others_go_on(listen):
    agent = listen("tcp://127.0.0.1:0", "tcp://[::1]:0")
    limit = agent.descriptors + 60
    resource.prlimit(agent.run.pid, resource.RLIMIT_NOFILE, (limit, limit))
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(agent.connect())
        first.sendall(b"first\n")
        agent.expect([b"first"])
        late = [stack.enter_context(agent.connect()) for _ in range(150)]
        for number, connection in enumerate(late):
            connection.sendall(b"late %d\n" % number)
        agent.run.wait_for("new connections wait, for want of descriptors or memory")
        used = agent.descriptors
        first.sendall(b"second\n")
        # The rest of the agent has descriptors to deliver with.
        until(lambda: b"second" in agent.records(), 20, "the second line", every=0.2)
        assert used < limit and len(agent.records()) < 152
        cpu = agent.run.cpu
        time.sleep(1)
        assert agent.run.cpu - cpu < 0.3, "it spins"
        for connection in late:
            connection.shutdown(socket.SHUT_WR)
        agent.expect([b"first", b"second"] + [b"late %d" % number for number in range(150)])
    assert told(agent, "new connections wait") <= 20
    assert agent.stop()["accept_pauses"] >= 1


def test_connections_above_the_limit_are_closed(listen):
    agent = listen("tcp://127.0.0.1:0", max_connections=5)
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(agent.connect()) for _ in range(5)]
        for _ in range(20):
            with agent.connect() as refused, contextlib.suppress(ConnectionResetError):
                assert refused.recv(1) == b""
        for number, connection in enumerate(kept):
            connection.sendall(b"%d\n" % number)
        agent.expect([b"%d" % number for number in range(5)])
        kept[0].close()
        time.sleep(0.2)
        with agent.connect() as again:
            again.sendall(b"again\n")
            agent.expect([b"%d" % number for number in range(5)] + [b"again"])
    assert 1 <= told(agent, "there are max_connections") <= 5
    assert agent.stop()["refused"] == 20


def test_silent_connections_are_closed_and_cost_nothing(listen):
    agent = listen("tcp://127.0.0.1:0", idle_timeout="2s")
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(agent.connect()) for _ in range(200)]
        busy = stack.enter_context(agent.connect())
        silent[0].sendall(b"half a line")
        cpu, start = agent.run.cpu, time.monotonic()
        while time.monotonic() - start < 1.5:
            busy.sendall(b"tick\n")
            time.sleep(0.3)
        for connection in silent:
            assert connection.recv(1) == b""
        assert 1.5 < time.monotonic() - start < 6
        busy.sendall(b"still here\n")
        until(lambda: {b"still here", b"half a line"} <= set(agent.records()), 20, "the lines", every=0.2)
    assert agent.stop()["idle"] == 200


def test_handshakes_that_never_end_and_garbage_leave_others_alone(listen, tmp_path):
    authority = Authority(tmp_path)
    certificate = str(authority.certificate("localhost"))
    agent = listen("tls://127.0.0.1:0", tls_cert=certificate, tls_key=certificate, handshake_timeout="1s")
    context = ssl.create_default_context(cafile=authority.file)
    with contextlib.ExitStack() as stack:
        good = stack.enter_context(context.wrap_socket(agent.connect("tls"), server_hostname="localhost"))
        hanging = [stack.enter_context(agent.connect("tls")) for _ in range(100)]
        for connection in hanging[:50]:
            # The beginning of a ClientHello.
            connection.sendall(b"\x16\x03\x01\x02\x00\x01")
        for _ in range(50):
            with agent.connect("tls") as garbage:
                # Not by chance what a ClientHello of old begins with.
                garbage.sendall(b"no TLS" + os.urandom(1000))
                with contextlib.suppress(ConnectionResetError):
                    while garbage.recv(1000):
                        pass
        good.sendall(b"in between\n")
        for connection in hanging:
            assert connection.recv(1) == b""
        good.sendall(b"and after\n")
        agent.expect([b"in between", b"and after"])
    for text in ("a TLS handshake failed", "a TLS handshake took longer than handshake_timeout"):
        assert 1 <= told(agent, text) <= 15
    figures = agent.stop()
    assert figures["handshakes_failed"] == 50 and figures["handshakes_timed_out"] == 100
    assert agent.run.peak < 96 << 20


def test_unfinished_messages_have_bounded_memory(listen):
    agent = listen("tcp://127.0.0.1:0", framing="newline")
    part = b"x" * 900_000
    with contextlib.ExitStack() as stack:
        witness = stack.enter_context(agent.connect())
        witness.sendall(b"half ")
        for _ in range(60):
            stack.enter_context(agent.connect()).sendall(part)
        agent.run.wait_for("unfinished messages use up their memory")
        witness.sendall(b"a line\n")
        until(lambda: b"half a line" in agent.records(), 20, "the line", every=0.2)
    figures = agent.stop()
    # What was read of each is kept; what was not goes with its connection.
    kept = [record for record in agent.records() if record.strip(b"x") == b""]
    assert len(kept) == 60 and sum(map(len, kept)) > 30 * len(part)
    assert figures["overfull"] >= 30
    assert agent.run.peak < 128 << 20
