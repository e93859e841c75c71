"""Real senders over TCP, TLS and Unix streams: every message arrives byte for byte."""

import contextlib
import json
import logging.handlers
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import threading
import time

import oracle
import pytest
from authority import Authority
from conftest import BINARY, end, environment, until
from listener import Listener, Recorder, counted, lines_of, loggen, run, start_rsyslog
from socket_senders import free_port


@pytest.fixture
def listen(make_agent, local_kinesis, stream):
    """Starts an agent that listens: `listen("tcp://127.0.0.1:0", framing="nul")`."""
    return lambda *addresses, **settings: Listener(make_agent, local_kinesis.url, stream, *addresses, **settings)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def tls(listen, authority):
    """Starts an agent that listens for TLS with client certificates, and for whatever else is named."""

    def start(*addresses, **settings):
        certificate = authority.certificate("localhost")
        files = {"tls_cert": str(certificate), "tls_key": str(certificate), "tls_client_ca": str(authority.file)}
        return listen("tls://127.0.0.1:0", *addresses, **(files | settings))

    return start


# Senders


@pytest.mark.parametrize("style", ["--rfc3164", "--rfc5424", "--octet-count"])
def test_logger(listen, style):
    """util-linux's logger, RFC 3164 and 5424, lines and octet counts; what it sent is recorded on the way."""
    agent = listen("tcp://127.0.0.1:0")
    recorder = Recorder(agent.port())
    for number in range(5):
        text = f"message {number}: tab\tquote\" é 😀"
        run("logger", "--tcp", "--server", "127.0.0.1", "--port", recorder.port, style, "--tag", "app", text)
    sent = [(counted if style == "--octet-count" else lines_of)(stream) for stream in recorder.settled(5)]
    recorder.stop()
    assert sorted(len(each) for each in sent) == [1] * 5
    agent.expect([record for each in sent for record in each])
    assert agent.stop() == {"connections": 5, "records": 5, "parsed": 5, "bytes": sum(map(len, recorder.streams))}


def test_logger_over_a_unix_stream(listen, tmp_path):
    path = tmp_path / "log.sock"
    agent = listen(f"unix://{path}", mode="0666")
    assert os.stat(path).st_mode & 0o777 == 0o666
    for number in range(3):
        # With an octet count: without one logger ends a message on a Unix stream with nothing at all.
        run("logger", "--socket", path, "--octet-count", "--rfc5424=notime,nohost", "--id=77", "--tag", "app", f"{number}")
    until(lambda: len(agent.records()) == 3, 20, "three records", every=0.2)
    assert sorted(record[-1:] for record in agent.records()) == [b"0", b"1", b"2"]
    agent.stop()
    assert not path.exists() and not path.with_suffix(".sock.lock").exists()


@pytest.mark.parametrize("framing", ["traditional", "octet-counted"])
def test_rsyslog_over_tcp(listen, tmp_path, framing):
    agent = listen("tcp://127.0.0.1:0")
    source = oracle.Source(1)
    rsyslog = start_rsyslog(
        tmp_path / "rsyslog",
        f'ruleset(name="out") {{ action(type="omfwd" target="127.0.0.1" port="{agent.port()}" protocol="tcp" '
        f'TCP_Framing="{framing}" template="bare") }}\n',
    )
    try:
        source.write(tmp_path / "rsyslog" / "input.log", 2000)
        until(lambda: len(agent.records()) >= 2000, 30, lambda: agent.run.log, every=0.5)
    finally:
        end(rsyslog)
    oracle.verify(agent.url, agent.stream, [source]).require_exact()
    figures = agent.stop()
    assert figures["records"] == 2000 and "unfinished" not in figures and "broken" not in figures


def test_rsyslog_over_tls_with_a_client_certificate(tls, tmp_path, authority):
    agent = tls()
    client = authority.certificate("client.example")
    source = oracle.Source(1)
    rsyslog = start_rsyslog(
        tmp_path / "rsyslog",
        f'global(defaultNetstreamDriverCAFile="{authority.file}" defaultNetstreamDriverCertFile="{client}" '
        f'defaultNetstreamDriverKeyFile="{client}")\n'
        f'ruleset(name="out") {{ action(type="omfwd" target="127.0.0.1" port="{agent.port("tls")}" protocol="tcp" '
        'streamDriver="ossl" streamDriverMode="1" streamDriverAuthMode="x509/name" '
        'streamDriverPermittedPeers="localhost" TCP_Framing="octet-counted" template="bare") }\n',
    )
    try:
        source.write(tmp_path / "rsyslog" / "input.log", 2000)
        until(
            lambda: len(agent.records()) >= 2000, 30,
            lambda: agent.run.log + (tmp_path / "rsyslog" / "rsyslog.log").read_text(), every=0.5,
        )
    finally:
        end(rsyslog)
    oracle.verify(agent.url, agent.stream, [source]).require_exact()
    agent.stop()


