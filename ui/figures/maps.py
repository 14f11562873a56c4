"""The two score maps, and the outlines of what a plan removes from them."""

import numpy as np
import plotly.graph_objects as go

import transact as ta
from ui.figures.frame import GREY, laid_out
from ui.landscape import Landscape

NORMALISATIONS = {"layer": "Each layer by itself", "model": "Whole model"}
Outlines = tuple[np.ndarray, np.ndarray]

_SCALE = "viridis"
_SELECTION = "#e8590c"
_NO_MARKS: Outlines = (np.empty(0), np.empty(0))
_HATCH = {"shape": "/", "size": 6, "solidity": 0.28, "fgcolor": "rgba(30,34,42,0.85)", "bgcolor": "#a6adb8"}
_BAR = {"thickness": 10, "outlinewidth": 0, "xpad": 4}
_FAINTEST = 0.01
"""Shares below this look alike; the exact score is in the hover text."""


def heads_figure(landscape: Landscape, plan: ta.PruningPlan | None, *, layer: int, normalisation: str) -> go.Figure:
    """Head scores [layer, head]; group borders drawn, since a group goes as a whole."""
    scores = landscape.heads
    heads = scores.shape[1]
    shares = _normalised(scores, normalisation)
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            customdata=scores,
            xgap=2,
            ygap=2,
            hovertemplate="layer %{y}, head %{x}<br>score %{customdata:.5g}<extra></extra>",
            **_linear_colour(shares),
        )
    )
    figure.add_trace(_hatched(head_marks(landscape, plan)))
    borders = np.arange(landscape.group_size, heads, landscape.group_size) - 0.5
    if landscape.group_size > 1:
        for border in borders:
            figure.add_vline(x=border, line={"color": GREY, "width": 1.5, "dash": "dot"})
    _outline(figure, layer, -0.5, heads - 0.5)
    return laid_out(
        figure,
        height=_height(landscape.num_layers),
        revision=f"heads {scores.shape}",
        xaxis={"title": "attention head", "dtick": max(1, heads // 16), "range": [-0.55, heads - 0.45]},
        yaxis=_layer_axis(landscape.num_layers),
    )


def channels_figure(landscape: Landscape, plan: ta.PruningPlan | None, *, layer: int, normalisation: str) -> go.Figure:
    """Channel scores [layer, bin], best first; the horizontal axis is the share of the layer's channels."""
    scores = landscape.bins
    bins = scores.shape[1]
    edges = np.linspace(0, 100, bins + 1)
    figure = go.Figure(
        go.Heatmap(
            z=np.log10(np.maximum(_normalised(scores, normalisation), _FAINTEST)),
            x=(edges[:-1] + edges[1:]) / 2,
            customdata=np.stack([scores, landscape.strongest.astype(np.float32)], axis=-1),
            hovertemplate=(
                "layer %{y}, at %{x:.1f} % of its channels<br>score %{customdata[0]:.5g}"
                "<br>channel %{customdata[1]:.0f}<extra></extra>"
            ),
            **_log_colour(),
        )
    )
    figure.add_trace(_hatched(channel_marks(landscape, plan)))
    _outline(figure, layer, 0, 100)
    return laid_out(
        figure,
        height=_height(landscape.num_layers),
        revision=f"channels {scores.shape}",
        xaxis={"title": "channels of the layer, best first (%)", "range": [-0.6, 100.6]},
        yaxis=_layer_axis(landscape.num_layers),
    )


def head_marks(landscape: Landscape, plan: ta.PruningPlan | None) -> Outlines:
    """Where the heads that the plan removes stand in the figure."""
    edges = np.arange(landscape.heads.shape[1] + 1) - 0.5
    return _NO_MARKS if plan is None else removed_runs(landscape.removed_heads(plan), edges)


def channel_marks(landscape: Landscape, plan: ta.PruningPlan | None) -> Outlines:
    """Where the bins stand of which the plan removes half or more."""
    edges = np.linspace(0, 100, landscape.bins.shape[1] + 1)
    return _NO_MARKS if plan is None else removed_runs(landscape.removed_bins(plan) >= 0.5, edges)


def removed_runs(removed: np.ndarray, edges: np.ndarray) -> Outlines:
    """Outlines of the removed cells, neighbours in a row joined; NaN between rectangles.

    `removed` bool [layer, cell]; `edges` [cell + 1], the horizontal borders of the cells.
    """
    flags = np.pad(removed.astype(np.int8), ((0, 0), (1, 1)))
    steps = np.diff(flags, axis=1)
    rows, starts = np.nonzero(steps == 1)
    stops = np.nonzero(steps == -1)[1]
    left, right, gap = edges[starts], edges[stops], np.full(len(rows), np.nan)
    x = np.stack([left, right, right, left, left, gap], axis=1).ravel()
    y = np.stack([rows - 0.46, rows - 0.46, rows + 0.46, rows + 0.46, rows - 0.46, gap], axis=1).ravel()
    return x, y


def _hatched(outlines: Outlines) -> go.Scatter:
    """The second trace of both maps; the page moves it without drawing the map again."""
    x, y = outlines
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line={"width": 1, "color": "rgba(30,34,42,0.9)"},
        fill="toself",
        fillpattern=_HATCH,
        opacity=0.8,
        hoverinfo="skip",
        showlegend=False,
    )


def _normalised(scores: np.ndarray, normalisation: str) -> np.ndarray:
    """Scores as a share of the highest in their layer or in the model, float32 in [0, 1]."""
    highest = np.nanmax(scores, axis=1, keepdims=True) if normalisation == "layer" else np.nanmax(scores)
    return (scores / np.maximum(highest, np.finfo(np.float32).tiny)).astype(np.float32)


def _linear_colour(shares: np.ndarray) -> dict:
    """Head scores lie close together, so the scale begins at the lowest, rounded down to a tenth."""
    lowest = np.floor(np.nanmin(shares) * 10) / 10
    bar = {**_BAR, "title": {"text": "share of the highest", "side": "right"}, "tickformat": ".0%"}
    return {"colorscale": _SCALE, "zmin": min(lowest, 0.9), "zmax": 1, "colorbar": bar}


def _log_colour() -> dict:
    """Channel scores spread over orders of magnitude, so their scale is logarithmic."""
    ticks = np.array([0.01, 0.03, 0.1, 0.3, 1])
    bar = {
        **_BAR,
        "title": {"text": "share of the highest (log)", "side": "right"},
        "tickvals": np.log10(ticks),
        "ticktext": [f"{tick:.0%}" for tick in ticks],
    }
    return {"colorscale": _SCALE, "zmin": np.log10(_FAINTEST), "zmax": 0, "colorbar": bar}


def _outline(figure: go.Figure, layer: int, left: float, right: float) -> None:
    """Frame the selected layer."""
    figure.add_shape(
        type="rect",
        x0=left,
        x1=right,
        y0=layer - 0.5,
        y1=layer + 0.5,
        line={"color": _SELECTION, "width": 2.5},
        fillcolor="rgba(0,0,0,0)",
    )


def _layer_axis(num_layers: int) -> dict:
    return {
        "title": "layer",
        "range": [num_layers - 0.45, -0.55],
        "dtick": 1 if num_layers <= 16 else 4,
        "zeroline": False,
    }


def _height(num_layers: int) -> int:
    return min(680, max(400, 60 + 26 * num_layers))
