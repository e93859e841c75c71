"""What a disk may hold after power was lost: builds it from the record that disk_recorder.c made of a program's calls.

A crash may come after any call. What is there then, is not what the program saw:

- What was written to a file before an fsync (or fdatasync) that has ended is there. Of later writes some are, some are not, some are
  torn at a sector or anywhere; where the file has grown and the data never came, there are zeros, or what the disk held before.
- A name that was created, renamed or removed is durable once its folder was synced. Until then names change in order: a prefix
  of the changes has happened (as with ext4 and xfs, whose journals are ordered), or, more strictly, a prefix in each folder.
- A sync that failed has cleaned the pages all the same, as Linux does: what it should have written may be missing for ever,
  also after a later sync that succeeds.
"""

import dataclasses
import hashlib
import os
import pathlib
import posixpath
import struct

OPEN, WRITE, TRUNCATE, ALLOCATE, SYNC_BEGIN, SYNC_END, RENAME, UNLINK, MKDIR, LINK, RMDIR = range(1, 12)
_HEAD = struct.Struct("<IIiIqqQi3I")
_KEEP_SIZE = 1
SECTOR = 512


@dataclasses.dataclass
class Call:
    kind: int
    pid: int
    fd: int
    flags: int
    at: int
    length: int
    # When it had ended, as time.monotonic().
    time: float
    error: int
    path: str
    other: str
    data: bytes


def read(log):
    """The calls in a recorder's log; a last one that a kill cut off does not count."""
    bytes_ = pathlib.Path(log).read_bytes()
    calls, at = [], 0
    while at + _HEAD.size <= len(bytes_):
        kind, pid, fd, flags, place, length, time, error, *sizes = _HEAD.unpack_from(bytes_, at)
        at += _HEAD.size
        if at + sum(sizes) > len(bytes_):
            break
        parts = []
        for size in sizes:
            parts.append(bytes_[at : at + size])
            at += size
        path, other = (posixpath.normpath(os.fsdecode(part)) if part else "" for part in parts[:2])
        calls.append(Call(kind, pid, fd, flags, place, length, time / 1e9, error, path, other, parts[2]))
    return calls


class Folder:
    def __init__(self, path):
        self.path = path


@dataclasses.dataclass
class Change:
    """A change of a file's data or size: at `index` in the record."""

    index: int
    kind: int
    at: int
    data: bytes = b""
    size: int = 0
    # The end of the first sync that covered it, and whether that succeeded.
    synced: int | None = None
    is_durable: bool = False

    def is_pending(self, index):
        """Whether it may be lost by a crash at `index`."""
        return not self.is_durable or self.synced >= index


class File:
    def __init__(self):
        self.changes = []
        self._unsynced = 0

    def sync(self, begin, end, succeeded):
        # The first that covers a change decides: it has cleaned the pages.
        while self._unsynced < len(self.changes) and self.changes[self._unsynced].index < begin:
            change = self.changes[self._unsynced]
            change.synced, change.is_durable = end, succeeded
            self._unsynced += 1


@dataclasses.dataclass
class Naming:
    """A change of names: what goes, what comes."""

    index: int
    removed: str | None
    added: str | None
    node: object
    folders: tuple


