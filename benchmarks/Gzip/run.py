"""What the product packs blocks of log lines to, and how fast, beside zlib's level 1 on the same blocks and core.

python benchmarks/Gzip/run.py [--pairs N] [--write]     (make bench)

Fails where it is not 1.9 times as fast as zlib, or where its blocks are larger. Ratios of one run mean something on any
machine; absolute figures do not. --write writes benchmarks/results/gzip.json, whose ratios are printed beside those of
later runs.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "EndToEnd"))
from inputs import text_lines  # noqa: E402

BINARY = ROOT / ".build" / "release" / "gzip-benchmark"
RESULTS = ROOT / "benchmarks" / "results" / "gzip.json"
TIMES = 1.9
SIZE = 8 << 20


def access_lines(chance):
    """A busy shop's access log: thousands of clients, a hundred browsers, paths with numbers."""
    clients = [".".join(str(chance.randrange(256)) for _ in range(4)) for _ in range(20_000)]
    systems = ["Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "X11; Linux x86_64", "Android 14"]
    browsers = [
        f"Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) "
        f"Chrome/{chance.randrange(90, 131)}.0.{chance.randrange(7000)}.{chance.randrange(200)} Safari/537.36"
        for system in systems for _ in range(30)
    ] + ["curl/8.5.0", "Go-http-client/2.0", "kube-probe/1.29", "ELB-HealthChecker/2.0"]
    paths = ["/api/v2/orders/{}/items", "/api/v2/users/{}", "/static/js/app.{:x}.js", "/search?q={:x}&page=2", "/",
             "/health", "/api/v1/cart/{}/checkout", "/images/p/{}_large.webp"]
    time = 0.0
    while True:
        time += chance.expovariate(50)
        hour, minute, second = 8 + int(time) // 3600 % 16, int(time) // 60 % 60, int(time) % 60
        number = chance.randrange(10 ** chance.randrange(3, 8))
        referrer = chance.choice(["-", "https://shop.example.com/", f"https://shop.example.com/search?q={number:x}"])
        yield (
            f"{clients[int(chance.paretovariate(0.5)) % len(clients)]} - - "
            f"[21/Nov/2026:{hour:02d}:{minute:02d}:{second:02d} +0000] "
            f'"{chance.choice(["GET", "GET", "GET", "POST", "PUT"])} {chance.choice(paths).format(number)} HTTP/1.1" '
            f'{chance.choice([200] * 8 + [304, 404, 500, 302])} {int(chance.lognormvariate(8, 2))} "{referrer}" '
            f'"{chance.choice(browsers)}" {chance.random():.3f}\n'
        )


def json_lines(chance):
    """Objects of services that write traces: half of each line is chance."""
    messages = ["connection from {:08x} accepted", "request {:08x} finished", "cache miss for key user:{}:profile",
                "payment {:08x} authorised by provider", "slow query: SELECT * FROM orders WHERE customer_id = {}"]
    time = 0.0
    while True:
        time += chance.expovariate(80)
        yield json.dumps({
            "timestamp": f"2026-11-21T08:{int(time) // 60 % 60:02d}:{time % 60:09.6f}Z",
            "level": chance.choice(["INFO"] * 6 + ["WARN", "ERROR", "DEBUG"]),
            "service": chance.choice(["checkout", "cart", "search", "inventory", "auth"]),
            "host": f"ip-10-2-{chance.randrange(4)}-{chance.randrange(20)}",
            "trace_id": f"{chance.getrandbits(128):032x}",
            "span_id": f"{chance.getrandbits(64):016x}",
            "user_id": chance.randrange(100_000),
            "latency_ms": round(chance.lognormvariate(3, 1), 3),
            "message": chance.choice(messages).format(chance.getrandbits(32)),
        }) + "\n"


# What, its lines, bytes of a block: as many as become 50 KiB, about.
CASES = [
    ("text lines", text_lines(1 << 20), 512 << 10),
    ("access log", access_lines(random.Random(7)), 256 << 10),
    ("JSON lines", json_lines(random.Random(7)), 128 << 10),
]


def measured(path, block, pairs, core):
    """MB/s and size of the product and of zlib, as a part of the lines', and the median of how many times as fast."""
    command = ["taskset", "-c", core, BINARY, path, str(block), str(pairs)]
    found = json.loads(subprocess.check_output(command, text=True))
    megabytes = found["bytes"] / 1e6
    own, packed, zlib, theirs = zip(*found["pairs"])
    return {
        "MB/s": round(megabytes / statistics.median(own)),
        "size": round(packed[0] / found["bytes"], 4),
        "zlib MB/s": round(megabytes / statistics.median(zlib)),
        "zlib size": round(theirs[0] / found["bytes"], 4),
        "times": round(statistics.median(other / mine for mine, other in zip(own, zlib)), 2),
    }


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--pairs", type=int, default=9)
    options.add_argument("--write", action="store_true")
    options = options.parse_args()
    core = str(max(os.sched_getaffinity(0)))
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results, faults = {}, []
    print(f"gzip in blocks, one core, beside zlib's level 1, medians of {options.pairs} interleaved pairs\n")
    print(f"{'':14}{'block KiB':>10}{'MB/s':>8}{'size':>9}{'zlib MB/s':>12}{'size':>9}{'times':>8}{'before':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name, lines, block in CASES:
            path = pathlib.Path(folder) / "lines.log"
            size = 0
            with open(path, "w", encoding="ascii") as out:
                while size < SIZE:
                    size += out.write(next(lines))
            row = results[name] = measured(path, block, options.pairs, core)
            before = f"{kept[name]['times']:8.2f}" if name in kept else ""
            print(f"{name:14}{block >> 10:10}{row['MB/s']:8}{row['size']:9.2%}{row['zlib MB/s']:12}"
                  f"{row['zlib size']:9.2%}{row['times']:8.2f}{before}")
            if row["times"] < TIMES:
                faults.append(f"{name}: {row['times']} times as fast as zlib's level 1, not {TIMES}")
            if row["size"] > row["zlib size"]:
                faults.append(f"{name}: {row['size']:.2%} of the lines' size, more than zlib's {row['zlib size']:.2%}")
    if options.write:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
