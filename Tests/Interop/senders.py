"""Programs that write numbered lines, and what rotates their files.

What a sender is to those who run and judge it:

    source          what it wrote, numbered (oracle.Source)
    run(stopping)   writes until told to stop, in a thread of its own
    left_open(state)  stretches (source, first, end) of its lines that an agent which left this state may send again
    counts          what happened to it, by name

A socket's sender (socket_senders.py) leaves nothing open.
"""

import bisect
import collections
import contextlib
import gzip
import hashlib
import os
import shutil
import time
from array import array

import oracle

_HEAD = 1024
# Lines of the largest burst.
BURST = 30_000


class State:
    """The entries of an agent's state file, found by content: what a file is called, and its inode, may change."""

    def __init__(self, entries):
        self._positions = {}
        for entry in entries:
            if entry.get("head_size"):
                key = entry["head_size"], entry["head_sha256"][:32]
                self._positions[key] = max(entry["position"], self._positions.get(key, 0))
        self._sizes = sorted({size for size, _ in self._positions})

    def position(self, head):
        """How far the file that begins with `head` was delivered; None if it is not known."""
        found = [
            self._positions.get((size, hashlib.sha256(head[:size]).hexdigest()[:32]))
            for size in self._sizes if size <= len(head)
        ]
        return max((position for position in found if position is not None), default=None)


class Text:
    """What stands in a file until it is truncated, whatever the file is called: consecutive lines of a source."""

    def __init__(self, first):
        self.first = first
        # Per line, where it ends.
        self.ends = array("Q")
        self.head = b""

    @property
    def end(self):
        return self.first + len(self.ends)

    def append(self, lines):
        if len(self.head) < _HEAD:
            self.head = (self.head + b"".join(lines))[:_HEAD]
        at = self.ends[-1] if self.ends else 0
        for line in lines:
            at += len(line)
            self.ends.append(at)

    def delivered(self, position):
        """The number of the first line beyond a position."""
        return self.first + bisect.bisect_right(self.ends, position)


class Rotated:
    """A file that was rotated away."""

    def __init__(self, path, text, number=1):
        self.path, self.text, self.number = path, text, number
        self.is_packed = False


