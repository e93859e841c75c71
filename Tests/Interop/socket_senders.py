"""Programs that send numbered lines to an agent's sockets, and go on with the next line when it comes back.

Of what they have sent they know when the kernel took it. `held()` says how much of that no agent has read yet, and `bury()`
ends a dead agent's life: from then on nothing that was sent before can arrive.
"""

import bisect
import collections
import fcntl
import socket
import struct
import termios
import threading
import time
from array import array

import oracle

# Bytes of each end's buffer: what may wait in the kernel.
BUFFER = 64 << 10


def free_port(chance):
    """A port that nobody has, and that the kernel gives nobody who asks for any."""
    while True:
        port = chance.randrange(20_000, 32_000)
        try:
            with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
                udp.bind(("127.0.0.1", port))
                tcp.bind(("127.0.0.1", port))
                return port
        except OSError:
            pass


def kernel_table(name):
    """Rows of /proc/net/tcp or udp: (local port, remote port): (bytes to send, bytes to be read, the last column)."""
    rows = {}
    with open(f"/proc/net/{name}", encoding="ascii") as file:
        for row in list(file)[1:]:
            fields = row.split()
            ports = tuple(int(place.rsplit(":", 1)[1], 16) for place in fields[1:3])
            rows[ports] = *(int(size, 16) for size in fields[4].split(":")), fields[-1]
    return rows


class SocketSender:
    """Sends lines in uneven pieces, with quiet times, until told to stop; subclasses have a socket."""

    def __init__(self, number, chance, *, seed=0):
        self.source = oracle.Source(number, seed)
        self.counts = collections.Counter()
        self._chance = chance
        self._socket = None
        # While something is sent, and while a life is buried.
        self._lock = threading.Lock()
        # Lines that the kernel has not taken whole, the first of them perhaps in part.
        self._waiting = collections.deque()
        self._offset = 0
        # Of the lines that it has taken: when, and where each ends.
        self._times, self._ends = array("d"), array("Q")
        # The first line of this life.
        self._first = 0

    def run(self, stopping):
        chance = self._chance
        while not stopping.is_set():
            if chance.random() < 0.01:
                self.counts["quiet times"] += 1
                stopping.wait(chance.uniform(0.2, 1))
            with self._lock:
                if self._is_connected():
                    if not self._waiting:
                        self._waiting.extend(self.source.lines(chance.choice([1, 3, 10, 30])))
                    self._send()
            stopping.wait(chance.uniform(0, 0.02) if self._socket else 0.1)

    def left_open(self, state):
        """What is not in the spool never comes again."""
        return []

    def remaining(self):
        return []

    @property
    def sent(self):
        """Lines that the kernel has taken."""
        return len(self._times)

    def when(self, number):
        return self._times[number]

    def held(self):
        """The first line that the agent cannot have read whole: with what is before it, it waits in the kernel."""
        with self._lock:
            if not self._ends:
                return 0
            return bisect.bisect_right(self._ends, self._ends[-1] - self._held_bytes())

    def bury(self):
        """The agent is dead, and no other runs yet; the first line of its life, and the one behind the last."""
        with self._lock:
            self._disconnect()
            first, self._first = self._first, self.sent
            return first, self.sent

    def _is_connected(self):
        if self._socket is None:
            sock = self._open()
            try:
                sock.connect(self.address)
                sock.setblocking(False)
                self._socket = sock
                self.counts["connections"] += 1
            except OSError:
                sock.close()
        return self._socket is not None

    def _disconnect(self):
        if self._socket is not None:
            self._socket.close()
            self._socket, self._offset = None, 0

    def _taken(self, line):
        self._times.append(time.time())
        self._ends.append((self._ends[-1] if self._ends else 0) + len(line))


class StreamSender(SocketSender):
    """A connection; a line that was cut by its end comes again, whole, on the next."""

    def _send(self):
        data = b"".join(self._waiting)[self._offset:]
        if self._chance.random() < 0.3:  # the rest has to wait
            data = data[: self._chance.randrange(len(data)) + 1]
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            self.counts["held back"] += 1
            return
        except OSError:
            self.counts["in the middle of a line"] += self._offset > 0
            return self._disconnect()
        self._offset += sent
        while self._waiting and self._offset >= len(self._waiting[0]):
            line = self._waiting.popleft()
            self._offset -= len(line)
            self._taken(line)

    @property
    def cut(self):
        """The line that the kernel has taken a part of, or may take next."""
        return self.sent


class TCPSender(StreamSender):
    name = "tcp"

    def __init__(self, *arguments, port, **options):
        super().__init__(*arguments, **options)
        self.address = ("127.0.0.1", port)

    def _open(self):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        return sock

    def _held_bytes(self):
        if self._socket is None:
            return 0
        table, (port, mine) = kernel_table("tcp"), (self.address[1], self._socket.getsockname()[1])
        return table.get((mine, port), (0,))[0] + table.get((port, mine), (0, 0))[1]


class UnixSender(StreamSender):
    name = "unix"

    def __init__(self, *arguments, path, **options):
        super().__init__(*arguments, **options)
        self.address = str(path)

    def _open(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        return sock

    def _held_bytes(self):
        # With what the kernel needs around it.
        return 0 if self._socket is None else unread(self._socket)


def unread(sock):
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]


class UDPSender(SocketSender):
    """Fires and forgets; while nobody listens it waits, which it learns from the first that was in vain."""

    name = "udp"

    def __init__(self, *arguments, port, **options):
        super().__init__(*arguments, **options)
        self.address = ("127.0.0.1", port)

    def _open(self):
        return socket.socket(type=socket.SOCK_DGRAM)

    def _send(self):
        while self._waiting:
            try:
                self._socket.send(self._waiting[0][:-1])
            except BlockingIOError:
                return
            except OSError:
                self.counts["nobody listened"] += 1
                return self._disconnect()
            self._taken(self._waiting.popleft())

    def _held_bytes(self):
        # With what the kernel needs around it.
        return self._row()[1]

    def dropped(self):
        """Datagrams that this life's socket had no room for."""
        return int(self._row()[2])

    def _row(self):
        return kernel_table("udp").get((self.address[1], 0), (0, 0, "0"))
