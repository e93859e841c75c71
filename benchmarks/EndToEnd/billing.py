"""What Kinesis would bill for 200-byte lines, as a real run sent them: payload units of 25 KB, and seconds of a shard."""

from dataclasses import dataclass

import inputs
from processes import Agent, Sink, file_input

# KB and MB are read as the service's limits are: 1,024 and 1,048,576.
FORMS = [
    ("one by one", "aggregate = false"),
    ("aggregated", ""),
    ("aggregated, gzip", 'compression = "gzip"'),
]


@dataclass
class Bill:
    name: str
    units: float
    shard_seconds: float


def bills(programs, folder, lines=300_000, size=200):
    """Units and shard-seconds for 10⁹ bytes of lines, their ends counted."""
    file = inputs.write(folder / "billed.log", inputs.text_lines(lines, size))
    gigabytes = file.stat().st_size / 1e9
    found = []
    for name, output in FORMS:
        with Sink(programs, 4) as sink:
            Agent(folder, {"app": file_input(file)}, sink.url, f"rate_limit = 0\n{output}").once()
            sent = sink.figures
        # A shard takes a MiB and a thousand records a second, whichever is reached first.
        seconds = max(sent["bytes"] / (1 << 20), sent["records"] / 1000)
        found.append(Bill(name, sent["units"] / gigabytes, seconds / gigabytes))
    file.unlink()
    return found


def table(bills):
    one = bills[0]
    yield f"{'billed for 1 GB of 200-byte lines':36}{'PUT units':>12}{'shard s':>10}{'of one by one':>20}"
    for bill in bills:
        units, seconds = f"1/{one.units / bill.units:.0f}", f"1/{one.shard_seconds / bill.shard_seconds:.1f}"
        yield f"{bill.name:36}{bill.units:12,.0f}{bill.shard_seconds:10,.0f}{units:>10}{seconds:>10}"
