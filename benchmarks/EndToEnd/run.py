"""The agent as a whole beside the least that does its work, and beside what is promised of it.

python benchmarks/EndToEnd/run.py [--pairs N] [--only PART ...]     (make bench)

Measures files and streams, datagrams, latency, rest, start, allocations, what is billed, and a few points of the curves.
Ratios of pairs mean something on any machine; absolute figures do not. A whole run writes benchmarks/results/endtoend.json
and endtoend.svg, for a commit that is to change them, and keeps what was committed of other kinds of processors: a ratio is
compared with what the same kind has shown. It fails where one is more than 25 % worse than in the last commit, and says so only
when as many pairs again, twice, have not shown otherwise.
"""

import argparse
import contextlib
import json
import pathlib
import sys
import tempfile

import billing
import curves
import datagrams
import report
import service
import throughput
from processes import Programs

PAIRS = 7
PARTS = ["throughput", "datagrams", "service", "billing", "curves"]


def measured(group, pairs, before):
    """Measures a group, what looks worse than it was again, twice at most, and gives what remains worse."""
    for ratio in group.ratios:
        ratio.before = before.get(ratio.name, {}).get("ratio")
    group.measure(pairs)
    for _ in range(2):
        worse = [ratio for ratio, _ in report.failures(group)]
        if not worse:
            break
        print(f"(measured again: {', '.join(ratio.name for ratio in worse)})")
        group.measure(pairs, worse)
    return [words for _, words in report.failures(group)]


def say(lines):
    print("\n".join(lines), end="\n\n", flush=True)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--pairs", type=int, default=PAIRS)
    options.add_argument("--only", choices=PARTS, nargs="*", default=PARTS)
    options = options.parse_args()
    here, last, flat = report.machine(), report.committed("endtoend.json"), report.committed("curves.json")
    kept = report.ratios_by_kind(last)
    before = kept.pop(report.kind(here), {})
    if not before:
        print(f"not compared: nothing is committed of {report.kind(here)}, but of {', of '.join(kept) or 'nothing'}\n")
    if flat.get("kind") != report.kind(here):
        print(f"no curve is compared: those that are committed are of {flat.get('kind', 'nothing')}\n")
        flat = {}
    found = {"machine": here, "rows": {}, "ratios": {}}
    points = []
    failures = []
    print(f"{here['processor']}, {here['cores']} cores, load {here['load']}; medians of {options.pairs} pairs\n")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        programs = Programs(folder)
        for part in (throughput, datagrams):
            if part.__name__ not in options.only:
                continue
            with contextlib.ExitStack() as stack:
                group = part.group(stack, programs, folder)
                failures += measured(group, options.pairs, before)
                say(report.rows(group))
                say(report.ratios(group))
                if part is datagrams:
                    say(datagrams.floods(group))
                else:
                    peak = report.row(group, throughput.PLAIN)["peak_MiB"]
                    points.append(service.Point(f"peak memory: {throughput.PLAIN}", peak, "MiB", 64))
            found["rows"] |= {name: report.row(group, name) for name in group.things}
            found["ratios"] |= {ratio.name: {"ratio": ratio.value, "target": ratio.target} for ratio in group.ratios}
        if "service" in options.only:
            points += [point for part in service.PARTS for point in part(programs, folder)]
        if points:
            found["points"] = [vars(point) for point in points]
            say(report.points(points))
        if "billing" in options.only:
            bills = billing.bills(programs, folder)
            found["billing"] = [vars(bill) for bill in bills]
            say(billing.table(bills))
        if "curves" in options.only:
            with contextlib.ExitStack() as stack:
                group = curves.group(stack, programs, folder, whole=False)
                failures += measured(group, min(options.pairs, curves.PAIRS), flat)
            say(curves.table(curves.results(group), flat))
    if failures:
        sys.exit(
            "FAILED\n" + "\n".join(failures)
            + "\nA commit that is to cost more brings the results of a run (make bench, make curves) with its reason.")
    if options.only == PARTS and options.pairs >= PAIRS:
        found["elsewhere"] = kept
        (report.RESULTS / "endtoend.json").write_text(json.dumps(found, indent=1) + "\n")
        report.draw()


main()
