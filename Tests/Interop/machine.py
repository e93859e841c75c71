"""Watches whether the machine is taken away from us: a virtual one may be paused, its disk may hang, and its host may give the
processors to others, for minutes at a time.

    python machine.py FOLDER    writes a line a halt to its output until its input ends
    python machine.py           ends when three seconds in a row were quiet, or half a minute is over

A halt is a line `{"at": …, "seconds": …, "what": "processor" | "disk" | "host"}`, `at` in seconds of the monotonic clock at its
end. The host's seconds are those for which a processor had work and was not ours (proc_stat(5): steal).
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time

# What a busy machine may take to wake a process that has precedence, and to write a byte down, in seconds; and what its host
# may take of a second without our noticing.
LEAST = {"processor": 1.0, "disk": 2.0, "host": 0.05}
# As much in all is worth another try: in seconds, and of the time that a test took.
MATTERS, MATTERS_OF = 0.25, 0.01


class Watch:
    """The process that watches, and what it saw."""

    def __init__(self, folder):
        self.halts = []
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        self.halts.extend(json.loads(line) for line in self._process.stdout)

    def since(self, moment):
        """What was taken from us since that moment of the monotonic clock, in words; what hardly matters is an empty text.

        It waits for what the last second still has to tell.
        """
        took = time.monotonic() - moment
        time.sleep(1.2)
        halts = [halt for halt in self.halts if halt["at"] >= moment]
        words = [f"the {halt['what']} stood still for {halt['seconds']} s" for halt in halts if halt["what"] != "host"]
        taken = sum(halt["seconds"] for halt in halts if halt["what"] == "host")
        if taken >= max(MATTERS, MATTERS_OF * took):
            words.append(f"the host took {taken:.1f} s of the processors' time")
        return ", ".join(words)

    def wait_until_quiet(self):
        """Waits, half a minute at most, until the machine is ours again."""
        # A machine that is away for longer is no reason to give up.
        with contextlib.suppress(subprocess.SubprocessError):
            subprocess.run([sys.executable, __file__], timeout=90)

    def stop(self):
        self._process.stdin.close()
        self._process.wait(60)
        self._thread.join(10)


def _tell(what, seconds):
    if seconds >= LEAST[what]:
        print(json.dumps({"at": round(time.monotonic(), 2), "seconds": round(seconds, 2), "what": what}), flush=True)


def _stolen():
    """What the host has taken since the start, in seconds of a processor."""
    with open("/proc/stat", encoding="ascii") as stat:
        return int(stat.readline().split()[8]) / os.sysconf("SC_CLK_TCK")


def _watch_disk(folder):
    with open(os.path.join(folder, "sync"), "wb") as file:
        while True:
            time.sleep(1)
            began = time.monotonic()
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
            _tell("disk", time.monotonic() - began)


def _watch_host():
    stolen = _stolen()
    while True:
        time.sleep(1)
        before, stolen = stolen, _stolen()
        _tell("host", stolen - before)


def wait_until_quiet():
    # The host tells what it takes only of what somebody wants.
    os.nice(19)
    quiet, began = 0, time.monotonic()
    while quiet < 3 and time.monotonic() - began < 30:
        second, stolen = time.monotonic(), _stolen()
        while time.monotonic() - second < 1:
            pass
        quiet = quiet + 1 if _stolen() - stolen < LEAST["host"] else 0


def main(folder):
    try:
        os.nice(-10)
    except PermissionError:
        pass
    threading.Thread(target=_watch_disk, args=(folder,), daemon=True).start()
    threading.Thread(target=_watch_host, daemon=True).start()
    while True:
        began = time.monotonic()
        if select.select([sys.stdin], [], [], 0.1)[0]:
            return
        _tell("processor", time.monotonic() - began)


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 1 else wait_until_quiet()
