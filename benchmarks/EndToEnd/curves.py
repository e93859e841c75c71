"""What a record costs over the number of shards, of files, and over its size, to what the C floor takes for the same lines.

python benchmarks/EndToEnd/curves.py     every point, into benchmarks/results/curves.json and the chart (make curves)

`make bench` measures the first, the middle and the last point of each.
"""

import contextlib
import itertools
import json
import pathlib
import tempfile
from dataclasses import dataclass

import inputs
from measure import Group, Ratio
from processes import Programs, Sink
from throughput import floor, measured

PAIRS = 5
STEP = 1.25

# Where a point may cost more than the one before it, and why.
REASONS = {
    "shards, spread: 10,000": "the map of 10,000 shards is read once, which takes some 80 ms, as much as 200,000 lines",
    "shards, by key: 10": "a line beside one for another shard is a stretch of its own, kept until it settles",
    "shards, by key: 100": "a line beside one for another shard is a stretch of its own, kept until it settles",
    "shards, by key: 1,000": "the linger ends aggregates of some 20 lines; each that settles walks the gaps of its file",
    "shards, by key: 10,000": "the linger ends aggregates of 2 to 5 lines; each that settles walks the gaps of its file",
    "files: 1,000": "a file is found, opened, hashed and written into the state, which takes some 35 µs",
    "files: 10,000": "a file is found, opened, hashed and written into the state, which takes some 35 µs",
    "size: 100,000": "the floor neither copies nor sums what no aggregate holds; the agent takes no more than before",
}


@dataclass
class Curve:
    """Points from few to many; each is a thing to measure, with its floor."""

    name: str
    unit: str
    points: list[int]


CURVES = [
    Curve("shards, spread", "shards", [1, 10, 100, 1_000, 10_000]),
    Curve("shards, by key", "shards", [1, 10, 100, 1_000, 10_000]),
    Curve("files", "files", [1, 10, 100, 1_000, 10_000]),
    Curve("size", "bytes a record", [10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000]),
]


def name_of(curve, point):
    return f"{curve.name}: {point:,}"


def chosen(curve, whole):
    points = curve.points
    return points if whole else [points[0], points[len(points) // 2], points[-1]]


class Shards:
    """The same lines over so many shards, all keys alike or each line's own."""

    def __init__(self, stack, programs, folder, output, lines=300_000):
        self.stack, self.programs, self.folder, self.output, self.count = stack, programs, folder, output, lines
        self.file = folder / "objects-of-curves.log"
        if not self.file.exists():
            inputs.write(self.file, inputs.json_lines(lines))
        self.sink = stack.enter_context(Sink(programs, 1))

    def at(self, shards):
        sink = self.stack.enter_context(Sink(self.programs, shards))
        return lambda: measured(self.folder, self.file, sink.url, self.output, self.file.stat().st_size, self.count)

    def floor(self, _):
        return "floor of objects", lambda: floor(self.programs, self.file, self.sink.url, self.count)


class Files:
    """The same lines in so many files."""

    def __init__(self, stack, programs, folder, lines=300_000):
        self.programs, self.folder, self.count = programs, folder, lines
        self.file = inputs.write(folder / "whole.log", inputs.text_lines(lines))
        self.sink = stack.enter_context(Sink(programs, 4))

    def at(self, files):
        place = self.folder / f"files-{files}"
        place.mkdir()
        # Not all in memory at once: a child's peak memory is at least what its parent has.
        with open(self.file) as whole:
            for number in range(files):
                inputs.write(place / f"{number}.log", itertools.islice(whole, self.count // files))
        size = self.file.stat().st_size
        return lambda: measured(self.folder, place / "*.log", self.sink.url, "", size, self.count)

    def floor(self, _):
        return "floor of files", lambda: floor(self.programs, self.file, self.sink.url, self.count)


class Sizes:
    """As many bytes in records of one size, fewer where they would be millions."""

    def __init__(self, stack, programs, folder, most=60_000_000, records=1_500_000):
        self.programs, self.folder, self.most, self.records = programs, folder, most, records
        self.sink = stack.enter_context(Sink(programs, 4))

    def file(self, size):
        count = min(self.most // size, self.records)
        path = self.folder / f"size-{size}.log"
        if not path.exists():
            inputs.write(path, inputs.sized_lines(count, size))
        return path, count

    def at(self, size):
        path, count = self.file(size)
        return lambda: measured(self.folder, path, self.sink.url, "", size * count, count)

    def floor(self, size):
        path, count = self.file(size)
        return f"floor of {size}", lambda: floor(self.programs, path, self.sink.url, count)


def group(stack, programs, folder, whole):
    works = {
        "shards, spread": Shards(stack, programs, folder, ""),
        "shards, by key": Shards(stack, programs, folder, 'partition_key = "json:/id"'),
        "files": Files(stack, programs, folder),
        "size": Sizes(stack, programs, folder),
    }
    things, ratios = {}, []
    for curve in CURVES:
        work = works[curve.name]
        for point in chosen(curve, whole):
            base, take = work.floor(point)
            things.setdefault(base, take)
            things[name_of(curve, point)] = work.at(point)
            ratios.append(Ratio(name_of(curve, point), name_of(curve, point), [base]))
    return Group("curves", things, ratios)


def results(group):
    """Name of a point: what it takes, to the floor and to the point before it, with the reason of a step."""
    ratios = {ratio.name: ratio.value for ratio in group.ratios}
    found = {}
    for curve in CURVES:
        last = None
        for name in (name_of(curve, point) for point in curve.points):
            if name not in ratios:
                continue
            step = round(ratios[name] / (last or ratios[name]), 3)
            last = ratios[name]
            found[name] = {
                "seconds_a_GB": round(group.median(name, lambda sample: sample.cost) * 1e9, 3),
                "us": round(group.median(name, lambda sample: sample.cpu / sample.records) * 1e6, 4),
                "ratio": ratios[name],
                "step": step,
                "why": REASONS.get(name, "a step that nothing explains yet") if step > STEP else "",
            }
    return found


def table(found, before):
    """Lines of text: each point beside the one before it."""
    yield f"{'cost of a record':26}{'CPU s/GB':>10}{'µs/record':>11}{'to floor':>10}{'committed':>11}{'step':>6}"
    for name, row in found.items():
        kept = f"{before[name]['ratio']:11.2f}" if name in before else f"{'':11}"
        yield f"{name:26}{row['seconds_a_GB']:10.2f}{row['us']:11.3f}{row['ratio']:10.2f}{kept}{row['step']:6.2f}  {row['why']}"


def main():
    # It shows these curves.
    import report

    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        points = group(stack, Programs(folder), folder, whole=True)
        points.measure(PAIRS)
    found = results(points)
    print("\n".join(table(found, report.committed("curves.json"))))
    found["kind"] = report.kind(report.machine())
    (report.RESULTS / "curves.json").write_text(json.dumps(found, indent=1) + "\n")
    report.draw()


if __name__ == "__main__":
    main()
