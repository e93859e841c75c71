"""Ships a file with `penstock run --once` and with the C floor, in turn, and prints what each costs.

python benchmarks/EndToEnd/run.py [--lines N] [--pairs N]     (make bench)

Both send to an embedded Kinesis in another process. Ratios of one run mean something on any machine; absolute
figures do not.
"""

import argparse
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


def write_lines(path, count):
    chance = random.Random(7)
    with open(path, "w") as out:
        for number in range(count):
            line = (
                f"{number:010d} 10.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)} - - "
                f'[21/Nov/2026:08:00:00 +0000] "GET /api/v2/orders/{chance.randrange(65536)}/items HTTP/1.1" 200 '
                f'{chance.randrange(16384)} "https://shop.example.com/checkout" "Mozilla/5.0 (X11; Linux x86_64) '
            )
            out.write(line[:216].ljust(216, "x") + "\n")


class Kinesis:
    def __enter__(self):
        self.process = subprocess.Popen(
            [BINARY, "local", "--port", "0", "--stream", f"{STREAM}:4", "--memory", "64MiB"],
            stdout=subprocess.PIPE, text=True)
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


def floor(program, file, url):
    port = url.rsplit(":", 1)[1]
    _, cpu, peak = subprocess.check_output([program, port, file, STREAM], text=True).split()
    return float(cpu), int(peak)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--lines", type=int, default=1_000_000)
    options.add_argument("--pairs", type=int, default=7)
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, Kinesis() as kinesis:
        folder = pathlib.Path(folder)
        file = folder / "lines.log"
        write_lines(file, options.lines)
        gigabytes = file.stat().st_size / 1e9
        program = folder / "floor"
        # The Swift toolchain's, as for the agent: what it makes of the checksums is the same.
        compiler = os.environ.get("CC") or shutil.which("clang") or sys.exit("there is no clang: it comes with Swift")
        sums = ROOT / "Sources/C/MD5"
        subprocess.check_call([
            compiler, "-O3", "-I", sums / "include", "-o", program, pathlib.Path(__file__).with_name("floor.c"), sums / "md5.c",
            "-lcrypto"])
        cases = {
            "C floor, CBOR": lambda: floor(program, file, kinesis.url),
            "agent, CBOR": lambda: agent(folder, file, kinesis.url),
            "agent, JSON": lambda: agent(folder, file, kinesis.url, 'wire = "json"'),
            "agent, CBOR, a shard for each line": lambda: agent(folder, file, kinesis.url, 'partition_key = "random"'),
        }
        results = {name: [] for name in cases}
        for _ in range(options.pairs):
            for name, run in cases.items():
                results[name].append(run())
        base = [cpu for cpu, _ in results["C floor, CBOR"]]
        print(f"{options.lines} lines, {gigabytes:.3f} GB, medians of {options.pairs} interleaved runs\n")
        print(f"{'':36}{'CPU s/GB':>10}{'µs/line':>10}{'peak MiB':>10}{'to floor':>10}")
        for name, runs in results.items():
            cpu = statistics.median(cpu for cpu, _ in runs)
            ratio = statistics.median(mine / least for (mine, _), least in zip(runs, base))
            peak = max(peak for _, peak in runs) / 1024
            print(f"{name:36}{cpu / gigabytes:10.2f}{cpu / options.lines * 1e6:10.3f}{peak:10.1f}{ratio:10.2f}")


main()
