"""An agent that listens, and what sends to it."""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import threading

import oracle
from conftest import environment, until

# Unpacked by fetch-loggen.
LOGGEN = pathlib.Path(__file__).resolve().parents[2] / ".peers"


class Listener:
    """An agent with one input of sockets, in raw mode; the kernel chooses the ports."""

    def __init__(self, make_agent, url, stream, *listen, agent=None, env=None, type="syslog", start=True, output=None, **settings):
        self.url, self.stream = url, stream
        self.agent = make_agent([], url, stream, agent=agent, **(output or {}))
        self.agent.inputs = {"net": {"type": type, "listen": list(listen)} | settings}
        self.run = self.agent.start(env=env) if start else None
        if start:
            self.wait()

    def wait(self):
        count = len(self.agent.inputs["net"]["listen"])
        until(lambda: len(self.addresses) >= count or self.run.process.poll() is not None, 20, lambda: self.run.log)
        assert self.run.process.poll() is None, self.run.log

    @property
    def addresses(self):
        """What it says it listens on: scheme and port, or path."""
        found = re.findall(r"an input listens address=(\w+)://(\S+)", self.run.log)
        return [(scheme, int(place.rsplit(":", 1)[1]) if ":" in place else place) for scheme, place in found]

    def port(self, scheme="tcp"):
        return next(port for name, port in self.addresses if name == scheme)

    def connect(self, scheme="tcp", host="127.0.0.1", timeout=20):
        if scheme == "unix":
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(timeout)
            connection.connect(self.port("unix"))
            return connection
        return socket.create_connection((host, self.port(scheme)), timeout)

    def records(self):
        return [record.data for record in oracle.user_records(self.url, self.stream)]

    def expect(self, records, timeout=20):
        """Waits until exactly those records have arrived, in any order."""
        expected = sorted(records)
        arrived = []

        def is_there():
            nonlocal arrived
            arrived = sorted(self.records())
            return len(arrived) >= len(expected)

        until(is_there, timeout, lambda: f"{expected[:5]}…, got {arrived[:5]}…\n{self.run.log}", every=0.2)
        assert arrived == expected

    def settle(self, records, timeout=60):
        """Waits until so many records are delivered: those in the spool would be the next run's at a stop."""

        def delivered():
            ledger = self.agent.state / "ledger.json"
            return json.loads(ledger.read_text())["inputs"][0]["delivered"]["records"] if ledger.exists() else 0

        until(lambda: delivered() >= records, timeout, lambda: f"{records} records, {delivered()} are delivered\n{self.run.log}")

    def stop(self):
        """Stops it; returns the input's figures."""
        assert self.run.terminate() == 0, self.run.log
        return self.figures()

    def figures(self):
        line = next(line for line in self.run.lines if "an input of streams has ended" in line)
        return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)\b", line.split("has ended", 1)[1])}

    @property
    def memory(self):
        """Bytes of memory it holds now."""
        with open(f"/proc/{self.run.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1]) * 1024

    @property
    def descriptors(self):
        return len(os.listdir(f"/proc/{self.run.pid}/fd"))


def run(*words, input=None, timeout=30, check=True, env=None):
    """Runs a sender to its end."""
    done = subprocess.run(
        [str(word) for word in words], input=input, capture_output=True, timeout=timeout, env=env or environment()
    )
    assert not check or done.returncode == 0, f"{words[0]}: {done.stderr.decode(errors='replace')}"
    return done


def loggen(*words, timeout=60):
    """Runs syslog-ng's loggen."""
    usr = LOGGEN / "usr"
    env = environment(SYSLOGNG_PREFIX=str(usr), LD_LIBRARY_PATH=f"{usr}/lib:{usr}/lib/syslog-ng")
    return run(usr / "bin" / "loggen", *words, timeout=timeout, env=env)


def start_rsyslog(folder, configuration):
    """An rsyslog that reads the lines of `folder`/input.log, and gives what they say, and nothing else, to the ruleset `out`."""
    folder.mkdir()
    config = folder / "rsyslog.conf"
    config.write_text(
        f'global(workDirectory="{folder}")\nmodule(load="imfile")\n'
        f'template(name="bare" type="string" string="%msg%")\n'
        f'input(type="imfile" file="{folder}/input.log" tag="t" ruleset="out" reopenOnTruncate="on")\n' + configuration
    )
    with open(folder / "rsyslog.log", "wb") as log:
        return subprocess.Popen(
            ["rsyslogd", "-n", "-f", str(config), "-i", str(folder / "pid")], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )


class Recorder:
    """Passes connections on to another port, and keeps what went through: what a sender really sent."""

    def __init__(self, port):
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self.streams, self._faults = [], []
        self._ended = 0
        self._is_stopping = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as fault:
                if self._is_stopping:
                    return
                # One that is gone before it was accepted.
                self._faults.append(fault)
                continue
            stream = bytearray()
            self.streams.append(stream)
            threading.Thread(target=self._pass_on, args=(connection, stream), daemon=True).start()

    def _pass_on(self, connection, stream):
        # A sender may end with a reset.
        try:
            with connection, socket.create_connection(("127.0.0.1", self._to)) as forward:
                while data := connection.recv(1 << 16):
                    stream += data
                    forward.sendall(data)
        except ConnectionError:
            pass
        except OSError as fault:
            self._faults.append(fault)
        with self._lock:
            self._ended += 1

    def settled(self, connections):
        """Waits until that many connections have come and ended; returns the streams."""
        until(
            lambda: self._ended >= connections, 20,
            lambda: f"{connections} connections: {self._ended} of {len(self.streams)} have ended; faults {self._faults}; {self.streams}",
        )
        return [bytes(stream) for stream in self.streams]

    def stop(self):
        # Closing alone leaves the thread in accept, which then takes connections of whoever gets the descriptor's number.
        self._is_stopping = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()


def lines_of(stream):
    """The records of a stream of lines."""
    return [line.removesuffix(b"\r") for line in stream.split(b"\n") if line] if stream else []


def counted(stream):
    """The records of a stream of octet counts, by the RFC and nothing else."""
    records, at = [], 0
    while at < len(stream):
        space = stream.index(b" ", at)
        size = int(stream[at:space])
        records.append(stream[space + 1 : space + 1 + size])
        at = space + 1 + size
    return records
