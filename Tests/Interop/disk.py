"""The library that records and disturbs what a program does to a folder, and the plan of what fails. See disk.c."""

import enum
import errno
import mmap
import os
import pathlib
import shutil
import struct
import subprocess

HERE = pathlib.Path(__file__).parent


def build(folder):
    """Compiles the library."""
    library = folder / "libdisk.so"
    compiler = os.environ.get("CC") or shutil.which("cc") or "clang"
    subprocess.check_call([compiler, "-shared", "-fPIC", "-O2", "-o", library, HERE / "disk.c", "-ldl"])
    return library


class Operation(enum.IntFlag):
    # In the order of disk.c.
    OPENING, WRITING, SYNCING, RENAMING, RESIZING, MAKING, REMOVING = (1 << bit for bit in range(7))


class Faults:
    """A plan that a running program follows: `fail` and `heal` at any time."""

    _PLAN = struct.Struct("<IiIIQ7I")

    def __init__(self, path, seed):
        self.path = path
        path.write_bytes(self._PLAN.pack(0, 0, 0, 0, seed, *[0] * 7))
        with open(path, "r+b") as file:
            self._shared = mmap.mmap(file.fileno(), self._PLAN.size)

    def fail(self, operations, error=errno.EIO, share=1.0, torn=False):
        """Of these operations a share fails from now on."""
        struct.pack_into("<iII", self._shared, 4, error, round(share * 1000), torn)
        struct.pack_into("<I", self._shared, 0, operations)

    def heal(self):
        struct.pack_into("<I", self._shared, 0, 0)

    @property
    def failed(self):
        """How many have failed, by operation."""
        counts = struct.unpack_from("<7I", self._shared, 24)
        return dict(zip(Operation, counts))
