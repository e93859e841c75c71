"""What aggregating alone costs: records of 100 bytes, beside a loop in C that only frames and copies them, and aws_kinesis_agg.

python benchmarks/Packing/run.py [--pairs N] [--write]     (make bench)

Under one key; and under 1,000 keys over 64 shards, each record's key hashed and looked up: beside the same loop, and beside the
least that places records by their keys in C. The checksums of aggregates are a call's, and are not counted here. Ratios are
medians of pairs on one core, printed beside those of benchmarks/results/packing.json, which --write writes. What becomes dearer
fails by its instructions (benchmarks/Instructions).
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from aws_kinesis_agg.aggregator import RecordAggregator

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / ".build" / "release" / "instruction-benchmark"
RESULTS = ROOT / "benchmarks" / "results" / "packing.json"
ROUNDS = 10_000
WORKS = [("pack", "one key", 2.0), ("pack-keys", "1,000 keys, 64 shards", 3.5)]


def cpu(*command):
    """User CPU seconds of a command, and the records it says it did."""
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    records = int(process.stdout.read())
    _, status, use = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} ended with {process.returncode}")
    return use.ru_utime, records


def cost(*command):
    """Nanoseconds of a record, without the start."""
    before, fewer = cpu(*command, 1)
    after, records = cpu(*command, 1 + ROUNDS)
    return (after - before) / (records - fewer) * 1e9


def aws_kinesis_agg():
    """Nanoseconds of a record."""
    aggregator, records, data = RecordAggregator(), 20_000, "x" * 100
    began = time.process_time()
    for _ in range(records):
        aggregator.add_user_record("a", data)
    return (time.process_time() - began) / records * 1e9


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--pairs", type=int, default=7)
    options.add_argument("--write", action="store_true")
    options = options.parse_args()
    compiler = os.environ.get("CC") or shutil.which("clang") or sys.exit("there is no clang: it comes with Swift")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        least = pathlib.Path(folder) / "pack"
        subprocess.check_call([compiler, "-O3", "-o", least, pathlib.Path(__file__).with_name("pack.c")])
        pairs = [
            (cost(least, "pack"), cost(least, "pack-keys"), *(cost(BINARY, work) for work, *_ in WORKS), aws_kinesis_agg())
            for _ in range(options.pairs)
        ]
    floors, placed, *works, agg = zip(*pairs)

    def ratio(runs, floors):
        return round(statistics.median(mine / floor for mine, floor in zip(runs, floors)), 2)

    ratios = {name: ratio(runs, floors) for (_, name, _), runs in zip(WORKS, works)}
    print(f"aggregating records of 100 bytes, medians of {options.pairs} pairs\n")
    print(f"{'':28}{'ns a record':>12}{'records/s':>14}{'to C':>8}{'at most':>9}{'committed':>11}")
    for name, runs, most in [("framed and copied in C", floors, None), ("placed by 1,000 keys in C", placed, None)] + [
        (name, runs, most) for (_, name, most), runs in zip(WORKS, works)
    ] + [("aws_kinesis_agg", agg, None)]:
        middle = statistics.median(runs)
        beside = f"{ratio(runs, floors):8.2f}" if runs is not agg else ""
        limit = f"{most:9.2f}" if most else ""
        last = f"{kept[name]:11.2f}" if most and name in kept else ""
        mark = "  not reached" if most and ratios[name] > most else ""
        print(f"{name:28}{middle:12.1f}{1e9 / middle:14,.0f}{beside}{limit}{last}{mark}")
    print(f"\n1,000 keys: {ratio(works[1], placed):.2f} times what placing them takes in C")
    if options.write:
        RESULTS.write_text(json.dumps(ratios, indent=1) + "\n")


main()
