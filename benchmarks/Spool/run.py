"""The spool's disk work beside dd's on the same disk: writing with every byte synced, and reading back.

Each measurement of ours lies between two of dd's, and counts only where those took the same, about: a disk that others use
too becomes three times as fast within a minute, and a ratio of two moments of it means nothing. The medians of what counts
are judged. Fails when one is below FLOOR, unless it is faster than any agent has to be: a virtual disk whose host only
remembers what it is told takes more than a disk.
"""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / ".build" / "release" / "spool-benchmark"
PAIRS = int(os.environ.get("PAIRS", 7))
MIB = int(os.environ.get("MIB", 512))
FLOOR = 0.7
# MB/s: what 600 shards take.
ENOUGH = 600
# What dd takes before and after may differ so much from its mean.
STEADY = 0.15
# Moments that are judged at least, and seconds after which no more than these are measured.
LEAST = max(1, PAIRS // 2)
LONGEST = 120


class Disk:
    """Files of a folder, and what it takes to write and read them, in MB/s."""

    def __init__(self, folder):
        self.folder = folder
        # What dd writes is no easier to store: random bytes, in memory.
        self.source = folder / "source"
        with open(self.source, "wb") as file:
            for _ in range(MIB):
                file.write(os.urandom(1 << 20))

    def dd(self):
        plain = self.folder / "plain"
        began = time.monotonic()
        subprocess.run(
            ["dd", f"if={self.source}", f"of={plain}", "conv=fsync", "bs=1M"], check=True, capture_output=True
        )
        seconds = time.monotonic() - began
        plain.unlink()
        return MIB * 1.048576 / seconds

    def spool(self):
        """Writing, and reading back."""
        spool = self.folder / "spool"
        found = json.loads(subprocess.run([BINARY, spool, str(MIB)], check=True, capture_output=True, text=True).stdout)
        shutil.rmtree(spool)
        megabytes = found["bytes"] / 1e6
        return megabytes / found["write_seconds"], megabytes / found["read_seconds"]


def measured(disk, pairs, rows, ends):
    """Adds so many rows of our writing, our reading and dd's writing in a steady moment, as far as there is time.

    Returns how many moments were not steady.
    """
    wanted, unsteady = len(rows) + pairs, 0
    before = disk.dd()
    while len(rows) < wanted and (time.monotonic() < ends or len(rows) + unsteady < LEAST):
        write, read = disk.spool()
        after = disk.dd()
        mean = (before + after) / 2
        if abs(before - mean) <= STEADY * mean:
            rows.append((write, read, mean))
        else:
            unsteady += 1
        before = after
    return unsteady


def judged(rows):
    """What is written, what is read, dd's, and the ratios of the first two; medians."""
    middle = [statistics.median(column) for column in zip(*rows)]
    # Reading is compared with dd's writing and syncing: a drain must keep up with what the disk took in.
    ratios = [statistics.median(row[index] / row[2] for row in rows) for index in (0, 1)]
    return middle, ratios


def is_slow(rows):
    middle, ratios = judged(rows)
    return any(ratio < FLOOR and speed < ENOUGH for ratio, speed in zip(ratios, middle))


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-bench-", dir=os.environ.get("BENCH_FOLDER")))
    rows, ends = [], time.monotonic() + LONGEST
    try:
        disk = Disk(folder)
        unsteady = measured(disk, PAIRS, rows, ends)
        if rows and is_slow(rows) and time.monotonic() < ends:
            print("(measured again: it was slow)")
            unsteady += measured(disk, 2 * PAIRS, rows, ends)
    finally:
        shutil.rmtree(folder)
    print(f"{'spool':24}{'MB/s':>10}{'dd MB/s':>10}{'ratio':>8}   ({len(rows)} steady moments of {len(rows) + unsteady},"
          f" {MIB} MiB each, medians)")
    if len(rows) < LEAST and unsteady > len(rows):
        return print("not judged: dd itself takes now this and now that")
    (write, read, dd), ratios = judged(rows)
    print(f"{'write, synced':24}{write:10.0f}{dd:10.0f}{ratios[0]:8.2f}")
    print(f"{'replay':24}{read:10.0f}{dd:10.0f}{ratios[1]:8.2f}")
    if is_slow(rows):
        sys.exit(f"below {FLOOR} of dd")


if __name__ == "__main__":
    main()