@pytest.mark.parametrize("options", [("--inet",), ("--inet", "--syslog-proto"), ("--unix",), ("--use-ssl",)])
def test_loggen(listen, tmp_path, authority, options):
    """syslog-ng's loggen, several connections at full speed; it numbers its messages."""
    place = {"--unix": f"unix://{tmp_path}/log.sock", "--use-ssl": "tls://127.0.0.1:0"}.get(options[0], "tcp://127.0.0.1:0")
    settings = {}
    if options[0] == "--use-ssl":
        certificate = str(authority.certificate("localhost"))
        settings = {"tls_cert": certificate, "tls_key": certificate}
    agent = listen(place, **settings)
    target = [f"{tmp_path}/log.sock"] if options[0] == "--unix" else ["127.0.0.1", agent.port(place.split(":")[0])]
    done = loggen(
        *(option for option in options if option != "--inet"), *(("--stream",) if options[0] == "--unix" else ()),
        *(("--inet", "--stream") if options[0] == "--inet" else ()),
        "--rate", "100000", "--number", "2000", "--size", "200", "--active-connections", "4", "--quiet", *target,
    )
    sent = int(re.search(rb"count=(\d+)", done.stderr + done.stdout)[1])
    until(lambda: len(agent.records()) >= sent, 40, lambda: f"{sent} records\n{agent.run.log}", every=1)
    records = agent.records()
    assert len(records) == sent == 8000
    messages = {re.search(rb"seq: (\d+), thread: (\d+)", record).groups() for record in records}
    assert len(messages) == sent and {len(record) for record in records} <= {199, 200}
    figures = agent.stop()
    assert "broken" not in figures and "unfinished" not in figures


def test_openssl_s_client(tls, authority):
    agent = tls()
    client = authority.certificate("client.example")
    lines = [b"<13>one", b"<14>two \xff\x00 three"]
    for version in ("-tls1_2", "-tls1_3"):
        run(
            "openssl", "s_client", "-connect", f"127.0.0.1:{agent.port('tls')}", "-quiet", "-no_ign_eof", version,
            "-CAfile", authority.file, "-verify_return_error", "-servername", "localhost", "-cert", client, "-key", client,
            input=b"".join(line + b"\n" for line in lines),
        )
    agent.expect(lines * 2)


def test_socat(listen, tmp_path):
    agent = listen("tcp://127.0.0.1:0", "tcp://[::1]:0", f"unix://{tmp_path}/log.sock")
    ports = [port for scheme, port in agent.addresses if scheme == "tcp"]
    targets = [f"TCP4:127.0.0.1:{ports[0]}", f"TCP6:[::1]:{ports[1]}", f"UNIX-CONNECT:{tmp_path}/log.sock"]
    sent = []
    for target in targets:
        lines = [f"{target} {number}".encode() for number in range(100)]
        # The last without its end: the connection ends it.
        run("socat", "-u", "-", target, input=b"\n".join(lines))
        sent += lines
    agent.expect(sent)


def test_python_syslog_handler(listen):
    """It ends each message with NUL."""
    agent = listen("tcp://127.0.0.1:0", framing="nul")
    handler = logging.handlers.SysLogHandler(("127.0.0.1", agent.port()), socktype=socket.SOCK_STREAM)
    log = logging.Logger("app")
    log.addHandler(handler)
    texts = ["plain", "two\nlines", "é 😀"]
    for text in texts:
        log.warning(text)
    handler.close()
    agent.expect([b"<12>" + text.encode() for text in texts])


def test_length_prefix(listen):
    agent = listen("tcp://127.0.0.1:0", framing="length_prefix", type="socket")
    records = [os.urandom(size) for size in (0, 1, 255, 256, 70_000)]
    with agent.connect() as sender:
        stream = b"".join(len(record).to_bytes(4, "big") + record for record in records)
        for at in range(0, len(stream), 977):
            sender.sendall(stream[at : at + 977])
    agent.expect(records)


# Sockets that systemd passes


