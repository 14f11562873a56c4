"""The two score maps; what lies over them is in `overlay`."""

import numpy as np
import plotly.graph_objects as go

from ui.figures.frame import COLOUR_BAR, GREY, laid_out
from ui.figures.overlay import Overlay, overlay_traces
from ui.state.score_bins import Landscape

NORMALISATIONS = {"layer": "Each layer by itself", "model": "Whole model"}

_SCALE = "viridis"
_TOP, _OUTLIER = 0.98, 10
"""The colours of channels end at that quantile, so that a single channel does not blacken its layer; one that goes so
many times beyond it is named."""
_LOWEST, _TALLEST = 240, 310
"""Pixels of a map."""
_FAINTEST = 0.01
"""Shares below this look alike; the exact score is in the hover text."""


def heads_figure(landscape: Landscape, overlay: Overlay, *, normalisation: str) -> go.Figure:
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
            hovertemplate="layer %{y}, head %{x}<br>score %{customdata:,.3r}<extra></extra>",
            **_linear_colour(shares),
        )
    )
    figure.add_traces(overlay_traces(overlay))
    borders = np.arange(landscape.group_size, heads, landscape.group_size) - 0.5
    if landscape.group_size > 1:
        for border in borders:
            figure.add_vline(x=border, line={"color": GREY, "width": 1.5, "dash": "dot"})
    return laid_out(
        figure,
        height=map_height(landscape.num_layers),
        revision=f"heads {scores.shape}",
        xaxis={"title": "attention head", "dtick": max(1, heads // 16), "range": [-0.55, heads - 0.45]},
        yaxis=layer_axis(landscape.num_layers),
    )


def channels_figure(landscape: Landscape, overlay: Overlay, *, normalisation: str) -> go.Figure:
    """Channel scores [layer, bin], best first; the horizontal axis is the share of the layer's channels."""
    scores = landscape.bins
    bins = scores.shape[1]
    shares = _normalised(scores, normalisation, _TOP)
    edges = np.linspace(0, 100, bins + 1)
    figure = go.Figure(
        go.Heatmap(
            z=np.log10(np.clip(shares, _FAINTEST, 1)),
            x=(edges[:-1] + edges[1:]) / 2,
            customdata=np.stack([scores, landscape.strongest.astype(np.float32)], axis=-1),
            hovertemplate=(
                "layer %{y}, at %{x:.1f} % of its channels<br>score %{customdata[0]:,.3r}"
                "<br>channel %{customdata[1]:.0f}<extra></extra>"
            ),
            **_log_colour(),
        )
    )
    figure.add_traces(overlay_traces(overlay))
    for layer in np.flatnonzero(shares[:, 0] > _OUTLIER):
        figure.add_annotation(
            x=1, y=layer, text=f"◂ × {shares[layer, 0]:,.0f}", showarrow=False, xanchor="left", bgcolor="#ffffff",
            font={"size": 9, "color": "#1e222a"}, borderpad=0, opacity=0.85,
            hovertext=f"The strongest channels of layer {layer} score up to {shares[layer, 0]:,.0f} times the top of "
            "the colour scale",
        )  # fmt: skip
    return laid_out(
        figure,
        height=map_height(landscape.num_layers),
        revision=f"channels {scores.shape}",
        xaxis={"title": "channels of the layer, best first (%)", "range": [-0.6, 100.6]},
        yaxis=layer_axis(landscape.num_layers),
    )


def _normalised(scores: np.ndarray, normalisation: str, top: float = 1.0) -> np.ndarray:
    """Scores as a share of the highest in their layer or in the model, or of that quantile of them: float32, from 0."""
    highest = np.nanquantile(scores, top, **({"axis": 1, "keepdims": True} if normalisation == "layer" else {}))
    return (scores / np.maximum(highest, np.finfo(np.float32).tiny)).astype(np.float32)


def _linear_colour(shares: np.ndarray) -> dict:
    """Head scores lie close together, so the scale begins at the lowest, rounded down to a tenth."""
    lowest = np.floor(np.nanmin(shares) * 10) / 10
    bar = {**COLOUR_BAR, "title": {"text": "share of the highest", "side": "right"}, "tickformat": ".0%"}
    return {"colorscale": _SCALE, "zmin": min(lowest, 0.9), "zmax": 1, "colorbar": bar}


def _log_colour() -> dict:
    """Channel scores spread over orders of magnitude, so their scale is logarithmic."""
    ticks = np.array([0.01, 0.03, 0.1, 0.3, 1])
    bar = {
        **COLOUR_BAR,
        "title": {"text": "share of the top 2 % (log)", "side": "right"},
        "tickvals": np.log10(ticks),
        "ticktext": [f"{tick:.0%}" for tick in ticks],
    }
    return {"colorscale": _SCALE, "zmin": np.log10(_FAINTEST), "zmax": 0, "colorbar": bar}


def layer_axis(num_layers: int) -> dict:
    """Layers from the top down."""
    return {
        "title": "layer",
        "range": [num_layers - 0.45, -0.55],
        "dtick": next(step for step in (1, 2, 4, 8, 16, 32) if num_layers <= 12 * step or step == 32),
        "zeroline": False,
    }


def map_height(num_layers: int) -> int:
    """All layers in one look at any depth: rows shrink."""
    return min(_TALLEST, max(_LOWEST, 52 + 26 * num_layers))
