"""The figures of the lessons as HTML, small enough for a column of the page: bars, a grid and curves."""

import math
from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 290, 128, 30, 70, 8, 28
_DASHES = ("", "5 3", "1 3")


def bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """One bar a row: what it is, its length as a share of the longest, and the value in words."""
    longest = max(value for _, value, _ in rows)
    items = "".join(
        f'<dt>{escape(name)}</dt><dd><i style="width:{100 * value / longest:.1f}%"></i><b>{escape(shown)}</b></dd>'
        for name, value, shown in rows
    )
    return f'<dl class="lesson-bars">{items}</dl>'


def grid(caption: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    """A table whose cells are shaded by a share from 0 to 1 beside the value in words; `rows`: name and cells."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("", *columns))
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f'<td style="--share:{100 * share:.0f}%">{escape(shown)}</td>' for shown, share in cells)
        + "</tr>"
        for name, cells in rows
    )
    return (
        f'<table class="lesson-grid"><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


Line = tuple[str, Sequence[tuple[float, float]]]
"""A name and points."""


def curves(title: str, across: str, ticks: Sequence[tuple[float, str]], series: Sequence[Line]) -> str:
    """Lines over a logarithmic height, each named at its end and drawn in a dash of its own.

    `across`: what the width is; `ticks`: places on it and their names; of all points y > 0.
    """
    points = [point for _, line in series for point in line]
    low, high = (limit(y for _, y in points) for limit in (min, max))
    first, last = (limit(x for x, _ in points) for limit in (min, max))

    def at(x: float, y: float) -> tuple[float, float]:
        share = (x - first) / ((last - first) or 1)
        height = math.log(y / low) / (math.log(high / low) or 1)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT), _TOP + (1 - height) * (_HEIGHT - _TOP - _BOTTOM)

    drawn = [
        f'<text x="{at(x, low)[0]:.0f}" y="{_HEIGHT - 16}" text-anchor="middle">{escape(name)}</text>'
        for x, name in ticks
    ]
    for value in _round_values(low, high):
        _, y = at(first, value)
        drawn.append(f'<path class="rule" d="M{_LEFT} {y:.0f}H{_WIDTH - _RIGHT}"/>')
        drawn.append(f'<text x="{_LEFT - 4}" y="{y + 3:.0f}" text-anchor="end">{value:g}</text>')
    ends = _apart([at(*line[-1])[1] for _, line in series])
    for index, ((name, line), end) in enumerate(zip(series, ends, strict=True)):
        path = "L".join("{:.1f} {:.1f}".format(*at(*point)) for point in line)
        drawn.append(f'<path class="line line-{index}" stroke-dasharray="{_DASHES[index % 3]}" d="M{path}"/>')
        drawn.append(
            f'<text class="name line-{index}" x="{_WIDTH - _RIGHT + 4}" y="{end + 4:.0f}">{escape(name)}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    drawn.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 3}" text-anchor="middle">{escape(across)}</text>')
    return (
        f'<svg class="lesson-curves" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(drawn)}</svg>"
    )


def _round_values(low: float, high: float) -> list[float]:
    """At most four values of 1, 2 or 5 times a power of ten that lie between the two."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        values = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(values) <= 4:
            return values
    return values[:: math.ceil(len(values) / 4)]


def _apart(ends: list[float], least: float = 13) -> list[float]:
    """The heights of the names, moved so far apart that none lies over another."""
    order = sorted(range(len(ends)), key=ends.__getitem__)
    moved = list(ends)
    for before, after in zip(order, order[1:], strict=False):
        moved[after] = max(moved[after], moved[before] + least)
    over = max(0.0, max(moved) - (_HEIGHT - _BOTTOM))
    return [height - over for height in moved]
