"""Perplexity over a grid of attention × MLP sparsity, as a multiple of the dense model's on the same sequences."""

import numpy as np
import plotly.graph_objects as go

import transact as ta
from ui.figures.frame import COLOUR_BAR, laid_out
from ui.format import numbers
from ui.server import limits

_MOST_WORDS = 120
"""Up to so many cells have their perplexity written in them."""


def redundancy_figure(points: tuple[ta.SweepPoint, ...], spec: ta.ModelSpec) -> go.Figure:
    """The map as far as it is measured, on a logarithmic scale; cells that are still open stay empty.

    The first point is the dense model; until it is there, and in a map without one, cells hold perplexities.
    """
    rows, columns = _axes(points, spec)
    values = np.full((len(rows), len(columns)), np.nan)
    for point in points:
        row, column = _place(point, spec)
        values[rows.index(row), columns.index(column)] = point.perplexity
    dense = next((point.perplexity for point in points if point.plan.spec == spec), None)
    if dense is not None:
        values = values / dense
    sign, unit = ("× ", "times the dense") if dense is not None else ("", "perplexity")
    written = [["" if np.isnan(value) else f"{sign}{numbers.figure(value)}" for value in row] for row in values]
    figure = go.Figure(
        go.Heatmap(
            z=np.log10(values),
            x=[f"{column:.0%}" for column in columns],
            y=[f"{row:.0%}" for row in rows],
            text=written,
            texttemplate="%{text}" if values.size <= _MOST_WORDS else "",
            colorscale="Viridis",
            reversescale=True,
            xgap=2,
            ygap=2,
            hoverongaps=False,
            hovertemplate="%{y} of attention, %{x} of the channels removed<br>perplexity %{text}<extra></extra>",
            colorbar={**COLOUR_BAR, "title": {"text": f"{unit} (log)", "side": "right"}, **_ticks(values)},
        )
    )
    return laid_out(
        figure,
        height=min(560, 110 + 44 * max(len(rows), 3)),
        revision="redundancy",
        xaxis={"title": "MLP channels removed", "type": "category"},
        yaxis={"title": "attention removed", "type": "category", "autorange": "reversed"},
    )


def redundancy_cell(
    points: tuple[ta.SweepPoint, ...], spec: ta.ModelSpec, row: float, column: float
) -> tuple[float, float]:
    """Attention and MLP sparsity of a cell, as the target of its column asked for it; `WrongInput` for no place."""
    rows, columns = _axes(points, spec)
    at, of = limits.place("The row clicked", row, len(rows)), limits.place("The column clicked", column, len(columns))
    place = rows[at], columns[of]
    point = next((point for point in points if _place(point, spec) == place), None)
    return (place[0], dict(point.target.requested)["mlp_sparsity"]) if point else place


def _axes(points: tuple[ta.SweepPoint, ...], spec: ta.ModelSpec) -> tuple[list[float], list[float]]:
    """Attention sparsity of the rows and MLP sparsity of the columns."""
    rows, columns = zip(*(_place(point, spec) for point in points), strict=True)
    return sorted(set(rows)), sorted(set(columns))


def _place(point: ta.SweepPoint, spec: ta.ModelSpec) -> tuple[float, float]:
    before, after = spec.layers[0], point.plan.spec.layers[0]
    return (
        1 - after.num_key_value_heads / before.num_key_value_heads,
        1 - after.intermediate_size / before.intermediate_size,
    )


def _ticks(values: np.ndarray) -> dict:
    """Round numbers between the lowest and the highest perplexity."""
    low, high = np.nanmin(values), np.nanmax(values)
    ticks = [step * 10.0**power for power in range(-1, 9) for step in (1, 2, 5)]
    within = [tick for tick in ticks if low <= tick <= high] or [low]
    return {"tickvals": np.log10(within), "ticktext": [f"{tick:,.1f}".removesuffix(".0") for tick in within]}
