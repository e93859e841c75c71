"""Watches whether the machine stands still: a virtual one may be paused, and its disk may hang, for many seconds.

    python machine.py FOLDER    writes a line a halt to its output until its input ends

A halt is a line `{"at": …, "seconds": …, "what": "processor" | "disk"}`, `at` in seconds of the monotonic clock at its end.
"""

import json
import os
import select
import subprocess
import sys
import threading
import time

# What a busy machine may take to wake a process that has precedence, and to write a byte down, in seconds.
LEAST = {"processor": 1.0, "disk": 2.0}


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
        """What halted since that moment of the monotonic clock, in words; nothing is an empty text."""
        return ", ".join(f"the {halt['what']} stood still for {halt['seconds']} s" for halt in self.halts if halt["at"] >= moment)

    def stop(self):
        self._process.stdin.close()
        self._process.wait(60)
        self._thread.join(10)


def _tell(what, began):
    now = time.monotonic()
    if now - began >= LEAST[what]:
        print(json.dumps({"at": round(now, 2), "seconds": round(now - began, 2), "what": what}), flush=True)


def _watch_disk(folder):
    with open(os.path.join(folder, "sync"), "wb") as file:
        while True:
            time.sleep(1)
            began = time.monotonic()
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
            _tell("disk", began)


def main(folder):
    try:
        os.nice(-10)
    except PermissionError:
        pass
    threading.Thread(target=_watch_disk, args=(folder,), daemon=True).start()
    while True:
        began = time.monotonic()
        if select.select([sys.stdin], [], [], 0.1)[0]:
            return
        _tell("processor", began)


if __name__ == "__main__":
    main(*sys.argv[1:])