class Record:
    """A record, taken apart: `calls` from one or several runs of the program, one after another."""

    def __init__(self, calls, root):
        self.calls = calls
        self.root = posixpath.normpath(str(root))
        self.namings = []
        # Of folders: path → (begin, end) of those that succeeded.
        self.folder_syncs = {}
        self.names = {self.root: Folder(self.root)}
        self._open = {}
        self._begun = {}
        for index, call in enumerate(calls):
            self._take(index, call)

    def _name(self, index, removed, added, node, *paths):
        folders = tuple(dict.fromkeys(posixpath.dirname(path) for path in paths))
        self.namings.append(Naming(index, removed, added, node, folders))
        _apply(self.names, self.namings[-1])

    def _take(self, index, call):
        opened = self._open.get((call.pid, call.fd))
        if call.kind == OPEN:
            node = self.names.get(call.path)
            if node is None:
                if not call.at:
                    # There before the record began, and not written to by it.
                    node = Folder(call.path) if call.flags & os.O_DIRECTORY else File()
                else:
                    node = File()
                    self._name(index, None, call.path, node, call.path)
            elif call.flags & os.O_TRUNC and node.changes:
                node.changes.append(Change(index, TRUNCATE, 0))
            self._open[call.pid, call.fd] = node
        elif call.kind == WRITE:
            opened.changes.append(Change(index, WRITE, call.at, call.data))
        elif call.kind == TRUNCATE:
            opened.changes.append(Change(index, TRUNCATE, call.at))
        elif call.kind == ALLOCATE:
            assert call.flags in (0, _KEEP_SIZE), f"fallocate with flags {call.flags}"
            if call.flags == 0:
                opened.changes.append(Change(index, ALLOCATE, call.at, size=call.length))
        elif call.kind == SYNC_BEGIN:
            self._begun[call.pid, call.at] = index, opened
        elif call.kind == SYNC_END:
            begin, node = self._begun.pop((call.pid, call.at))
            if isinstance(node, File):
                node.sync(begin, index, call.error == 0)
            elif call.error == 0:
                self.folder_syncs.setdefault(node.path, []).append((begin, index))
        elif call.kind == RENAME:
            assert call.path and call.other, f"renamed across the root: {call}"
            self._name(index, call.path, call.other, self.names[call.path], call.path, call.other)
        elif call.kind in (UNLINK, RMDIR):
            self._name(index, call.path, None, self.names[call.path], call.path)
        elif call.kind == MKDIR:
            self._name(index, None, call.path, Folder(call.path), call.path)
        elif call.kind == LINK:
            self._name(index, None, call.other, self.names[call.path], call.other)

    def time(self, index):
        """When the first `index` calls had been made."""
        return self.calls[index - 1].time

    # Names

    def _namings(self, index, chance, how):
        """The changes of names that have happened: those that must have, and of the others as many as `how` says."""
        made = [naming for naming in self.namings if naming.index < index]
        last = {
            folder: max((begin for begin, end in syncs if end < index), default=-1)
            for folder, syncs in self.folder_syncs.items()
        }
        if how == "strict":
            # Each folder's own prefix; a rename between two is one change.
            kept = {}
            for folder in dict.fromkeys(folder for naming in made for folder in naming.folders):
                own = [naming.index for naming in made if folder in naming.folders]
                durable = sum(each < last.get(folder, -1) for each in own)
                count = chance.randint(durable, len(own))
                kept[folder] = own[count - 1] if count else -1
            return [naming for naming in made if any(naming.index <= kept[folder] for folder in naming.folders)]
        durable = max(
            (at + 1 for at, naming in enumerate(made) if any(naming.index < last.get(each, -1) for each in naming.folders)),
            default=0,
        )
        count = {"durable": durable, "all": len(made), "some": chance.randint(durable, len(made))}[how]
        return made[:count]

    # Data

    def image(self, index, chance, data, names):
        """The disk after a crash behind the first `index` calls: {path: bytes, or None for a folder}."""
        tree = {self.root: Folder(self.root)}
        for naming in self._namings(index, chance, names):
            _apply(tree, naming)
        image = {}
        last = max(
            (
                change.index for node in set(tree.values()) if isinstance(node, File) for change in node.changes
                if change.index < index and change.is_pending(index)
            ),
            default=-1,
        )
        contents = {}
        for path, node in sorted(tree.items()):
            if path == self.root or any(str(above) not in tree for above in pathlib.PurePath(path).parents
                                        if str(above).startswith(self.root)):
                continue
            if isinstance(node, Folder):
                image[path] = None
            else:
                if node not in contents:
                    contents[node] = _content(node, index, last, chance, data)
                image[path] = contents[node]
        return image

    def final(self):
        """What is there after the last call, if no power is lost."""
        return {
            path: None if isinstance(node, Folder) else _content(node, len(self.calls), -1, None, "all")
            for path, node in self.names.items() if path != self.root
        }


