"""Whether the choice can be trusted: agreement of the metrics, and stability under more text."""

import numpy as np
import plotly.graph_objects as go

import transact as ta
from transact.wording import counted
from ui.figures.frame import ACCENT, COLOUR_BAR, GRID, LEGEND_ABOVE, SECOND, laid_out
from ui.format import labels


def agreement_figure(agreement: ta.MetricAgreement) -> go.Figure:
    """Rank correlation of every pair of metrics: channels above the diagonal, heads below it."""
    names = [labels.short_metric(name) for name in agreement.metrics]
    heads, channels = np.asarray(agreement.heads), np.asarray(agreement.channels)
    upper = np.triu(np.ones(heads.shape, dtype=bool), 1)
    values = np.where(upper, channels, heads)
    np.fill_diagonal(values, np.nan)
    words = [["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in values]
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=names,
            y=names,
            text=words,
            texttemplate="%{text}",
            colorscale="RdBu",
            reversescale=True,
            zmin=-1,
            zmax=1,
            xgap=2,
            ygap=2,
            hovertemplate="%{y} and %{x}: %{z:.2f}<extra></extra>",
            colorbar=COLOUR_BAR,
        )
    )
    return laid_out(
        figure,
        height=300,
        revision=f"agreement {names}",
        xaxis={"title": "above the diagonal: channels; below: heads"},
        yaxis={"autorange": "reversed"},
    )


def stability_figure(stability: ta.Stability) -> go.Figure:
    """Overlap of what is kept with the choice from all sequences, over the number of sequences drawn."""
    figure = go.Figure()
    for name, spreads, colour, symbol in (
        ("head groups", stability.head_group_overlaps, ACCENT, "circle"),
        ("channels", stability.channel_overlaps, SECOND, "diamond"),
    ):
        means = np.array([spread.mean for spread in spreads])
        figure.add_trace(
            go.Scatter(
                x=stability.sizes,
                y=means,
                name=name,
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"symbol": symbol, "size": 8},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": np.array([spread.highest for spread in spreads]) - means,
                    "arrayminus": means - np.array([spread.lowest for spread in spreads]),
                },
                customdata=[counted(size, "sequence") for size in stability.sizes],
                hovertemplate=f"{name}, %{{customdata}}: %{{y:.1%}} the same<extra></extra>",
            )
        )
    figure.update_layout(showlegend=True, legend=LEGEND_ABOVE)
    return laid_out(
        figure,
        height=240,
        revision="stability",
        xaxis={
            "title": "sequences drawn (the last: all, with replacement)",
            "type": "log",
            "tickvals": stability.sizes,
            "ticktext": [str(size) for size in stability.sizes],
        },
        yaxis={"title": "kept as from all", "tickformat": ".0%", "rangemode": "normal", **GRID},
    ).update_layout(margin={"t": 30})
