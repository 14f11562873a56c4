"""Two calibration texts side by side: where their scores differ, and how much that changes the choice."""

import numpy as np
import plotly.graph_objects as go

import transact as ta
from ui.figures.frame import ACCENT, COLOUR_BAR, GREY, GRID, LEGEND_ABOVE, SECOND, laid_out, plain
from ui.figures.maps import layer_axis, map_height
from ui.state.score_bins import Landscape

_DIVERGING = "RdBu"
_SPARSITIES = np.round(np.arange(0.05, 1.0, 0.05), 2)
_HEIGHT = 260


def head_differences_figure(compared: ta.CalibrationComparison, names: tuple[str, str]) -> go.Figure:
    """Head scores on the second text less those on the first, each as a share of its layer's mean: [layer, head]."""
    widest = max(len(layer) for layer in compared.head_differences)
    values = np.full((len(compared.head_differences), widest), np.nan, dtype=np.float32)
    for layer, differences in enumerate(compared.head_differences):
        values[layer, : len(differences)] = differences
    figure = go.Figure(
        go.Heatmap(
            z=values,
            xgap=2,
            ygap=2,
            hovertemplate="layer %{y}, head %{x}<br>%{z:+.0%} of the layer's mean<extra></extra>",
            **_colour(values, names),
        )
    )
    return laid_out(
        figure,
        height=map_height(len(values)),
        revision=f"difference heads {values.shape}",
        xaxis={"title": "attention head", "dtick": max(1, widest // 16)},
        yaxis=layer_axis(len(values)),
    )


def channel_differences_figure(
    compared: ta.CalibrationComparison, landscape: Landscape, names: tuple[str, str]
) -> go.Figure:
    """The same for channels, in the order and the bins of the first text's map: [layer, bin]."""
    values = np.empty(landscape.bins.shape, dtype=np.float32)
    for layer, differences in enumerate(compared.channel_differences):
        starts = landscape.edges[layer]
        ranked = np.asarray(differences)[landscape.order[layer]]
        values[layer] = np.add.reduceat(ranked, starts[:-1]) / np.diff(starts)
    edges = np.linspace(0, 100, values.shape[1] + 1)
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=(edges[:-1] + edges[1:]) / 2,
            customdata=landscape.strongest,
            hovertemplate=("layer %{y}, channel %{customdata}<br>%{z:+.0%} of the layer's mean<extra></extra>"),
            **_colour(values, names),
        )
    )
    return laid_out(
        figure,
        height=map_height(len(values)),
        revision=f"difference channels {values.shape}",
        xaxis={"title": f"channels, best first on {plain(names[0])} (%)"},
        yaxis=layer_axis(len(values)),
    )


def correlation_figure(compared: ta.CalibrationComparison) -> go.Figure:
    """Spearman's rank correlation of both texts' scores in every layer."""
    figure = go.Figure()
    for name, values, colour, pattern in (
        ("heads", compared.head_correlations, ACCENT, ""),
        ("channels", compared.channel_correlations, SECOND, "/"),
    ):
        figure.add_trace(
            go.Bar(
                x=np.arange(len(values)),
                y=np.asarray(values),
                name=name,
                marker={"color": colour, "pattern": {"shape": pattern}},
                hovertemplate=f"layer %{{x}}: {name} %{{y:.2f}}<extra></extra>",
            )
        )
    figure.update_layout(showlegend=True, legend=LEGEND_ABOVE, barmode="group")
    return laid_out(
        figure,
        height=_HEIGHT,
        revision=f"correlation {len(compared.head_correlations)}",
        xaxis={"title": "layer", "dtick": 1 if len(compared.head_correlations) <= 16 else 4},
        yaxis={"title": "rank correlation (Spearman)", "range": [-1.05, 1.05], **GRID},
    ).update_layout(margin={"t": 30})


def overlap_figure(compared: ta.CalibrationComparison) -> go.Figure:
    """Share of the kept units that both texts would keep, as more is removed, beside what chance gives."""
    overlap = compared.overlap(_SPARSITIES)
    figure = go.Figure()
    for name, values, colour, dash in (
        ("head groups", overlap.head_groups, ACCENT, "solid"),
        ("channels", overlap.channels, SECOND, "dash"),
        ("channels by chance", overlap.channels_by_chance, GREY, "dot"),
    ):
        figure.add_trace(
            go.Scatter(
                x=_SPARSITIES,
                y=np.asarray(values),
                name=name,
                line={"color": colour, "width": 2, "dash": dash},
                hovertemplate=f"{name}: %{{y:.0%}} in common at %{{x:.0%}} removed<extra></extra>",
            )
        )
    figure.update_layout(showlegend=True, legend=LEGEND_ABOVE)
    return laid_out(
        figure,
        height=_HEIGHT,
        revision="overlap",
        xaxis={"title": "removed (sparsity)", "tickformat": ".0%", "range": [0, 1]},
        yaxis={"title": "kept by both", "tickformat": ".0%", "range": [0, 1.05], **GRID},
    ).update_layout(margin={"t": 30})


def _colour(values: np.ndarray, names: tuple[str, str]) -> dict:
    """White where both texts agree; the ends stand for the 98th percentile, so that one outlier hides nothing."""
    size = float(np.nanquantile(np.abs(values), 0.98)) or 1.0
    title = {"side": "right", "text": f"more on {plain(names[0])} · more on {plain(names[1])}"}
    return {
        "colorscale": _DIVERGING,
        "reversescale": True,
        "zmid": 0,
        "zmin": -size,
        "zmax": size,
        "colorbar": {**COLOUR_BAR, "title": title, "tickformat": "+.0%"},
    }