@pytest.mark.parametrize("by", ["address", "name"])
def test_systemd_socket_activate(make_agent, local_kinesis, stream, tmp_path, chance, by):
    """The socket is there before the agent, and takes what is sent meanwhile: by its address, or by the input's name."""
    port = free_port(chance)
    listener = Listener(
        make_agent, local_kinesis.url, stream, f"tcp://127.0.0.1:{port if by == 'address' else 1}",
        f"unix://{tmp_path}/{'log' if by == 'address' else 'none'}.sock", start=False,
    )
    listener.agent.write_config()
    log = tmp_path / "activate.log"
    command = [
        "systemd-socket-activate", "-l", f"127.0.0.1:{port}", "-l", f"{tmp_path}/log.sock",
        *(["--fdname=net:net"] if by == "name" else []), "--setenv=AWS_ACCESS_KEY_ID",
        "--setenv=AWS_SECRET_ACCESS_KEY", BINARY, "run", "--config", listener.agent.config,
    ]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment()
        )
    try:
        def connect():
            try:
                return socket.create_connection(("127.0.0.1", port), 5)
            except OSError:
                return None

        # This one starts the agent.
        with until(connect, 10, lambda: log.read_text()) as sender:
            sender.sendall(b"by TCP\n")
        with socket.socket(socket.AF_UNIX) as sender:
            sender.connect(f"{tmp_path}/log.sock")
            sender.sendall(b"by a Unix stream\n")
        expected = [b"by TCP", b"by a Unix stream"]
        until(lambda: sorted(listener.records()) == expected, 20, lambda: log.read_text(), every=0.2)
    finally:
        end(process)
    # It is systemd's.
    assert os.path.exists(f"{tmp_path}/log.sock")


# TLS


def handshake(agent, authority, client=None, **options):
    context = ssl.create_default_context(cafile=authority.file)
    for name, value in options.items():
        setattr(context, name, value)
    if client:
        context.load_cert_chain(client)
    connection = context.wrap_socket(agent.connect("tls"), server_hostname="localhost")
    # With TLS 1.3 the server looks at the client's certificate after the handshake has ended for the client.
    connection.sendall(b"hello\n")
    connection.settimeout(10)
    return connection


def test_a_client_without_a_good_certificate_is_refused(tls, tmp_path, authority):
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").certificate("client.example")
    agent = tls()
    old = authority.certificate("late.example", days=(-20, -10))
    for client in (None, stranger, old):
        with pytest.raises((ssl.SSLError, OSError)):
            with handshake(agent, authority, client) as connection:
                assert connection.recv(1) != b"", "it was taken"
                raise OSError
    # The client knows before the log does.
    failed = until(
        lambda: [line for line in agent.run.lines if "a TLS handshake failed" in line][2:] and agent.run.lines, 10, "three"
    )
    reasons = "\n".join(failed)
    assert "peer did not return a certificate" in reasons and "certificate has expired" in reasons
    with handshake(agent, authority, authority.certificate("client.example")):
        agent.expect([b"hello"])
    assert agent.stop()["handshakes_failed"] == 3


def test_a_part_of_a_tls_record_keeps_nobody_busy(tls, authority):
    """Whoever stops in the middle of a record costs a connection, and no more."""
    agent = tls()
    context = ssl.create_default_context(cafile=authority.file)
    context.load_cert_chain(authority.certificate("client.example"))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with agent.connect("tls") as plain:
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(1 << 16))
        session.write(b"hello\n")
        plain.sendall(outgoing.read())
        agent.expect([b"hello"])
        message = b"x" * 10_000
        session.write(message + b"\n")
        record = outgoing.read()
        for part in (record[:3], record[3:500]):
            plain.sendall(part)
            time.sleep(0.2)
            before = agent.run.cpu
            time.sleep(1.5)
            assert agent.run.cpu - before < 0.3, "it waits for the rest, and spins"
        plain.sendall(record[500:])
        agent.expect([b"hello", message])


def test_tls_below_1_2_is_refused(tls, authority):
    agent = tls()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError), agent.connect("tls") as plain:
        context.wrap_socket(plain)
    agent.run.wait_for("a TLS handshake failed")


def test_sighup_renews_the_certificate_and_leaves_connections_alone(tls, listen, authority):
    agent = tls("tcp://127.0.0.1:0")
    client = authority.certificate("client.example")
    certificate = agent.agent.inputs["net"]["tls_cert"]
    with handshake(agent, authority, client) as old, agent.connect() as plain:
        serial = old.getpeercert()["serialNumber"]
        # Writes the same file.
        assert str(authority.certificate("localhost")) == certificate
        agent.run.process.send_signal(signal.SIGHUP)
        agent.run.wait_for("another configuration is taken on")
        with handshake(agent, authority, client) as new:
            assert new.getpeercert()["serialNumber"] != serial
            # A file that cannot be used changes nothing.
            with open(certificate, "w", encoding="ascii") as file:
                file.write("no certificate\n")
            agent.run.process.send_signal(signal.SIGHUP)
            agent.run.wait_for("the configuration is refused")
            for sender, text in ((old, b"old\n"), (new, b"new\n"), (plain, b"plain\n")):
                sender.sendall(text)
            agent.expect([b"hello", b"hello", b"old", b"new", b"plain"])
    assert "tls_cert: " in agent.run.log and "there is nothing in it in PEM" in agent.run.log


