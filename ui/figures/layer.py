"""One layer close up: its heads, every one of its channels, how their scores spread, and the inside of a head."""

import numpy as np
import plotly.graph_objects as go

import transact as ta
from ui.figures.frame import ACCENT, GREY, GRID, LEGEND_ABOVE, SECOND, SELECTED, laid_out
from ui.state.score_bins import Landscape
from ui.state.view import Selection

_HEIGHT = 250


def layer_heads_figure(landscape: Landscape, plan: ta.PruningPlan | None, selection: Selection) -> go.Figure:
    """The heads of the selected layer as bars, removed ones hatched, the selected one framed."""
    scores = landscape.heads[selection.layer]
    scores = scores[~np.isnan(scores)]
    removed = np.zeros(len(scores), dtype=bool)
    if plan is not None:
        removed = landscape.removed_heads(plan)[selection.layer, : len(scores)] == 1
    chosen = np.arange(len(scores)) == selection.head
    figure = go.Figure(
        go.Bar(
            x=np.arange(len(scores)),
            y=scores,
            marker={
                "color": [GREY if gone else ACCENT for gone in removed],
                "pattern": {"shape": ["/" if gone else "" for gone in removed]},
                "line": {"color": SELECTED, "width": np.where(chosen, 3.0, 0.0)},
            },
            hovertemplate="head %{x}<br>score %{y:,.3r}<extra></extra>",
        )
    )
    return laid_out(
        figure,
        height=_HEIGHT,
        revision=f"layer heads {len(scores)}",
        xaxis={"title": "head (hatched: removed)", "dtick": max(1, len(scores) // 16)},
        yaxis={"title": "head score", "rangemode": "tozero"},
    )


def layer_channels_figure(landscape: Landscape, plan: ta.PruningPlan | None, selection: Selection) -> go.Figure:
    """Every channel of the layer by rank, and the share of the whole score that the best ones hold."""
    layer = selection.layer
    ranked = landscape.channels[layer][landscape.order[layer]]
    figure = go.Figure(_ranked_lines(ranked, landscape.order[layer]))
    if selection.channels:
        at = landscape.rank(layer, selection.channels[0])
        figure.add_trace(
            go.Scatter(
                x=[at + 1],
                y=[ranked[at]],
                name=f"channel {selection.channels[0]}",
                mode="markers",
                marker={"size": 12, "symbol": "circle-open", "line": {"width": 3}, "color": SELECTED},
                hoverinfo="skip",
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
        legend=LEGEND_ABOVE,
        showlegend=True,
        hovermode="x",  # a click anywhere above a rank means its channel
    )
    framed = laid_out(
        figure,
        height=_HEIGHT,
        revision=f"layer channels {len(ranked)}",
        xaxis={"title": "channels by rank (shaded: removed)", "range": [0, len(ranked) + 1]},
        yaxis={"title": "channel score", "rangemode": "tozero"},
    )
    return framed.update_layout(margin={"r": 54, "t": 30})


def distribution_figure(landscape: Landscape, plan: ta.PruningPlan | None, selection: Selection) -> go.Figure:
    """How many channels of the layer have which score, those that stay and those that go."""
    scores = landscape.channels[selection.layer]
    kept = np.ones(len(scores), dtype=bool)
    if plan is not None:
        kept[:] = False
        kept[list(plan.layers[selection.layer].kept_channels)] = True
    edges = np.histogram_bin_edges(scores, bins=min(60, max(8, len(scores) // 6)))
    figure = go.Figure()
    for name, which, colour, pattern in (("stays", kept, ACCENT, ""), ("goes", ~kept, GREY, "/")):
        counts, _ = np.histogram(scores[which], bins=edges)
        figure.add_trace(
            go.Bar(
                x=(edges[:-1] + edges[1:]) / 2,
                y=counts,
                name=name,
                marker={"color": colour, "pattern": {"shape": pattern}},
                hovertemplate=f"%{{y}} channels near %{{x:,.3r}}: {name}<extra></extra>",
            )
        )
    figure.update_layout(barmode="stack", bargap=0.05, showlegend=True, legend=LEGEND_ABOVE)
    return laid_out(
        figure,
        height=_HEIGHT,
        revision=f"distribution {len(scores)}",
        xaxis={"title": "channel score"},
        yaxis={"title": "channels", **GRID},
    ).update_layout(margin={"t": 30})


def head_channels_figure(scores: ta.ImportanceScores, selection: Selection) -> go.Figure:
    """The channels inside the selected head; without one, those of the layer's best head."""
    heads = scores.attention_channels[selection.layer].numpy()
    head = int(scores.heads[selection.layer].argmax()) if selection.head is None else selection.head
    values = heads[head]
    figure = go.Figure(
        go.Bar(
            x=np.arange(len(values)),
            y=values,
            marker={"color": ACCENT},
            hovertemplate="channel %{x} of the head<br>score %{y:,.3r}<extra></extra>",
        )
    )
    return laid_out(
        figure,
        height=_HEIGHT,
        revision=f"inside head {len(values)}",
        xaxis={"title": f"channel inside head {head}" + (" (the best one)" if selection.head is None else "")},
        yaxis={"title": "channel score", "rangemode": "tozero"},
    )


def cumulative_shares(ranked: np.ndarray) -> np.ndarray:
    """The share of the whole that the best 1, 2, … hold; zeros where nothing has a score."""
    total = ranked.sum()
    return np.cumsum(ranked) / total if total > 0 else np.zeros(len(ranked))


def _ranked_lines(ranked: np.ndarray, order: np.ndarray) -> list[go.Scatter]:
    """The scores by rank, and the share of their sum that the best 1, 2, … hold. `order`: the channel at each rank."""
    ranks = np.arange(1, len(ranked) + 1)
    return [
        go.Scatter(
            x=ranks,
            y=ranked.astype(np.float32),
            name="score of a channel",
            line={"color": ACCENT, "width": 2},
            customdata=order.astype(np.int32),
            hovertemplate="rank %{x}, channel %{customdata}<br>score %{y:,.3r}<extra></extra>",
        ),
        go.Scatter(
            x=ranks,
            y=cumulative_shares(ranked).astype(np.float32) * 100,
            name="cumulative share",
            yaxis="y2",
            line={"color": SECOND, "width": 2, "dash": "dash"},
            hovertemplate="the best %{x} channels hold %{y:.1f} %<extra></extra>",
        ),
    ]
