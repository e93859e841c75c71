"""An SVG of the rows and the curves, legible on a light and on a dark page."""

import math

STYLE = (
    "text{font-family:sans-serif;font-size:12px;fill:#57606a}.title{font-size:14px;fill:#1f2328}line{stroke:#d8dee4}"
    ".page{fill:#ffffff}.bar,.dot{fill:#1f6feb}.curve{fill:none;stroke:#1f6feb;stroke-width:2}.floor{stroke:#57606a}"
    ".target{stroke:#bf5b00;stroke-width:3}"
    "@media (prefers-color-scheme:dark){text{fill:#9198a1}.title{fill:#f0f6fc}line{stroke:#30363d}.page{fill:#0d1117}"
    ".bar,.dot{fill:#4493f8}.curve{stroke:#4493f8}.floor{stroke:#9198a1}.target{stroke:#f0883e}}"
)
WIDTH, LEFT, ROW = 860, 290, 22


def text(x, y, words, kind="", anchor="start"):
    mark = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{mark}>{words}</text>'


def line(x1, y1, x2, y2, kind=""):
    mark = f' class="{kind}"' if kind else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"{mark}/>'


def bars(ratios, machine, top):
    """A bar for each ratio, with a mark where it is to be; the floor is 1."""
    most = max(max(row["ratio"], row["target"] or 0) for row in ratios.values()) * 1.05
    scale = (WIDTH - LEFT - 70) / most
    bottom = top + len(ratios) * ROW
    yield text(24, top - 24, "CPU for the same bytes, in multiples of the least work in C (rsyslog's, where it says so)", "title")
    yield line(LEFT + scale, top - 6, LEFT + scale, bottom, "floor")
    for number, (name, row) in enumerate(ratios.items()):
        y = top + number * ROW
        yield text(LEFT - 8, y + 12, name, anchor="end")
        yield f'<rect x="{LEFT}" y="{y}" width="{row["ratio"] * scale:.1f}" height="{ROW - 8}" class="bar"/>'
        if row["target"]:
            yield line(LEFT + row["target"] * scale, y - 3, LEFT + row["target"] * scale, y + ROW - 5, "target")
        yield text(LEFT + max(row["ratio"], row["target"] or 0) * scale + 8, y + 12, f"{row['ratio']:.2f}")
    words = f"{machine['processor']}, {machine['cores']} cores, load {machine['load']} before"
    yield text(LEFT, bottom + 14, f"thin line: the floor; orange: at most so much ({words})")


def panel(curve, found, top, height=130):
    """One curve, over a logarithmic axis, and the reasons of its steps; from nothing up, so that a flat one looks flat.

    found: each point with what is known of it.
    """
    left, width = 56, WIDTH - 100
    most = max(2.0, max(row["ratio"] for row in found.values()) * 1.1)
    first, last = math.log10(min(found)), math.log10(max(found))

    def place(point):
        return left + width * (math.log10(point) - first) / (last - first), top + height * (1 - found[point]["ratio"] / most)

    yield text(left, top - 10, f"{curve.name}: CPU in multiples of the floor", "title")
    step = 10 ** math.floor(math.log10(most / 2))
    step *= 5 if most / step > 12 else 2 if most / step > 5 else 1
    for number in range(int(most / step) + 1):
        y = top + height * (1 - number * step / most)
        yield line(left, y, left + width, y)
        yield text(left - 6, y + 4, f"{number * step:g}", anchor="end")
    yield f'<polyline class="curve" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, found))}"/>'
    for point in found:
        x, y = place(point)
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="dot"/>'
        yield text(x, top + height + 16, f"{point:,}", anchor="middle")
    yield text(left + width, top - 10, curve.unit, anchor="end")
    for number, (point, row) in enumerate((point, row) for point, row in found.items() if row["why"]):
        yield text(left, top + height + 36 + number * 15, f"{point:,}: {row['why']}")


def chart(endtoend, curves, known, name_of):
    ratios = endtoend["ratios"]
    out = list(bars(ratios, endtoend["machine"], 48))
    at = 48 + len(ratios) * ROW + 64
    for curve in known:
        found = {point: curves[name_of(curve, point)] for point in curve.points if name_of(curve, point) in curves}
        if len(found) > 1:
            out += panel(curve, found, at)
            at += 130 + 76 + 15 * sum(1 for row in found.values() if row["why"])
    start = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {at - 30}"><style>{STYLE}</style>',
        '<rect width="100%" height="100%" class="page"/>',
    ]
    return "\n".join(start + out + ["</svg>"]) + "\n"
