"""Ships files with `penstock run --once` and with the C floor, in turn, and prints what each costs.

python benchmarks/EndToEnd/run.py [--lines N] [--pairs N] [--write]     (make bench)

Both send to an embedded Kinesis in another process. Ratios of one run mean something on any machine; absolute
figures do not. --write writes benchmarks/results/endtoend.json, whose ratios are printed beside those of later runs.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / ".build/release/penstock"
STREAM = "bench"


RESULTS = ROOT / "benchmarks" / "results" / "endtoend.json"


def text_lines(count):
    """Lines of a web server's log, of 217 bytes."""
    chance = random.Random(7)
    for number in range(count):
        line = (
            f"{number:010d} 10.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)} - - "
            f'[21/Nov/2026:08:00:00 +0000] "GET /api/v2/orders/{chance.randrange(65536)}/items HTTP/1.1" 200 '
            f'{chance.randrange(16384)} "https://shop.example.com/checkout" "Mozilla/5.0 (X11; Linux x86_64) '
        )
        yield line[:216].ljust(216, "x") + "\n"


def json_lines(count):
    """Objects of 217 bytes that one of 100,000 devices sent."""
    chance = random.Random(7)
    for number in range(count):
        line = f'{{"time":"2026-11-21T08:00:00Z","id":"device-{chance.randrange(100_000):06d}","value":{chance.randrange(10**6)},"text":"'
        yield line.ljust(214, "x") + '"}\n'


class Kinesis:
    def __init__(self, shards, *options):
        self.command = [BINARY, "local", "--port", "0", "--stream", f"{STREAM}:{shards}", "--memory", "64MiB", *options]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().split()[-1]
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def agent(folder, file, url, extra=""):
    """CPU seconds and peak KiB of one run."""
    shutil.rmtree(folder / "state", ignore_errors=True)
    config = folder / "penstock.toml"
    config.write_text(
        f'[agent]\nstate_dir = "{folder}/state"\nlog_level = "error"\n'
        f'[inputs.app]\ntype = "file"\npaths = ["{file}"]\n'
        f'[outputs.stream]\ntype = "kinesis"\nstream = "{STREAM}"\nregion = "us-east-1"\nendpoint = "{url}"\n'
        f"rate_limit = 0\n{extra}\n")
    environment = dict(os.environ, AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench")
    process = subprocess.Popen([BINARY, "run", "--once", "--config", config], env=environment)
    _, status, use = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"the agent ended with {process.returncode}")
    return use.ru_utime + use.ru_stime, use.ru_maxrss


def certificate(folder):
    """A certificate for loopback, and its key."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def floor(program, file, url):
    port = url.rsplit(":", 1)[1]
    _, cpu, peak = subprocess.check_output([program, port, file, STREAM], text=True).split()
    return float(cpu), int(peak)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--lines", type=int, default=1_000_000)
    options.add_argument("--pairs", type=int, default=7)
    options.add_argument("--write", action="store_true")
    options = options.parse_args()
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = {"text": folder / "lines.log", "JSON": folder / "objects.log"}
        for file, lines in zip(files.values(), (text_lines, json_lines)):
            with open(file, "w") as out:
                out.writelines(lines(options.lines))
        gigabytes = files["text"].stat().st_size / 1e9
        cert, key = certificate(folder)
        plain, wide = stack.enter_context(Kinesis(4)), stack.enter_context(Kinesis(64))
        secret = stack.enter_context(Kinesis(4, "--tls-cert", cert, "--tls-key", key))
        program = folder / "floor"
        # The Swift toolchain's, as for the agent: what it makes of the checksums is the same.
        compiler = os.environ.get("CC") or shutil.which("clang") or sys.exit("there is no clang: it comes with Swift")
        sums = ROOT / "Sources/C/MD5"
        subprocess.check_call([
            compiler, "-O3", "-I", sums / "include", "-o", program, pathlib.Path(__file__).with_name("floor.c"), sums / "md5.c",
            "-lcrypto"])
        # Name, file, Kinesis, settings of the output.
        cases = [
            ("CBOR", "text", plain, ""),
            ("CBOR, 64 shards", "text", wide, ""),
            ("CBOR, TLS", "text", secret, f'ca_file = "{cert}"'),
            ("JSON", "text", plain, 'wire = "json"'),
            ("a shard for each line", "text", plain, 'partition_key = "random"'),
            ("key of each JSON line, 64 shards", "JSON", wide, 'partition_key = "json:/id"'),
            ("gzip", "text", plain, 'compression = "gzip"'),
        ]
        least = {name: [] for name in files}
        results = {name: [] for name, *_ in cases}
        for _ in range(options.pairs):
            for name, file in files.items():
                least[name].append(floor(program, file, plain.url))
            for name, file, kinesis, extra in cases:
                results[name].append(agent(folder, files[file], kinesis.url, extra))
        print(f"{options.lines} lines of 217 bytes, {gigabytes:.3f} GB, medians of {options.pairs} interleaved runs\n")
        print(f"{'':36}{'CPU s/GB':>10}{'µs/line':>10}{'peak MiB':>10}{'to floor':>10}{'before':>10}")
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        ratios = {}
        for name, runs, base in [("C floor, CBOR", least["text"], least["text"])] + [
            (name, results[name], least[file]) for name, file, *_ in cases
        ]:
            cpu = statistics.median(cpu for cpu, _ in runs)
            ratios[name] = round(statistics.median(mine / floor for (mine, _), (floor, _) in zip(runs, base)), 3)
            peak = max(peak for _, peak in runs) / 1024
            before = f"{kept[name]:10.2f}" if name in kept else f"{'':10}"
            print(
                f"{name:36}{cpu / gigabytes:10.2f}{cpu / options.lines * 1e6:10.3f}{peak:10.1f}{ratios[name]:10.2f}{before}")
        if options.write:
            RESULTS.write_text(json.dumps(ratios, indent=1) + "\n")


main()
