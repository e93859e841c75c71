"""What the inner loops cost, in instructions as callgrind counts them, beside those of the last committed run.

run.py             compares, and fails where something costs more than a tenth more
run.py --write     writes benchmarks/results/instructions.json, for a commit that is to change it

A count depends on the compiler and on which of its paths a library takes, never on the machine's speed or load. Valgrind
knows AVX2 and neither AVX-512 nor SHA-NI. What has several paths of ours is counted with AVX2 and as on a processor that has
nothing beyond what every x86-64 one has (the libraries' paths are this machine's); `scalar` is what other processors take.
Without AVX2 nothing is compared.
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

# A syslog message's own size and head decide what it costs, and for an object whether its sender was met before.
SIZES = [235, 1000, 4000]
# Below 4096 bytes: from there on memcpy is one instruction that callgrind counts once for each byte.
SYSLOG = ["memchr", "raw", "host", "memcpy", "json", "json-new"]
SENDERS = 64
APPS = ["sshd", "cron", "nginx", "evntslog", "systemd-logind", "kubelet", "postfix/smtpd", "dhclient"]
BODY = "disk sda is at 91 percent of its capacity, the next look is in 300 s; "
# Copies of the message that an object may cost. Asked for are 6 for every message. What the fixed text of an object and
# looking up its sender cost does not depend on the message, so that the ratio falls with its length: 6 is kept at 4000 bytes.
MOST_COPIES = {"RFC 3164": {235: 14, 4000: 6}, "RFC 5424": {235: 16, 4000: 6}}


def rfc3164(sender):
    return f"<{128 + sender % 8 * 8 + 5}>Oct 11 22:14:", "15 ", f"machine{sender}.example.com {APPS[sender % 8]}[", "]: "


def rfc5424(sender):
    fraction = f"15.{sender * 15873:06}Z "
    start = f"machine{sender}.example.com {APPS[sender % 8]} "
    return f"<{128 + sender % 8 * 8 + 5}>1 2026-10-11T22:14:", fraction, start, f" ID{sender} - "


HEADS = {"RFC 3164": rfc3164, "RFC 5424": rfc5424}


def messages(head, size):
    """A message of each sender, and in front of it where its seconds and its process are."""
    lines = []
    for sender in range(SENDERS):
        before, clock, name, behind = HEADS[head](sender)
        start = before + clock + name
        text = (start + str(1000 + sender * 37) + behind + BODY * (size // len(BODY) + 1))[:size]
        lines.append(f"{len(before)} {len(start)} {text}\n")
    return "".join(lines).encode()


def works(binary):
    """Name, rounds, whether it has two paths, and what is counted, of each work."""
    lines = subprocess.check_output([binary], text=True).splitlines()
    return [(name, int(rounds), "baseline" in paths, text) for name, rounds, paths, text in (line.split("\t") for line in lines)]


def collected(binary, work, rounds, message, *processor):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary, work, str(rounds), *processor]
    run = subprocess.run(command, input=message, capture_output=True, timeout=300)
    found = re.search(rb"Collected : (\d+)", run.stderr)
    if not found or run.returncode:
        sys.exit(f"callgrind failed on {work}: {run.stderr.decode()}")
    return int(found[1]), int(run.stdout)


def instructions(binary, work, rounds, message=b"", *processor):
    """Instructions of one unit: between one round, which warms what is kept, and so many more."""
    before, units = collected(binary, work, 1, message, *processor)
    after, more = collected(binary, work, 1 + rounds, message, *processor)
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
        counted = []
        for name, rounds, has_paths, text in works(binary):
            counted.append((name, text, pool.submit(instructions, binary, name, rounds)))
            if has_paths:
                counted.append((f"{name}, baseline", "", pool.submit(instructions, binary, name, rounds, b"", "baseline")))
        syslog = []
        for head in HEADS:
            for size in SIZES:
                text = messages(head, size)
                costs = [pool.submit(instructions, binary, f"syslog-{work}", 8, text) for work in SYSLOG]
                syslog.append((head, size, costs))
        found = {name: round(cost.result(), 1) for name, _, cost in counted}
        syslog = [(head, size, [cost.result() for cost in costs]) for head, size, costs in syslog]
    for head, size, costs in syslog:
        found |= {f"syslog {work}, {head}, {size}": round(cost, 1) for work, cost in zip(SYSLOG, costs)}

    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    failures = [
        f"{name}: {cost:.0f} instructions, {kept[name]:.0f} before"
        for name, cost in found.items() if name in kept and cost > kept[name] * MORE
    ]
    print(f"{'AVX2':>12}{'before':>12}{'baseline':>12}{'before':>12}  instructions of a")
    for name, text, _ in counted:
        if not text:
            continue
        columns = [figures.get(key) for key in (name, f"{name}, baseline") for figures in (found, kept)]
        print("".join(f"{'' if figure is None else f'{figure:,.0f}':>12}" for figure in columns) + f"  {text}")
    print(f"\na syslog message; json: {SENDERS} senders in turn, json-new: of a sender that was not met before")
    print(f"{'':10}{'bytes':>6}" + "".join(f"{work:>9}" for work in SYSLOG) + "  raw/memchr  json/memcpy")
    for head, size, costs in syslog:
        memchr, raw, _, memcpy, whole, _ = costs
        columns = "".join(f"{cost:9.0f}" for cost in costs)
        print(f"{head:10}{size:6}{columns}{raw / memchr:12.2f}{whole / memcpy:13.2f}")
        if raw / memchr > 1.5:
            failures.append(f"{head}: the raw format costs {raw / memchr:.2f} times memchr over {size} bytes, of at most 1.5")
        most = MOST_COPIES[head].get(size)
        if most and whole / memcpy > most:
            failures.append(
                f"{head}: an object costs {whole / memcpy:.2f} copies of {size} bytes, of at most {most} reached and 6 asked"
            )

    if options.write:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    elif not has_avx2():
        print("\nnot compared: this machine has no AVX2")
    elif failures:
        sys.exit("\nFAILED\n" + "\n".join(failures))


main()