def test_check_names_files_of_tls_that_cannot_be_used(make_agent, penstock, tmp_path, authority):
    good = authority.certificate("localhost")
    other = authority.certificate("other.example")
    empty = tmp_path / "empty.pem"
    empty.touch()
    for cert, key, ca, message in [
        (tmp_path / "none.pem", good, authority.file, "tls_cert: .*none.pem: No such file"),
        (empty, good, authority.file, "tls_cert: .*empty.pem: there is nothing in it in PEM"),
        (good, empty, authority.file, "tls_key: .*empty.pem: "),
        (good, other, authority.file, "tls_key: .*it is not the certificate's key"),
        (good, good, empty, "tls_client_ca: .*empty.pem: "),
    ]:
        agent = make_agent([], "http://127.0.0.1:1", "s")
        agent.inputs = {
            "net": {"type": "syslog", "listen": ["tls://127.0.0.1:0"], "tls_cert": cert, "tls_key": key, "tls_client_ca": ca}
        }
        agent.write_config()
        done = penstock("check", "--config", agent.config)
        assert done.returncode == 78
        assert re.search(rb"penstock.toml:\d+:\d+: inputs.net." + message.encode(), done.stderr), done.stderr


# Socket files, and other configurations


def test_a_dead_process_s_socket_is_replaced_and_a_living_one_s_is_not(listen, tmp_path):
    path = tmp_path / "log.sock"
    agent = listen(f"unix://{path}")
    agent.run.kill()
    assert path.exists()
    agent.run = agent.agent.start()
    agent.wait()
    other = listen(f"unix://{path}", start=False)
    refused = other.agent.start()
    assert refused.wait(10) == 78
    assert f"{path}: another process ({agent.run.pid}) listens there" in refused.log
    with agent.connect("unix") as sender:
        sender.sendall(b"still here\n")
    agent.expect([b"still here"])
    agent.stop()
    assert not path.exists()

    for kind, message in ((socket.SOCK_STREAM, "another process listens there"), (None, "there is a file that is no socket")):
        if kind is None:
            path.write_text("precious")
        else:
            stranger = socket.socket(socket.AF_UNIX, kind)
            stranger.bind(str(path))
            stranger.listen()
        refused = other.agent.start()
        assert refused.wait(10) == 78
        assert message in refused.log
        if kind is not None:
            stranger.close()
            path.unlink()
    assert path.read_text() == "precious"


def test_a_port_that_is_taken_is_said_at_the_start(listen):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        agent = listen(f"tcp://127.0.0.1:{taken.getsockname()[1]}", start=False)
        refused = agent.agent.start()
        assert refused.wait(10) == 78
        assert "another process listens there: stop it, or choose another address" in refused.log


