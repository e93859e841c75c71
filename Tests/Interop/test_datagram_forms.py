"""Datagrams in every form they can be asked for in: with keys, as JSON, from sockets of systemd, from senders that wait."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import oracle
import pytest
from conftest import BINARY, end, environment, until
from datagrams import account, address, figures, listen, stored


@pytest.mark.parametrize("key", ["source", "host"])
def test_partition_keys_of_the_sender_and_of_the_message(local_kinesis, stream, make_agent, tmp_path, key):
    path = tmp_path / "log.sock"
    agent = listen(
        make_agent, local_kinesis.url, stream, ["udp://127.0.0.1:0", "udp://[::1]:0", f"unixgram://{path}"],
        partition_key=key,
    )
    run = agent.start()
    until(lambda: path.exists() and run.log.count("address=udp://") == 2, 10, lambda: run.log)
    ports = re.findall(r"address=udp://(127\.0\.0\.1|\[::1\]):(\d+)", run.log)
    for host, port in ports:
        with socket.socket(socket.AF_INET6 if host == "[::1]" else socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect((host.strip("[]"), int(port)))
            sender.send(b"<13>1 2026-11-21T08:00:00Z web7 app - - - named by " + host.encode())
            sender.send(b"no syslog by " + host.encode())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as local:
        local.connect(str(path))
        local.send(b"<13>Nov 21 08:00:00 app: from this machine")
    stored(local_kinesis.url, stream, 5)
    keys = {record.data: record.partition_key for record in oracle.user_records(local_kinesis.url, stream)}
    found = {data.split(b": ")[-1].split(b"- - - ")[-1]: key for data, key in keys.items()}
    assert found == {
        b"named by 127.0.0.1": "web7" if key == "host" else "127.0.0.1",
        b"no syslog by 127.0.0.1": "127.0.0.1",
        b"named by [::1]": "web7" if key == "host" else "::1",
        b"no syslog by [::1]": "::1",
        b"from this machine": f"uid:{os.getuid()} pid:{os.getpid()}",
    }
    assert run.terminate() == 0


def test_unix_senders_that_wait_lose_nothing(start_local, make_agent, tmp_path, figure):
    """`unixgram_full = "wait"`: while Kinesis is stopped and the spool full, they stand still."""
    server = start_local("logs:1")
    path = tmp_path / "log.sock"
    agent = listen(
        make_agent, server.url, "logs", [f"unixgram://{path}"], "socket", table={"unixgram_full": "wait"},
        agent={"memory_limit": "48MiB"}, spool={"max_size": "16MiB", "keep_free": "0B"}, timeout="1s",
    )
    run = agent.start()
    until(path.exists, 5, path)
    sent, wanted = 0, None

    def send():
        nonlocal sent
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(path))
            while sent != wanted:
                sender.send((b"%08d " % sent).ljust(20_000, b"x"))
                sent += 1
                # Others on this machine want to live, too.
                if sent % 20 == 0:
                    time.sleep(0.001)

    thread = threading.Thread(target=send, daemon=True)
    server_is_stopped = False
    try:
        thread.start()
        until(lambda: account(agent)["delivered"] > 0, 20, "the first")
        server.process.send_signal(signal.SIGSTOP)
        server_is_stopped = True
        # Far longer than any other setting would have them wait.
        before, since, deadline = -1, time.monotonic(), time.monotonic() + 60
        while time.monotonic() - since < 3:
            assert time.monotonic() < deadline, f"they are never held back: {sent}"
            time.sleep(0.1)
            if sent != before:
                before, since = sent, time.monotonic()
        held, wanted = sent, sent + 200
    finally:
        if server_is_stopped:
            server.process.send_signal(signal.SIGCONT)
    thread.join(60)
    assert not thread.is_alive()
    until(lambda: account(agent)["delivered"] == sent, 60, lambda: f"{sent}: {account(agent)}", every=0.2)
    assert run.terminate() == 0
    totals = figures(run)
    figure(f"held back after {held} datagrams for {totals['held_back_ms']} ms, {sent} sent, {account(agent)}")
    assert totals["received"] == sent and "dropped_by_policy" not in totals and totals["held_back_ms"] > 2000
    numbers = [int(data[:8]) for data in stored(server.url, "logs", sent)]
    # A call that the stopped Kinesis had taken without an answer comes twice.
    assert sorted(set(numbers)) == list(range(sent))
    assert run.peak <= (48 + 32) << 20


@pytest.mark.parametrize("by", ["address", "name"])
def test_systemd_passes_sockets_of_datagrams(local_kinesis, stream, make_agent, tmp_path, by):
    """What is sent before the agent runs, and while another takes its place, waits in them."""
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = tmp_path / "log.sock"
    agent = listen(
        make_agent, local_kinesis.url, stream,
        [f"udp://127.0.0.1:{port}", f"unixgram://{path}"] if by == "address" else ["udp://127.0.0.1:1", "unixgram:///none"],
    )
    agent.write_config()
    log = tmp_path / "activate.log"
    command = [
        "systemd-socket-activate", "--datagram", "-l", f"127.0.0.1:{port}", "-l", path,
        *(["--fdname=sock:sock"] if by == "name" else []), "--setenv=AWS_ACCESS_KEY_ID",
        "--setenv=AWS_SECRET_ACCESS_KEY", BINARY, "run", "--config", agent.config,
    ]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment()
        )
    try:
        with (
            socket.socket(type=socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as local,
        ):

            def is_there():
                try:
                    local.connect(str(path))
                    return True
                except OSError:
                    return False

            until(is_there, 10, lambda: log.read_text())
            local.settimeout(20)
            udp.connect(("127.0.0.1", port))
            sent = []
            # The first starts the agent.
            for number in range(50):
                sent += [b"udp %d" % number, b"unix %d" % number]
                udp.send(sent[-2])
                local.send(sent[-1])
            assert sorted(stored(local_kinesis.url, stream, 100)) == sorted(sent)
    finally:
        end(process)
    # It is systemd's.
    assert path.exists()
    text = log.read_text()
    assert f"address=udp://127.0.0.1:{port if by == 'address' else 1}" in text and "received=50" in text, text


def test_what_the_kernel_drops_of_a_socket_of_systemd_is_counted_once_however_many_read_it(
    start_local, make_agent, tmp_path, figure
):
    """Readers of a socket that was passed have the same one, whose drops each of them could see."""
    server = start_local("logs:1")
    passed = socket.socket(type=socket.SOCK_DGRAM)
    passed.bind(("127.0.0.1", 0))
    port = passed.getsockname()[1]
    agent = listen(make_agent, server.url, "logs", [f"udp://127.0.0.1:{port}"], table={"readers": 3, "receive_buffer": "64MiB"})
    agent.write_config()
    log = tmp_path / "agent.log"
    # As systemd does it: the first descriptor is 3, and the process knows that it is meant.
    start = 'exec 3<&"$1"; shift; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", start, "start", str(passed.fileno()), str(BINARY), "run", "--config", str(agent.config)],
            stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment(), pass_fds=[passed.fileno()],
        )
    try:
        until(lambda: log.read_text().count(f"address=udp://127.0.0.1:{port}") == 3 or process.poll() is not None, 20, lambda: log.read_text())
        process.send_signal(signal.SIGSTOP)
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.connect(("127.0.0.1", port))
            for number in range(3000):
                sender.send(b"%08d" % number + b"x" * 192)
        process.send_signal(signal.SIGCONT)
        until(lambda: account(agent)["delivered"] > 0, 20, "what was kept to be delivered")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.send_signal(signal.SIGCONT)
        end(process)
        passed.close()
    text = log.read_text()
    # Each reader says what all have counted by then.
    counted = {name: max(int(value) for value in re.findall(rf"{name}=(\d+)\b", text)) for name in ("received", "dropped_by_kernel")}
    figure(f"3000 sent: {counted}")
    assert counted["received"] + counted["dropped_by_kernel"] == 3000 and counted["dropped_by_kernel"] > 1000, text
    assert "ReceiveBuffer=" in text


def test_a_local_datagram_that_might_be_too_long_as_json_for_the_ring_is_taken(local_kinesis, stream, make_agent, tmp_path):
    """Where `max_record` allows an object of several MiB: no more can be asked of the ring than half of it."""
    path = tmp_path / "log.sock"
    agent = listen(
        make_agent, local_kinesis.url, stream, [f"unixgram://{path}"], agent={"memory_limit": "512MiB"},
        table={"format": "json", "max_record": "4MiB"},
    )
    run = agent.start()
    until(path.exists, 10, lambda: run.log)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as local:
        # Beyond net.core.wmem_max with a privilege alone: SO_SNDBUFFORCE.
        try:
            local.setsockopt(socket.SOL_SOCKET, 32, 4 << 20)
        except PermissionError:
            local.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        local.connect(str(path))
        for size in (300_000, 900_000):
            try:
                local.send(b"<13>Nov 21 08:00:00 app: " + b"x" * size)
            except OSError as error:
                assert error.errno == errno.EMSGSIZE, error
                pytest.skip("this machine's net.core.wmem_max is too small for such a datagram")
        local.send(b"<13>Nov 21 08:00:00 app: the last")
    records = [json.loads(data) for data in stored(local_kinesis.url, stream, 3)]
    assert sorted(record["message"] for record in records) == ["the last", "x" * 300_000, "x" * 900_000]
    assert run.terminate() == 0


def test_descriptors_that_a_local_sender_passes_along_are_closed(local_kinesis, stream, make_agent, tmp_path):
    path = tmp_path / "log.sock"
    agent = listen(make_agent, local_kinesis.url, stream, [f"unixgram://{path}"], table={"format": "json"})
    run = agent.start()
    until(path.exists, 10, lambda: run.log)
    folder = f"/proc/{run.process.pid}/fd"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as local, open("/dev/null") as passed:
        local.connect(str(path))
        local.send(b"<13>Nov 21 08:00:00 app: without")
        stored(local_kinesis.url, stream, 1)
        before = len(os.listdir(folder))
        for number in range(50):
            socket.send_fds(local, [b"<13>Nov 21 08:00:00 app: %d" % number], [passed.fileno()] * (1 + number % 30))
        assert len(stored(local_kinesis.url, stream, 51)) == 51
        assert len(os.listdir(folder)) <= before + 5
    assert run.terminate() == 0
