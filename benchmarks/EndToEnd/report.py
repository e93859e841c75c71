"""What a run found, as a table, as JSON and as a chart in benchmarks/results, beside what was committed last."""

import json
import os
import pathlib
import subprocess

import curves
from chart import chart
from processes import ROOT

RESULTS = ROOT / "benchmarks" / "results"
# A median ratio that is so many times the committed one is a failure.
WORSE = 1.25
# What decides how fast the libraries of both sides are.
FEATURES = ["avx2", "avx512bw", "sha_ni", "vaes"]


def machine():
    words = pathlib.Path("/proc/cpuinfo").read_text()
    name = next((line.split(":", 1)[1].strip() for line in words.splitlines() if line.startswith("model name")), "")
    return {
        "processor": name,
        "features": [feature for feature in FEATURES if feature in words.split()],
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
    }


def committed(name):
    """The results of the last commit, whatever a run has written since; outside of a clone those that lie there."""
    found = subprocess.run(
        ["git", "-C", ROOT, "show", f"HEAD:benchmarks/results/{name}"], capture_output=True, text=True)
    if found.returncode == 0:
        return json.loads(found.stdout)
    file = RESULTS / name
    return json.loads(file.read_text()) if file.exists() else {}


def kind(machine):
    """What ratios depend on: what the processor's own instructions save differs from one to the next."""
    return ", ".join([machine["processor"], *machine["features"]])


def ratios_by_kind(results):
    """The ratios that these results hold, those of other kinds of processors with them."""
    own = {kind(results["machine"]): results["ratios"]} if "machine" in results else {}
    return results.get("elsewhere", {}) | own


def row(group, name):
    def median(value):
        return group.median(name, value)

    seconds = median(lambda sample: sample.seconds)
    return {
        "seconds_a_GB": round(median(lambda sample: sample.cost) * 1e9, 3),
        "us": round(median(lambda sample: sample.cpu / sample.records) * 1e6, 4),
        "records_a_second": round(median(lambda sample: sample.records) / seconds) if seconds else 0,
        "MB_a_second": round(median(lambda sample: sample.bytes) / seconds / 1e6, 1) if seconds else 0,
        "peak_MiB": round(max(sample.peak for sample in group.samples[name]) / 1024, 1),
        "lost": round(max(sample.lost for sample in group.samples[name]), 4),
    }


def rows(group):
    yield f"{group.title}\n"
    yield f"{'':32}{'CPU s/GB':>10}{'µs/record':>11}{'records/s':>11}{'MB/s':>7}{'peak MiB':>10}{'lost':>7}"
    for name in group.things:
        one = row(group, name)
        peak = f"{one['peak_MiB']:10.1f}" if one["peak_MiB"] else f"{'':10}"
        lost = f"{one['lost']:7.2%}" if one["lost"] else ""
        yield (
            f"{name:32}{one['seconds_a_GB']:10.2f}{one['us']:11.3f}{one['records_a_second']:11,}{one['MB_a_second']:7.0f}"
            f"{peak}{lost}")


def ratios(group):
    yield f"{'CPU for the same bytes, medians of pairs':48}{'ratio':>8}{'at most':>9}{'committed':>11}"
    for ratio in group.ratios:
        target = f"{ratio.target:9.2f}" if ratio.target else f"{'':9}"
        before = f"{ratio.before:11.2f}" if ratio.before else ""
        missed = "  not reached" if ratio.target and ratio.value > ratio.target else ""
        yield f"{ratio.name:48}{ratio.value:8.2f}{target}{before}{missed}"


def points(found):
    yield f"{'':54}{'found':>10}{'at most':>10}"
    for point in found:
        target = f"{point.target:10g}" if point.target is not None else f"{'':10}"
        missed = "  not reached" if point.target is not None and round(point.figure, 3) > point.target else ""
        yield f"{point.name:54}{point.figure:10.3f}{target} {point.unit}{missed}"


def failures(group):
    """The ratios that fail a run, with the reason."""
    for ratio in group.ratios:
        if ratio.must and ratio.value > ratio.target:
            yield ratio, f"{ratio.name}: {ratio.value:.2f}, of at most {ratio.target:.2f}"
        elif ratio.before and ratio.value > ratio.before * WORSE:
            yield ratio, f"{ratio.name}: {ratio.value:.2f}, where {ratio.before:.2f} is committed: more than 25 % worse"


def draw():
    """The chart of what lies in benchmarks/results."""
    rows, points = (RESULTS / "endtoend.json", RESULTS / "curves.json")
    if rows.exists() and points.exists():
        words = chart(json.loads(rows.read_text()), json.loads(points.read_text()), curves.CURVES, curves.name_of)
        (RESULTS / "endtoend.svg").write_text(words)
