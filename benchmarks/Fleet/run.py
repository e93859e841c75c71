"""A fleet on one stream, simulated: runs the scenarios and writes their table and plot into benchmarks/results.

    run.py [NUMBER ...]     only these scenarios, counted from 0; prints the table and writes nothing

Time and chance are simulated and seeded: the same code gives the same files.
"""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / ".build" / "release" / "fleet-benchmark"
RESULTS = ROOT / "benchmarks" / "results"

HEAD = (
    "Agents that know nothing of each other on one stream; a shard takes 1 MiB/s and 1,000 records/s and refuses the rest.\n"
    "Rows say what differs from the first: 1,000 equal agents, 100 shards, partition_key = spread, together 150 % of what\n"
    "the shards take, all started within 100 ms. Used: of the shards, or of what is wanted if that is less; above 100 where\n"
    "the shards' first second is still being used. Refused: of the records sent. Jain: the least of any 10 s from the tenth\n"
    "on, of what each got of an even division. Delay: from written to acknowledged; where more is wanted than fits, it grows.\n"
)


def table(rows):
    lines = [
        HEAD,
        f"{'':34}{'used %':>8}{'refused %':>16}{'Jain':>7}{'delay ms':>16}",
        f"{'':34}{'10-60 s':>8}{'0-60 s':>8}{'10-60 s':>8}{'':>7}{'p50':>8}{'p99':>8}",
    ]
    for row in rows:
        lines.append(
            f"{row['name']:34}{row['used_later']:8.2f}{row['throttled']:8.2f}{row['throttled_later']:8.2f}"
            f"{row['jain']:7.3f}{row['p50_ms']:8}{row['p99_ms']:8}"
        )
    return "\n".join(lines) + "\n"


def plot(rows):
    """Two curves by the second, one above the other: what is used, what is refused."""
    width, height, left, top = 720, 150, 56, 44
    chosen = [(rows[0], "#1f6feb", "Penstock"), (rows[1], "#8a8f98", "KPL"), (rows[4], "#bf5b00", "Penstock, stream doubled")]
    panels = [("used_by_second", "used, %", 150), ("throttled_by_second", "refused, %", 100)]
    full = top + len(panels) * (height + 56)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + left + 24} {full}" font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{left}" y="20" font-size="14" fill="#1f2328">1,000 agents on 100 shards, from a cold start</text>',
    ]
    for number, (field, label, most) in enumerate(panels):
        base = top + number * (height + 56) + height
        out.append(f'<text x="{left}" y="{base - height - 8}" fill="#57606a">{label}</text>')
        for value in range(0, most + 1, 50):
            y = base - height * value / most
            out.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d8dee4"/>')
            out.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#57606a">{value}</text>')
        for second in range(0, 61, 10):
            x = left + width * second / 60
            out.append(f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle" fill="#57606a">{second} s</text>')
        for row, colour, _ in chosen:
            points = " ".join(
                f"{left + width * (second + 0.5) / 60:.1f},{base - height * min(value, most) / most:.1f}"
                for second, value in enumerate(row[field])
            )
            out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for number, (_, colour, name) in enumerate(chosen):
        x = left + 330 + 110 * number
        out.append(f'<line x1="{x}" x2="{x + 20}" y1="34" y2="34" stroke="{colour}" stroke-width="3"/>')
        out.append(f'<text x="{x + 26}" y="38" fill="#1f2328">{name}</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    rows = []
    command = subprocess.Popen([BINARY, *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
    for line in command.stdout:
        rows.append(json.loads(line))
    if command.wait() != 0:
        sys.exit(f"{BINARY.name} failed")
    print(table(rows), end="")
    if len(sys.argv) > 1:
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fleet.txt").write_text(table(rows))
    (RESULTS / "fleet.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    (RESULTS / "fleet.svg").write_text(plot(rows))


if __name__ == "__main__":
    main()
