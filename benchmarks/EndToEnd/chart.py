"""An SVG of the rows and the curves, legible on a light and on a dark page."""

import math

STYLE = (
    "text{font:12px sans-serif;fill:#57606a}.title{font-size:14px;fill:#1f2328}line{stroke:#d8dee4}.bar{fill:#1f6feb}"
    ".floor{stroke:#57606a}.target{stroke:#bf5b00;stroke-width:3}.curve{fill:none;stroke:#1f6feb;stroke-width:2}.dot{fill:#1f6feb}"
    ".page{fill:#ffffff}"
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


def bars(ratios, top):
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
    yield text(LEFT, bottom + 14, "thin line: the floor; orange: at most so much")


def panel(curve, found, name_of, left, top, width, height):
    """One curve, over a logarithmic axis; from nothing up, so that a flat one looks flat."""
    points = [(point, found[name_of(curve, point)]["ratio"]) for point in curve.points if name_of(curve, point) in found]
    most = max(2.0, max(ratio for _, ratio in points) * 1.1)
    first, last = math.log10(points[0][0]), math.log10(points[-1][0])

    def place(point, ratio):
        return left + width * (math.log10(point) - first) / max(1e-9, last - first), top + height * (1 - ratio / most)

    yield text(left, top - 10, f"{curve.name}: multiples of the floor", "title")
    step = 10 ** math.floor(math.log10(most / 2))
    step *= 5 if most / step > 12 else 2 if most / step > 5 else 1
    for number in range(int(most / step) + 1):
        y = top + height * (1 - number * step / most)
        yield line(left, y, left + width, y)
        yield text(left - 6, y + 4, f"{number * step:g}", anchor="end")
    for point, ratio in points:
        x, y = place(point, ratio)
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="dot"/>'
        yield text(x, top + height + 16, f"{point:,}", anchor="middle")
    yield f'<polyline class="curve" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))}"/>'
    yield text(left + width / 2, top + height + 32, curve.unit, anchor="middle")


def chart(endtoend, curves, known, name_of):
    ratios = endtoend["ratios"]
    top, height = 48, 150
    out = list(bars(ratios, top))
    base = top + len(ratios) * ROW + 64
    shown = [curve for curve in known if any(name_of(curve, point) in curves for point in curve.points)]
    for number, curve in enumerate(shown):
        out += panel(curve, curves, name_of, 56 + number % 2 * 420, base + number // 2 * (height + 74), 350, height)
    full = base + (len(shown) + 1) // 2 * (height + 74)
    start = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {full}"><style>{STYLE}</style>',
        '<rect width="100%" height="100%" class="page"/>',
    ]
    return "\n".join(start + out + ["</svg>"]) + "\n"
