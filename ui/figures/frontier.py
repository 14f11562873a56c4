"""What each size is foretold to cost, beside what was measured."""

import plotly.graph_objects as go

import transact as ta
from transact.compression.frontier import KindCost
from ui.figures.frame import ACCENT, GREY, GRID, SECOND, laid_out

SIZES = tuple(step / 100 for step in range(95, 39, -5))
_DASHES = {"channels": "dot", "head groups": "dash", "layers": "dashdot"}
_WORST = 5.0
"""Times the dense perplexity above which nothing is drawn: such a model is ruined."""


def frontier_figure(
    frontier: ta.Frontier, spec: ta.ModelSpec, chosen: float, measured: list[tuple[float, float]]
) -> go.Figure:
    """Times the dense perplexity against the share of parameters that goes.

    The points are foretold for a goal of each size, with the `chosen` one larger; thin lines: each kind of part alone,
    behind masks. `measured`: shares that went, and factors.
    """
    figure = go.Figure()
    for cost in frontier.costs:
        figure.add_trace(_alone(cost))
    points = [(1 - size, frontier.factor(spec, size)) for size in ta.reachable_sizes(spec, SIZES)]
    points = [(gone, factor) for gone, factor in points if factor <= _WORST]
    figure.add_trace(
        go.Scatter(
            x=[gone for gone, _ in points], y=[factor for _, factor in points], mode="lines+markers", name="predicted",
            line={"color": ACCENT, "width": 1.5},
            hovertemplate="predicted<br>%{x:.0%} smaller: × %{y:.3r}<extra></extra>",
            marker={"symbol": "circle-open", "size": [11 if abs(gone - chosen) < 0.026 else 6 for gone, _ in points]},
        )
    )  # fmt: skip
    if measured:
        figure.add_trace(
            go.Scatter(
                x=[gone for gone, _ in measured], y=[factor for _, factor in measured], mode="markers", name="measured",
                marker={"symbol": "circle", "size": 9, "color": SECOND},
                hovertemplate="measured<br>%{x:.0%} smaller: × %{y:.3r}<extra></extra>",
            )
        )  # fmt: skip
    below = {"orientation": "h", "y": -0.32, "yanchor": "top", "x": 0, "font": {"size": 10}}
    figure.update_layout(showlegend=True, legend=below)
    framed = laid_out(
        figure, height=320, revision="frontier",
        xaxis={"title": "smaller by", "tickformat": ".0%", "range": [0, 0.6], **GRID},
        yaxis={"title": "× perplexity", "rangemode": "normal", **GRID},
    )  # fmt: skip
    return framed.update_layout(margin={"l": 44, "t": 8, "r": 8, "b": 130})


def _alone(cost: KindCost) -> go.Scatter:
    """One kind behind masks, as far as it was measured and a little further."""
    furthest = min(0.6, 1.5 * cost.points[-1][0])
    shares = [furthest * step / 24 for step in range(1, 25)]
    pairs = [(share, cost.factor(share)) for share in shares if cost.factor(share) <= _WORST]
    return go.Scatter(
        x=[share for share, _ in pairs], y=[factor for _, factor in pairs], mode="lines", name=f"{cost.kind}, masked",
        line={"color": GREY, "width": 1, "dash": _DASHES[cost.kind]},
        hovertemplate=f"{cost.kind} alone, behind masks<br>%{{x:.0%}}: × %{{y:.3r}}<extra></extra>",
    )  # fmt: skip
