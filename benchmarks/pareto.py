"""A size-against-loss picture as plain SVG: no drawing library, readable on light and on dark pages.

Sizes shrink to the right, where the methods part and their names have room.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 380
LEFT, RIGHT, TOP, BOTTOM = 58, 186, 44, 46
_TICKS = (1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500)
_LEAST_GAP = 13
"""Pixels between two labels at the right."""

STYLE = """
  svg { font: 12px system-ui, sans-serif }
  .page { fill: #ffffff } .ink { fill: #1f2328 } .faint { fill: #59636e } .grid { stroke: #d8dee4 }
  .peer { --hue: #8c959f } .first { --hue: #bc4c00 } .second { --hue: #0969da } .third { --hue: #8250df }
  .fourth { --hue: #0a7ea4; stroke-dasharray: 5 3 }
  .ours { --hue: #1a7f37 }
  polyline { fill: none; stroke: var(--hue); stroke-width: 1.6 } .ours polyline { stroke-width: 3 }
  circle { fill: var(--hue) } .label { fill: var(--hue) } .ours .label { font-weight: 600 }
  .title { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } .ink { fill: #e6edf3 } .faint { fill: #9198a1 } .grid { stroke: #30363d }
    .peer { --hue: #7d8590 } .first { --hue: #f0883e } .second { --hue: #58a6ff } .third { --hue: #bc8cff }
    .fourth { --hue: #39c5cf }
    .ours { --hue: #3fb950 }
  }
"""


@dataclass(frozen=True)
class Line:
    """One method: `points` as (parameters kept, perplexity / dense perplexity); `kind` a class of `STYLE`."""

    label: str
    kind: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Panel:
    title: str
    lines: tuple[Line, ...]


def picture(panels: Sequence[Panel]) -> str:
    """The panels side by side."""
    width = WIDTH * len(panels)
    drawn = "".join(
        f'<g transform="translate({WIDTH * index} 0)">{_panel(panel)}</g>' for index, panel in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        f'role="img" aria-label="Perplexity against parameters kept"><style>{STYLE}</style>'
        f'<rect class="page" width="{width}" height="{HEIGHT}" rx="6"/>{drawn}</svg>\n'
    )


def _panel(panel: Panel) -> str:
    points = [point for line in panel.lines for point in line.points]
    left, right = _margin(min(x for x, _ in points), max(x for x, _ in points))
    top = max(math.log(max(y for _, y in points)), 0.1) * 1.05

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (right - x) / (right - left) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (1 - math.log(y) / top) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text class="ink title" x="{LEFT}" y="24">{escape(panel.title)}</text>']
    for tick in (tick for tick in _TICKS if math.log(tick) <= top):
        y = place(right, tick)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="faint" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">× {tick:g}</text>')
    for percent in range(math.ceil(left * 10) * 10, int(right * 100) + 1, 10):
        x = place(percent / 100, 1)[0]
        parts.append(
            f'<text class="faint" x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{percent} %</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="faint" x="{middle:.1f}" y="{HEIGHT - 10}" text-anchor="middle">'
        "parameters kept; up: perplexity / dense</text>"
    )
    for line, label_y in zip(panel.lines, _label_places(panel.lines, place), strict=True):
        places = [place(x, y) for x, y in sorted(line.points, reverse=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in places)
        x, y = places[-1]
        edge = WIDTH - RIGHT + 12
        parts.append(
            f'<g class="{line.kind}"><polyline points="{path}"/>{dots}'
            f'<polyline points="{x:.1f},{y:.1f} {edge - 4},{label_y - 4:.1f}" style="stroke-width:0.7"/>'
            f'<text class="label" x="{edge}" y="{label_y:.1f}">{escape(line.label)}</text></g>'
        )
    return "".join(parts)


def _margin(low: float, high: float) -> tuple[float, float]:
    spread = (high - low) or 0.1
    return low - 0.08 * spread, high + 0.08 * spread


def _label_places(lines: Sequence[Line], place) -> list[float]:
    """Where the labels stand, in the order of the lines' ends, pushed apart until none overlap."""
    order = sorted(range(len(lines)), key=lambda index: place(*min(lines[index].points))[1])
    lowest = HEIGHT - BOTTOM - _LEAST_GAP * len(lines)
    places, last = [0.0] * len(lines), min(TOP, lowest)
    for rank, index in enumerate(order):
        wanted = place(*min(lines[index].points))[1] + 4
        most = HEIGHT - BOTTOM - _LEAST_GAP * (len(lines) - 1 - rank)
        places[index] = last = min(max(wanted, last + _LEAST_GAP), most)
    return places
