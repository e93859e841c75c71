"""Nothing is allocated for a record: counted by thread, with a library loaded before the C library's own."""

import os
import pathlib
import shutil
import subprocess

import pytest

from conftest import environment

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="session")
def counter(tmp_path_factory):
    library = tmp_path_factory.mktemp("allocations") / "liballocations.so"
    compiler = os.environ.get("CC") or shutil.which("cc") or "clang"
    subprocess.check_call([compiler, "-shared", "-fPIC", "-O2", "-o", library, HERE / "allocations.c"])
    return library


def allocations(counter, make_agent, start_local, file, **output):
    """How often each thread allocates while the file is shipped."""
    server = start_local("logs:4", "--memory=64MiB")
    agent = make_agent(file, server.url, "logs", **output)
    counts = agent.folder / "allocations"
    run = agent.once(env=environment(LD_PRELOAD=str(counter), ALLOCATIONS=str(counts)))
    assert run.process.returncode == 0, run.log
    totals = {}
    for line in counts.read_text().splitlines():
        name, count = line.rsplit(" ", 1)
        totals[name] = totals.get(name, 0) + int(count)
    return totals


def write(path, bytes_, width):
    with open(path, "w") as out:
        for number in range(bytes_ // width):
            # JSON to the eye of a pointer, and a line to all others.
            out.write(f'{{"k":"d{number * 7919 % 1000:03d}","n":{number:010d}}}'.ljust(width - 1, "y") + "\n")
    return bytes_ // width


@pytest.mark.parametrize(
    "output",
    [
        {"partition_key": "spread"}, {"partition_key": "source"}, {"partition_key": "json:/k"}, {"partition_key": "random"}, {"compression": "gzip"},
        {"compression": "gzip_record"},
    ],
    ids=lambda output: " ".join(output.values()),
)
def test_four_times_the_records_in_the_same_bytes_allocate_no_more(
    output, counter, make_agent, start_local, logs, figure
):
    size = 40_000_000
    few = write(logs / "long.log", size, 217)
    many = write(logs / "short.log", size, 54)
    before = allocations(counter, make_agent, start_local, logs / "long.log", **output)
    after = allocations(counter, make_agent, start_local, logs / "short.log", **output)
    lane = after["penstock-lane"] - before["penstock-lane"]
    collector = after["collect-app"] - before["collect-app"]
    figure(
        f"{output}: lane {before['penstock-lane']} allocations for {few} records, {after['penstock-lane']} for {many}; "
        f"collector {before['collect-app']} and {after['collect-app']}"
    )
    # What is left is a few for an aggregate, a call and a turn of the lane, whose numbers differ with the machine's mood: one
    # for every twentieth record would be more.
    assert lane < (many - few) / 20
    assert collector < (many - few) / 20
    # The count counts: there are some for each of the hundreds of aggregates, or the dozens of blocks.
    assert before["penstock-lane"] > 200
