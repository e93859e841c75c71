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

# Where a point costs more than the one before it, and why that is so.
REASONS = {}


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


def results(found):
    """Name of a point: its ratio, and µs a record."""
    return {
        ratio.name: {
            "ratio": ratio.value,
            "us": round(found.median(ratio.of, lambda sample: sample.cpu / sample.records) * 1e6, 4),
            "seconds_a_GB": round(found.median(ratio.of, lambda sample: sample.cost) * 1e9, 3),
        }
        for ratio in found.ratios
    }


def table(found, before):
    """Lines of text: each point beside its neighbour below it, and the reason of a step."""
    yield f"{'cost of a record':30}{'CPU s/GB':>10}{'µs/record':>11}{'to floor':>10}{'to before':>11}{'committed':>11}"
    for curve in CURVES:
        last = None
        for point in curve.points:
            name = name_of(curve, point)
            if name not in found:
                continue
            row = found[name]
            step = row["ratio"] / last if last else 1
            last = row["ratio"]
            kept = f"{before[name]['ratio']:11.2f}" if name in before else f"{'':11}"
            why = "  " + REASONS.get(name, "a step that nothing explains yet") if step > STEP else ""
            yield f"{name:30}{row['seconds_a_GB']:10.2f}{row['us']:11.3f}{row['ratio']:10.2f}{step:11.2f}{kept}{why}"


def main():
    # It shows these curves.
    import report

    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        points = group(stack, Programs(folder), folder, whole=True)
        points.measure(PAIRS)
    found = results(points)
    print("\n".join(table(found, report.committed("curves.json"))))
    (report.RESULTS / "curves.json").write_text(json.dumps(found, indent=1) + "\n")
    report.draw()


if __name__ == "__main__":
    main()
