"""What the syslog parser costs, in instructions as callgrind counts them, beside glibc's memchr and memcpy over the message.

The raw format only asks whether a message is syslog; the JSON format writes the whole object. Fails when the first costs
more than 1.5 times memchr for any message, or the second more than 6 times memcpy for the longest ones: what the head and
the fixed text of an object cost does not depend on the message's length, so the ratio falls with it.
"""

import concurrent.futures
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / ".build" / "release" / "syslog-benchmark"
ROUNDS = 2000
HEADS = {
    "RFC 3164": b"<165>Oct 11 22:14:15 mymachine.example.com evntslog[1234]: ",
    "RFC 5424": b"<165>1 2003-10-11T22:14:15.003987Z mymachine.example.com evntslog 1234 ID47 - ",
}
# Below 4096 bytes: from there on memcpy is one instruction that callgrind counts once for each byte.
SIZES = [235, 1000, 4000]
WORKS = ["memchr", "classify", "host", "memcpy", "json"]
BODY = b"disk sda is at 91 percent of its capacity, the next look is in 300 s; "


def instructions(binary, work, message):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary, work, str(ROUNDS)]
    run = subprocess.run(command, input=message, capture_output=True, timeout=60)
    found = re.search(rb"Collected : (\d+)", run.stderr)
    if not found:
        sys.exit(f"callgrind failed: {run.stderr.decode()}")
    return int(found[1])


def main():
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        # Valgrind cannot read the debug information of Swift's compiler.
        binary = pathlib.Path(folder) / "syslog-benchmark"
        subprocess.run(["strip", "--strip-debug", "-o", binary, BINARY], check=True)
        rows = []
        for name, head in HEADS.items():
            for size in SIZES:
                message = (head + BODY * (size // len(BODY) + 1))[:size]
                counts = [pool.submit(instructions, binary, work, message) for work in ["nothing", *WORKS]]
                rows.append((name, size, counts))
        print("instructions a message\n")
        print(f"{'':10}{'bytes':>6}" + "".join(f"{work:>10}" for work in WORKS) + "  classify/memchr  json/memcpy")
        raw, objects = [], []
        for name, size, counts in rows:
            start, *counts = [count.result() for count in counts]
            memchr, classify, host, memcpy, json = [(count - start) / ROUNDS for count in counts]
            raw.append(classify / memchr)
            if size == SIZES[-1]:
                objects.append(json / memcpy)
            costs = "".join(f"{cost:10.0f}" for cost in (memchr, classify, host, memcpy, json))
            print(f"{name:10}{size:6}{costs}{classify / memchr:17.2f}{json / memcpy:13.2f}")
    print(f"\nworst: {max(raw):.2f} times memchr (at most 1.5), {max(objects):.2f} times memcpy of {SIZES[-1]} bytes (at most 6)")
    if max(raw) > 1.5 or max(objects) > 6:
        sys.exit("FAILED")


main()
