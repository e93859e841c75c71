"""What the inner loops cost, in instructions as callgrind counts them, beside those of the last committed run.

run.py             compares, and fails where something costs more than a tenth more
run.py --write     writes benchmarks/results/instructions.json, for a commit that is to change it

A count depends on the compiler and on which of its paths a library takes, never on the machine's speed or load. Valgrind
knows AVX2 and neither AVX-512 nor SHA-NI; without AVX2 other paths are counted, and nothing is compared.
"""

import argparse
import concurrent.futures
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / ".build" / "release" / "instruction-benchmark"
RESULTS = ROOT / "benchmarks" / "results" / "instructions.json"
MORE = 1.10

# Name, rounds, what is counted.
WORKS = [
    ("ring", 20, "datagram of 235 bytes through the ring"),
    ("key", 20, "partition key hashed"),
    ("lookup", 20, "hash key among 10,000 shards"),
    ("lines", 3, "line of 217 bytes cut, framed and sealed, 4 shards"),
    ("keyed", 4, "record of 100 bytes, 1,000 keys over 64 shards"),
    ("field", 4, "JSON line, keyed by a field, 64 shards"),
    ("checksum", 4, "checksum of one aggregate of 50 KiB"),
    ("pace", 4, "aggregate through limiter and batcher, 64 shards"),
    ("cbor", 20, "aggregate of 50 KiB in a CBOR body"),
    ("json", 4, "aggregate of 50 KiB in a JSON body"),
    ("sign", 20, "call signed"),
    ("deaggregate", 4, "record taken out of an aggregate"),
    ("spool", 20, "aggregate of 50 KiB into the spool"),
]

# A syslog message's own size and head decide what it costs.
HEADS = {
    "RFC 3164": b"<165>Oct 11 22:14:15 mymachine.example.com evntslog[1234]: ",
    "RFC 5424": b"<165>1 2003-10-11T22:14:15.003987Z mymachine.example.com evntslog 1234 ID47 - ",
}
# Below 4096 bytes: from there on memcpy is one instruction that callgrind counts once for each byte.
SIZES = [235, 1000, 4000]
SYSLOG = ["memchr", "raw", "host", "memcpy", "json"]
BODY = b"disk sda is at 91 percent of its capacity, the next look is in 300 s; "


def collected(binary, work, rounds, message):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary, work, str(rounds)]
    run = subprocess.run(command, input=message, capture_output=True, timeout=300)
    found = re.search(rb"Collected : (\d+)", run.stderr)
    if not found or run.returncode:
        sys.exit(f"callgrind failed on {work}: {run.stderr.decode()}")
    return int(found[1]), int(run.stdout)


def instructions(binary, work, rounds, message=b""):
    """Instructions of one unit: between one round, which warms what is kept, and so many more."""
    before, units = collected(binary, work, 1, message)
    after, more = collected(binary, work, 1 + rounds, message)
    return (after - before) / (more - units)


def has_avx2():
    return "avx2" in pathlib.Path("/proc/cpuinfo").read_text().split()


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--write", action="store_true")
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        # Valgrind cannot read the debug information of Swift's compiler.
        binary = pathlib.Path(folder) / "instruction-benchmark"
        subprocess.run(["strip", "--strip-debug", "-o", binary, BINARY], check=True)
        works = [(name, text, pool.submit(instructions, binary, name, rounds)) for name, rounds, text in WORKS]
        syslog = []
        for head, start in HEADS.items():
            for size in SIZES:
                message = (start + BODY * (size // len(BODY) + 1))[:size]
                costs = [pool.submit(instructions, binary, f"syslog-{work}", 500, message) for work in SYSLOG]
                syslog.append((head, size, costs))
        found = {name: round(cost.result(), 1) for name, _, cost in works}
        syslog = [(head, size, [cost.result() for cost in costs]) for head, size, costs in syslog]
    for head, size, costs in syslog:
        found |= {f"syslog {work}, {head}, {size}": round(cost, 1) for work, cost in zip(SYSLOG, costs)}

    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    failures = [
        f"{name}: {cost:.0f} instructions, {kept[name]:.0f} before"
        for name, cost in found.items() if name in kept and cost > kept[name] * MORE
    ]
    print(f"{'instructions':>12}{'before':>12}")
    for name, text, _ in works:
        print(f"{found[name]:12,.0f}{kept.get(name, float('nan')):12,.0f}  {text}")

    print(f"\na syslog message\n{'':10}{'bytes':>6}" + "".join(f"{work:>9}" for work in SYSLOG) + "  raw/memchr  json/memcpy")
    for head, size, costs in syslog:
        memchr, raw, _, memcpy, whole = costs
        columns = "".join(f"{cost:9.0f}" for cost in costs)
        print(f"{head:10}{size:6}{columns}{raw / memchr:12.2f}{whole / memcpy:13.2f}")
        # What the fixed text of an object costs does not depend on the message: the ratio falls with its length.
        if raw / memchr > 1.5:
            failures.append(f"{head}: the raw format costs {raw / memchr:.2f} times memchr over {size} bytes, of at most 1.5")
        if size == SIZES[-1] and whole / memcpy > 6:
            failures.append(f"{head}: an object costs {whole / memcpy:.2f} times memcpy of {size} bytes, of at most 6")

    if options.write:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    elif not has_avx2():
        print("\nnot compared: this machine has no AVX2")
    elif failures:
        sys.exit("\nFAILED\n" + "\n".join(failures))


main()