def _apply(names, naming):
    if naming.removed is not None:
        names.pop(naming.removed, None)
        if naming.added is not None and isinstance(naming.node, Folder):
            assert not any(path.startswith(naming.removed + "/") for path in names), "a folder with files in it was renamed"
            naming.node.path = naming.added
    if naming.added is not None:
        names[naming.added] = naming.node


def _content(file, index, last, chance, how):
    content = bytearray()

    def grow(to):
        if len(content) < to:
            content.extend(bytes(to - len(content)))

    for change in file.changes:
        if change.index >= index:
            break
        is_pending = change.is_pending(index)
        pieces = [(0, len(change.data))]
        if is_pending:
            if how == "none" or (how in ("but last", "torn", "sector") and change.index > last):
                continue
            if change.index == last and how == "but last":
                continue
            if change.kind == WRITE:
                pieces = _pieces(change, change.index == last, chance, how)
            elif how == "random" and chance.random() < 0.5:
                continue
        if change.kind == TRUNCATE:
            del content[change.at :]
            grow(change.at)
        elif change.kind == ALLOCATE:
            grow(change.at + change.size)
        else:
            for start, end in pieces:
                if end > start:
                    grow(change.at + end)
                    content[change.at + start : change.at + end] = change.data[start:end]
            if is_pending and how in ("holes", "stale"):
                # Its size came, all of it.
                was = len(content)
                grow(change.at + len(change.data))
                if how == "stale" and len(content) > was:
                    content[was:] = chance.randbytes(len(content) - was)
    return bytes(content)


def _pieces(change, is_last, chance, how):
    """Which parts of a write that was not synced have reached the disk."""
    size = len(change.data)
    if how == "torn":
        return [(0, chance.randint(0, size))] if is_last else [(0, size)]
    if how == "sector":
        # At a border of sectors of the disk.
        if not is_last:
            return [(0, size)]
        borders = [border - change.at for border in _borders(change)]
        return [(0, chance.choice(borders))]
    if how in ("holes", "stale", "random"):
        share = chance.choice([0, 0.5, 0.9, 1])
        borders = [border - change.at for border in _borders(change)]
        return [pair for pair in zip(borders, borders[1:]) if chance.random() < share]
    return [(0, size)]


def _borders(change):
    """The change's ends, and the borders of sectors between them."""
    end = change.at + len(change.data)
    first = (change.at // SECTOR + 1) * SECTOR
    return [change.at, *range(first, end, SECTOR), end]


# What data, with what names: for each place a crash can come.
VARIANTS = [
    ("none", "durable"), ("none", "all"), ("all", "durable"), ("all", "all"), ("but last", "all"), ("torn", "all"),
    ("sector", "all"), ("holes", "all"), ("stale", "all"), ("random", "some"), ("random", "strict"), ("none", "strict"),
]


# Seconds after which the same image is another case.
AGAIN = 1.0


def images(record, chance, start=1):
    """All different images that a crash behind any call may leave, in a random order: (index, data, names, image)."""
    places = [
        (index, data, names) for index in range(start, len(record.calls) + 1) for data, names in VARIANTS
    ]
    chance.shuffle(places)
    seen = {}
    for index, data, names in places:
        image = record.image(index, chance, data, names)
        digest = hashlib.sha256()
        for path, content in image.items():
            digest.update(repr((path, content is None, len(content or b""))).encode() + (content or b""))
        digest = digest.digest()
        # The same image earlier asks for more lines; later, for fewer twice.
        first, last = seen.get(digest, (index + 1, index + 1))
        if index >= first and record.time(index) < record.time(last) + AGAIN:
            continue
        seen[digest] = min(first, index), max(last, index) if digest in seen else index
        yield index, data, names, image


def write(image, root, to):
    """Writes an image of `root` into the new folder `to`."""
    to = pathlib.Path(to)
    to.mkdir(parents=True)
    for path, content in image.items():
        place = to / pathlib.PurePath(path).relative_to(root)
        if content is None:
            place.mkdir()
        else:
            place.write_bytes(content)
