"""One layer close up: its heads, and every one of its channels."""

import numpy as np
import plotly.graph_objects as go

import transact as ta
from ui.figures.frame import ACCENT, GREY, SECOND, laid_out
from ui.landscape import Landscape


def layer_heads_figure(landscape: Landscape, plan: ta.PruningPlan | None, *, layer: int) -> go.Figure:
    """The heads of one layer as bars, removed ones hatched."""
    scores = landscape.heads[layer]
    scores = scores[~np.isnan(scores)]
    removed = np.zeros(len(scores), dtype=bool)
    if plan is not None:
        removed = landscape.removed_heads(plan)[layer, : len(scores)]
    figure = go.Figure(
        go.Bar(
            x=np.arange(len(scores)),
            y=scores,
            marker={
                "color": [GREY if gone else ACCENT for gone in removed],
                "pattern": {"shape": ["/" if gone else "" for gone in removed]},
            },
            hovertemplate="head %{x}<br>score %{y:.5g}<extra></extra>",
        )
    )
    return laid_out(
        figure,
        height=260,
        revision=f"layer heads {len(scores)}",
        xaxis={"title": "head (hatched: removed)", "dtick": max(1, len(scores) // 16)},
        yaxis={"title": "head score", "rangemode": "tozero"},
    )


def layer_channels_figure(landscape: Landscape, plan: ta.PruningPlan | None, *, layer: int) -> go.Figure:
    """Every channel of one layer by rank, and the share of the whole score that the best ones hold."""
    ranked = landscape.channels[layer][landscape.order[layer]]
    ranks = np.arange(1, len(ranked) + 1)
    total = ranked.sum()
    share = np.cumsum(ranked) / total * 100 if total > 0 else np.zeros_like(ranked)
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=ranks,
            y=ranked.astype(np.float32),
            name="score of a channel",
            line={"color": ACCENT, "width": 2},
            customdata=landscape.order[layer].astype(np.int32),
            hovertemplate="rank %{x}, channel %{customdata}<br>score %{y:.5g}<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=ranks,
            y=share.astype(np.float32),
            name="cumulative share",
            yaxis="y2",
            line={"color": SECOND, "width": 2, "dash": "dash"},
            hovertemplate="the best %{x} channels hold %{y:.1f} %<extra></extra>",
        )
    )
    if plan is not None and len(plan.layers[layer].kept_channels) < len(ranked):
        kept = len(plan.layers[layer].kept_channels)
        figure.add_vrect(x0=kept + 0.5, x1=len(ranked) + 0.5, fillcolor=GREY, opacity=0.28, line_width=0)
        figure.add_vline(x=kept + 0.5, line={"color": GREY, "width": 2})
    figure.update_layout(
        yaxis2={
            "title": "cumulative share (%)",
            "overlaying": "y",
            "side": "right",
            "range": [0, 102],
            "showgrid": False,
            "fixedrange": True,
        },
        legend={"orientation": "h", "y": 1.16, "x": 0},
        showlegend=True,
    )
    framed = laid_out(
        figure,
        height=260,
        revision=f"layer channels {len(ranked)}",
        xaxis={"title": "channels by rank (shaded: removed)", "range": [0, len(ranked) + 1]},
        yaxis={"title": "channel score", "rangemode": "tozero"},
    )
    return framed.update_layout(margin={"r": 54, "t": 30})