def test_sighup_changes_an_input_and_leaves_the_others_connections(listen, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    agent = listen(f"tcp://127.0.0.1:{port}", framing="newline")
    agent.agent.inputs["other"] = {"type": "socket", "listen": [f"unix://{tmp_path}/other.sock"]}
    agent.agent.write_config()
    agent.run.process.send_signal(signal.SIGHUP)
    until(lambda: len(agent.addresses) == 2, 10, lambda: agent.run.log)
    with agent.connect("unix") as untouched, agent.connect() as changed:
        untouched.sendall(b"half a li")
        changed.sendall(b"before\n")
        agent.expect([b"before"])
        # The address stays open, its connections end.
        agent.agent.inputs["net"]["framing"] = "nul"
        agent.agent.write_config()
        agent.run.process.send_signal(signal.SIGHUP)
        until(lambda: len(agent.addresses) == 3, 10, lambda: agent.run.log)
        assert changed.recv(1) == b""
        with agent.connect() as again:
            again.sendall(b"a\nb\0")
            agent.expect([b"before", b"a\nb"])
        untouched.sendall(b"ne\n")
        agent.expect([b"before", b"a\nb", b"half a line"])
        # What the agent cannot have is refused, and the old stays.
        with socket.create_server(("127.0.0.1", 0)) as taken:
            agent.agent.inputs["net"]["listen"].append(f"tcp://127.0.0.1:{taken.getsockname()[1]}")
            agent.agent.write_config()
            agent.run.process.send_signal(signal.SIGHUP)
            agent.run.wait_for("the configuration cannot be taken on")
        with agent.connect() as again:
            again.sendall(b"c\0")
            agent.expect([b"before", b"a\nb", b"half a line", b"c"])


def test_what_was_sent_before_a_stop_is_delivered(listen):
    agent = listen("tcp://127.0.0.1:0")
    source = oracle.Source(1)
    with agent.connect() as sender:
        sender.sendall(b"".join(source.lines(5000)))
        until(lambda: agent.records(), 20, "the first records")
        agent.stop()
    oracle.verify(agent.url, agent.stream, [source]).require_exact()


def send_until_told(connection, source, size):
    """As rsyslog does: looks for the end of the connection before it sends some messages."""
    with contextlib.suppress(BrokenPipeError):
        while not select.select([connection], [], [], 0)[0]:
            for number in range(source.written, source.written + 50):
                connection.sendall(source.line(number))
                source.written = number + 1
                size[0] += 1
                time.sleep(0.0002)


def test_senders_that_hear_of_a_stop_lose_nothing(listen, tmp_path):
    """Everything that they have sent arrives; a Unix socket takes nothing more."""
    agent = listen("tcp://127.0.0.1:0", f"unix://{tmp_path}/log.sock")
    sources, sent = [oracle.Source(number) for number in range(3)], [0]
    with agent.connect() as first, agent.connect() as second, agent.connect("unix") as local:
        threads = [
            threading.Thread(target=send_until_told, args=(connection, source, sent))
            for connection, source in zip((first, second, local), sources)
        ]
        for thread in threads:
            thread.start()
        until(lambda: sent[0] > 5000, 20, "many lines", every=0.01)
        figures = agent.stop()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
    oracle.verify(agent.url, agent.stream, sources).require_exact()
    assert figures["records"] == sum(source.written for source in sources) and "unfinished" not in figures


def test_connections_that_nobody_has_accepted_yet_at_a_stop_are_read(listen, tmp_path):
    agent = listen("tcp://127.0.0.1:0", f"unix://{tmp_path}/log.sock")
    os.kill(agent.run.pid, signal.SIGSTOP)
    messages = [b"message %d" % number for number in range(300)]
    with contextlib.ExitStack() as connections:
        for number, message in enumerate(messages):
            connection = connections.enter_context(agent.connect("tcp" if number % 2 else "unix"))
            connection.sendall(message + b"\n")
        os.kill(agent.run.pid, signal.SIGTERM)
        os.kill(agent.run.pid, signal.SIGCONT)
        assert agent.run.wait(20) == 0, agent.run.log
    assert sorted(agent.records()) == sorted(messages)


# What a record is placed by, and as what it is written


@pytest.mark.parametrize("key", ["source", "host"])
def test_partition_keys_of_the_sender_and_of_the_message(listen, tmp_path, key):
    agent = listen("tcp://127.0.0.1:0", f"unix://{tmp_path}/log.sock", output={"partition_key": key})
    with agent.connect() as tcp, agent.connect("unix") as unix:
        tcp.sendall(b"<13>1 2026-11-21T08:00:00Z web7 app - - - from the network\nno syslog\n")
        unix.sendall(b"<13>Nov 21 08:00:00 app: from this machine\n")
        until(lambda: len(agent.records()) == 3, 20, "three records", every=0.2)
    found = {record.data[-7:]: record.partition_key for record in oracle.user_records(agent.url, agent.stream)}
    local = f"uid:{os.getuid()} pid:{os.getpid()}"
    assert found == {b"network": "web7" if key == "host" else "127.0.0.1", b" syslog": "127.0.0.1", b"machine": local}


def test_messages_become_objects(listen):
    agent = listen("tcp://127.0.0.1:0", format="json")
    with agent.connect() as sender:
        sender.sendall(b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - 'su root' failed\n" + b"x\n")
        until(lambda: len(agent.records()) == 2, 20, "two records", every=0.2)
    objects = {each["message"]: each for each in map(json.loads, agent.records())}
    parsed = objects["'su root' failed"]
    assert parsed["host"] == "mymachine.example.com" and parsed["app"] == "su" and parsed["severity"] == "crit"
    assert parsed["peer"] == "127.0.0.1" and objects["x"]["unparsed"] is True
    figures = agent.stop()
    assert figures["parsed"] == 1 and figures["unparsed"] == 1