class FileSender:
    """Writes lines to a file in uneven pieces, with quiet times and bursts; subclasses say how the file is rotated.

    `is_delivered(path)` asks the agent's command whether all of a file is delivered; `state()` is what the state file
    says now; `is_calm()` whether there may be more lines. `promised(source, first, end)` is told what is_delivered said.
    """

    # Seconds between rotations, from and to.
    period = 0.3, 4.0

    def __init__(self, number, folder, chance, *, state, is_delivered, is_calm, promised, seed=0):
        self.source = oracle.Source(number, seed)
        self.counts = collections.Counter()
        self.name = folder.name
        self.path = folder / "app.log"
        # What an input's paths and exclude are for this sender.
        self.patterns = [self.path]
        self.exclude = []
        self._chance, self._state, self._is_delivered = chance, state, is_delivered
        self._is_calm, self._promised = is_calm, promised
        # The newest first.
        self.rotated = []
        self._texts = []
        self._file = None
        folder.mkdir(parents=True)

    # The interface

    def run(self, stopping):
        self._open()
        chance = self._chance
        rotation = time.monotonic() + chance.uniform(*self.period)
        while not stopping.is_set():
            mood = chance.random()
            if mood < 0.01:
                self.counts["quiet times"] += 1
                stopping.wait(chance.uniform(1, 6))
            elif mood < 0.014 and self._is_calm():
                self.counts["bursts"] += 1
                self._append(chance.randint(BURST // 4, BURST))
                # Often rotated while the agent lags behind.
                if chance.random() < 0.5:
                    rotation = 0
            elif self._is_calm():
                self._append(chance.choice([1, 3, 10, 30, 100]))
            if time.monotonic() >= rotation and self._may_rotate():
                self.counts["rotations"] += 1
                self._rotate()
                rotation = time.monotonic() + chance.uniform(*self.period)
            if self.rotated and chance.random() < 0.15:
                self._tidy(chance.choice(self.rotated))
            stopping.wait(chance.uniform(0, 0.06))
        os.close(self._file)

    def left_open(self, state, but=()):
        stretches = []
        for text in list(self._texts):
            if text in but:
                continue
            first = text.delivered(state.position(text.head) or 0)
            if first < text.end:
                stretches.append((self.source.number, first, text.end))
        return stretches

    def remaining(self):
        """Paths of every file that is left, packed ones apart."""
        return [str(self.path)] + [file.path for file in self.rotated if not file.is_packed]

    # Writing

    def _open(self):
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        self._begin_text()

    def _begin_text(self):
        self.text = Text(self.source.written)
        self._texts.append(self.text)

    def _append(self, count):
        # More than a few are written as a busy program does: in many writes.
        while count > 0:
            lines = list(self.source.lines(min(count, 5000)))
            count -= len(lines)
            self.text.append(lines)
            text = b"".join(lines)
            # Often in two writes, torn within a line.
            cut = self._chance.randrange(1, len(text)) if self._chance.random() < 0.3 else len(text)
            self._write(text[:cut])
            if cut < len(text):
                time.sleep(self._chance.choice([0, 0.002, 0.02, 0.2]))
                self._write(text[cut:])

    def _write(self, text):
        while text:
            text = text[os.write(self._file, text):]

    # Rotating

    def _may_rotate(self):
        return True

    def _is_known(self):
        """Whether the state file names what is in the file now: only then can an agent that was killed find it under a
        name that no pattern matches."""
        return bool(self.text.head) and self._state().position(self.text.head) is not None

    def _name(self, number):
        return f"{self.path}.{number}"

    def _shift(self):
        """app.log.2 → app.log.3, app.log.1 → app.log.2"""
        for file in reversed(self.rotated):
            file.number += 1
            path = self._name(file.number) + (".gz" if file.is_packed else "")
            os.rename(file.path, path)
            file.path = path

    def _rename_away(self):
        self._shift()
        os.rename(self.path, self._name(1))
        self.rotated.insert(0, Rotated(self._name(1), self.text))
        # A program goes on in the renamed file until it is told.
        if self._chance.random() < 0.5:
            self.counts["written behind a rename"] += 1
            time.sleep(self._chance.choice([0, 0.01, 0.1]))
            self._append(self._chance.randint(1, 100))
        os.close(self._file)
        self._open()

    # Tidying up

    def _tidy(self, file):
        """Deletes a rotated file if all of it is delivered."""
        if self._ask(file):
            self._delete(file)

    def _ask(self, file):
        if not self._is_delivered(file.path):
            return False
        self._promised(self.source.number, file.text.first, file.text.end)
        return True

    def _delete(self, file):
        os.unlink(file.path)
        self.counts["deletions"] += 1
        self.rotated.remove(file)
        self._forget(file)

    def _forget(self, file):
        # What is deleted can never come again.
        if file.text in self._texts:
            self._texts.remove(file.text)


class Renaming(FileSender):
    """logrotate's `create`. With `matches_rotated` the pattern knows the rotated names too."""

    def __init__(self, *arguments, matches_rotated, **options):
        super().__init__(*arguments, **options)
        self._matches_rotated = matches_rotated
        if matches_rotated:
            self.patterns = [f"{self.path}*"]

    def _may_rotate(self):
        return self._matches_rotated or self._is_known()

    def _rotate(self):
        self._rename_away()


class CopyTruncating(Renaming):
    """logrotate's `copytruncate`, but for its flaw: the program waits, so that nothing comes between copy and truncation."""

    def _rotate(self):
        self._shift()
        with open(self.path, "rb") as source, open(self._name(1), "xb") as copy:
            shutil.copyfileobj(source, copy, 1 << 16)
        os.ftruncate(self._file, 0)
        self.rotated.insert(0, Rotated(self._name(1), self.text))
        self._begin_text()


class Packing(Renaming):
    """logrotate's `create` and `compress`: files are packed whether the agent has finished them or not."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, matches_rotated=False, **options)

    def left_open(self, state):
        # A packed file that the agent has forgotten is finished: no pattern leads to it.
        forgotten = [
            file.text for file in list(self.rotated) if file.is_packed and state.position(file.text.head) is None
        ]
        return super().left_open(state, forgotten)

    def _tidy(self, file):
        if not file.is_packed:
            self._pack(file)
        elif self._state().position(file.text.head) is None:
            # Read to its end; what the spool has of it may not have come yet.
            self._delete(file)

    def _pack(self, file):
        self.counts["packed"] += 1
        position = self._state().position(file.text.head)
        self.counts["packed before it was finished"] += file.text.delivered(position or 0) < file.text.end
        packed = file.path + ".gz"
        with open(file.path, "rb") as source, gzip.open(packed, "xb", 1) as target:
            shutil.copyfileobj(source, target, 1 << 16)
        os.unlink(file.path)
        file.path, file.is_packed = packed, True


class Dated(FileSender):
    """A program that begins a file of another name itself, often in a folder of another name; a recursive pattern."""

    def __init__(self, number, folder, *arguments, **options):
        super().__init__(number, folder, *arguments, **options)
        self._root = folder
        self.patterns = [folder / "**" / "*.log"]
        self._count = 0
        self.path = self._next()

    def _next(self):
        self._count += 1
        folder = self._root / self._chance.choice(["", "a", "a/b", "c", f"day-{self._count // 10}/x"])
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"app-{self._count}.log"

    def _rotate(self):
        self.rotated.insert(0, Rotated(str(self.path), self.text))
        if self._chance.random() < 0.5:
            self._append(self._chance.randint(1, 100))
        os.close(self._file)
        self.path = self._next()
        self._open()

    def _delete(self, file):
        super()._delete(file)
        # Sometimes the folder goes too, if nothing else is in it.
        if self._chance.random() < 0.3:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(file.path))
