"""The spool's disk work beside dd's on the same disk: writing with every byte synced, and reading back.

Pairs are interleaved, each on its own files; the medians of the ratios count. Fails when one is below FLOOR, unless it is
faster than any agent has to be: a virtual disk whose host only remembers what it is told takes more than a disk.
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


def dd(*words):
    began = time.monotonic()
    subprocess.run(["dd", *words, "bs=1M"], check=True, capture_output=True)
    return time.monotonic() - began


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-bench-", dir=os.environ.get("BENCH_FOLDER")))
    rows = []
    try:
        plain = folder / "plain"
        # What dd writes is no easier to store: random bytes, in memory.
        source = folder / "source"
        with open(source, "wb") as file:
            for _ in range(MIB):
                file.write(os.urandom(1 << 20))
        for pair in range(PAIRS):
            def ours():
                spool = folder / f"spool-{pair}"
                out = subprocess.run([BINARY, spool, str(MIB)], check=True, capture_output=True, text=True).stdout
                shutil.rmtree(spool)
                return json.loads(out)

            def theirs():
                seconds = dd(f"if={source}", f"of={plain}", "conv=fsync")
                plain.unlink()
                return seconds

            if pair % 2:
                spool, write = ours(), theirs()
            else:
                write, spool = theirs(), ours()
            mb = spool["bytes"] / 1e6
            rows.append((mb / spool["write_seconds"], MIB * 1.048576 / write, mb / spool["read_seconds"]))
    finally:
        shutil.rmtree(folder)
    write = statistics.median(row[0] / row[1] for row in rows)
    # Reading is compared with dd's writing and syncing: a drain must keep up with what the disk took in.
    replay = statistics.median(row[2] / row[1] for row in rows)
    middle = [statistics.median(column) for column in zip(*rows)]
    print(f"{'spool':24}{'MB/s':>10}{'dd MB/s':>10}{'ratio':>8}   ({PAIRS} pairs of {MIB} MiB, medians)")
    print(f"{'write, synced':24}{middle[0]:10.0f}{middle[1]:10.0f}{write:8.2f}")
    print(f"{'replay':24}{middle[2]:10.0f}{middle[1]:10.0f}{replay:8.2f}")
    if any(ratio < FLOOR and speed < ENOUGH for ratio, speed in ((write, middle[0]), (replay, middle[2]))):
        sys.exit(f"below {FLOOR} of dd")


if __name__ == "__main__":
    main()
