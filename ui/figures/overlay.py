"""What lies over a score map: hatching where a plan removes, locks, and the frame of the selection.

These are the traces that follow the map itself; the page moves them without drawing the map again.
"""

from dataclasses import astuple, dataclass

import numpy as np
import plotly.graph_objects as go

import transact as ta
from ui.figures.frame import SELECTED
from ui.state.score_bins import Landscape
from ui.state.view import Selection

Points = tuple[np.ndarray, np.ndarray]
_NOTHING: Points = (np.empty(0), np.empty(0))
_HATCH = {"shape": "/", "size": 6, "solidity": 0.28, "fgcolor": "rgba(30,34,42,0.85)", "bgcolor": "#a6adb8"}
_LOCK = {"size": 9, "color": "#ffffff", "line": {"width": 1.5, "color": "#1e222a"}}
_WITHIN = 0.46
"""Half the height of a hatched cell; a little less than half a row."""


@dataclass(frozen=True)
class Overlay:
    """Points of each trace over a map, in the order in which they are drawn."""

    removed: Points
    kept_by_lock: Points
    removed_by_lock: Points
    selected: Points

    @property
    def points(self) -> tuple[Points, ...]:
        return astuple(self)


def heads_overlay(landscape: Landscape, plan: ta.PruningPlan | None, locks: ta.Locks, selection: Selection) -> Overlay:
    heads, size = landscape.heads.shape[1], landscape.group_size
    edges = np.arange(heads + 1) - 0.5

    def members(groups: frozenset[tuple[int, int]]) -> Points:
        return _centres([(layer, group * size + head) for layer, group in sorted(groups) for head in range(size)], 0, 1)

    cell = None if selection.head is None else (selection.head - 0.5, selection.head + 0.5)
    return Overlay(
        _NOTHING if plan is None else _removed_heads(landscape.removed_heads(plan), edges),
        members(locks.keep_head_groups),
        members(locks.remove_head_groups),
        _frames(selection.layer, (-0.5, heads - 0.5), cell),
    )


def _removed_heads(share: np.ndarray, edges: np.ndarray) -> Points:
    """Heads that go, neighbours joined, and of those that stay the share of their width that goes, from the left."""
    layers, heads = np.nonzero((share > 0) & (share < 1))
    narrowed = _rectangles(edges[heads], edges[heads] + share[layers, heads], layers - _WITHIN, layers + _WITHIN)
    return tuple(map(np.concatenate, zip(removed_runs(share == 1, edges), narrowed, strict=True)))


def channels_overlay(
    landscape: Landscape, plan: ta.PruningPlan | None, locks: ta.Locks, selection: Selection
) -> Overlay:
    """Bins of which the plan removes half or more are hatched."""
    bins = landscape.bins.shape[1]
    edges = np.linspace(0, 100, bins + 1)

    def members(channels: frozenset[tuple[int, int]]) -> Points:
        cells = sorted({(layer, landscape.bin_of(layer, channel)) for layer, channel in channels})
        return _centres(cells, 50 / bins, 100 / bins)

    cell = None
    if selection.channels:
        bin = landscape.bin_of(selection.layer, selection.channels[0])
        cell = (edges[bin], edges[bin + 1])
    return Overlay(
        _NOTHING if plan is None else removed_runs(landscape.removed_bins(plan) >= 0.5, edges),
        members(locks.keep_channels),
        members(locks.remove_channels),
        _frames(selection.layer, (0, 100), cell),
    )


def overlay_traces(overlay: Overlay) -> list[go.Scatter]:
    """The overlay drawn; locks are marked by their shape: a triangle stays, a cross goes."""
    quiet = {"hoverinfo": "skip", "showlegend": False}
    styles = (
        {
            "mode": "lines",
            "line": {"width": 1, "color": "rgba(30,34,42,0.9)"},
            "fill": "toself",
            "fillpattern": _HATCH,
            "opacity": 0.8,
        },
        {"mode": "markers", "marker": {**_LOCK, "symbol": "triangle-up"}},
        {"mode": "markers", "marker": {**_LOCK, "symbol": "x"}},
        {"mode": "lines", "line": {"width": 2.5, "color": SELECTED}},
    )
    return [go.Scatter(x=x, y=y, **style, **quiet) for (x, y), style in zip(overlay.points, styles, strict=True)]


def removed_runs(removed: np.ndarray, edges: np.ndarray) -> Points:
    """Outlines of the removed cells, neighbours in a row joined; NaN between rectangles.

    `removed` bool [layer, cell]; `edges` [cell + 1], the horizontal borders of the cells.
    """
    flags = np.pad(removed.astype(np.int8), ((0, 0), (1, 1)))
    steps = np.diff(flags, axis=1)
    rows, starts = np.nonzero(steps == 1)
    stops = np.nonzero(steps == -1)[1]
    return _rectangles(edges[starts], edges[stops], rows - _WITHIN, rows + _WITHIN)


def _frames(layer: int, row: tuple[float, float], cell: tuple[float, float] | None) -> Points:
    """The frame of the selected layer's row and of the selected cell in it."""
    spans = [row] if cell is None else [row, cell]
    left, right = np.array(spans, dtype=float).T
    rows = np.full(len(spans), layer, dtype=float)
    return _rectangles(left, right, rows - 0.5, rows + 0.5)


def _rectangles(left: np.ndarray, right: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> Points:
    gap = np.full(len(left), np.nan)
    x = np.stack([left, right, right, left, left, gap], axis=1).ravel()
    y = np.stack([top, top, bottom, bottom, top, gap], axis=1).ravel()
    return x, y


def _centres(cells: list[tuple[int, int]], first: float, step: float) -> Points:
    """Middles of (layer, column) cells."""
    if not cells:
        return _NOTHING
    rows, columns = np.array(cells, dtype=float).T
    return first + step * columns, rows
