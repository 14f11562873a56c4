"""Every result as a point of perplexity against parameters, with the front that none beats."""

from dataclasses import dataclass

import plotly.graph_objects as go

from transact.analysis.gallery_model import SizePoint, SizeSweep
from ui.figures.frame import ACCENT, GREY, GRID, SECOND, laid_out, plain
from ui.format import labels, numbers


@dataclass(frozen=True)
class Point:
    """One result. `floor`: perplexity of random pruning at the same sizes, where it was measured.

    Where the result itself is random, that is its own perplexity.
    """

    number: int
    parameters: int
    perplexity: float
    floor: float | None = None


def pareto_figure(
    points: list[Point], dense: tuple[int, float], predicted: list[tuple[int, float]] | None = None
) -> go.Figure:
    """Perplexity against parameters; the front joins the dense model and the results that no other beats.

    `predicted`: parameters and perplexity of plans behind masks, which were not cut; they take no part in the front.
    """
    figure = go.Figure()
    front = pareto_front([dense, *((point.parameters, point.perplexity) for point in points)])
    figure.add_trace(
        go.Scatter(
            x=[parameters for parameters, _ in front],
            y=[perplexity for _, perplexity in front],
            mode="lines",
            name="Pareto front",
            line={"color": ACCENT, "width": 1.5, "dash": "dot", "shape": "hv"},
            hoverinfo="skip",
        )
    )
    if predicted:
        figure.add_trace(_predictions(predicted))
    floors = [point for point in points if point.floor is not None]
    if floors:
        marks = _marks(floors, [point.floor for point in floors], "random (the floor)")
        figure.add_trace(marks.update(mode="markers", marker={"symbol": "x", "color": GREY}))
    chosen = [point for point in points if point.perplexity != point.floor]
    if chosen:
        marks = _marks(chosen, [point.perplexity for point in chosen], "measured")
        figure.add_trace(marks.update(mode="markers+text", marker={"symbol": "circle", "color": ACCENT}))
    figure.add_trace(
        go.Scatter(
            x=[dense[0]],
            y=[dense[1]],
            mode="markers+text",
            text=["dense"],
            textposition="top center",
            name="dense",
            marker={"symbol": "star", "size": 14, "color": SECOND},
            customdata=[numbers.count(dense[0])],
            hovertemplate="dense<br>%{customdata} parameters<br>perplexity %{y:,.3r}<extra></extra>",
        )
    )
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12, "x": 0})
    framed = laid_out(
        figure,
        height=320,
        revision="pareto",
        xaxis={"title": "parameters", "exponentformat": "B", **GRID},
        yaxis={"title": "perplexity (log scale)", "type": "log", **GRID},
    )
    return framed.update_layout(margin={"l": 62, "t": 34, "r": 24})


def sweep_figure(sweep: SizeSweep) -> go.Figure:
    """A model's sizes as they were measured before and as they are expected between; the line joins all of them."""
    points = sorted(sweep.points, key=lambda point: point.parameters)
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=[point.parameters for point in points],
            y=[point.perplexity for point in points],
            mode="lines",
            line={"color": ACCENT, "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    how = f"{labels.metric(sweep.metric)}, {labels.repair(sweep.repair)}"
    kinds = (
        ("measured", f"measured before: {how}", {"symbol": "circle", "color": ACCENT}),
        ("predicted", "expected between", {"symbol": "circle-open", "color": ACCENT}),
    )
    for kind, name, marker in kinds:
        chosen = [point for point in points if point.measured == (kind == "measured") and point.removed]
        mode = "markers+text" if kind == "measured" else "markers"
        figure.add_trace(_sizes(chosen, name).update(marker={"size": 10, **marker}, mode=mode))
    star = {"symbol": "star", "size": 14, "color": SECOND}
    figure.add_trace(_sizes([sweep.dense], "dense").update(marker=star, text=["dense"]))
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12, "x": 0})
    framed = laid_out(
        figure,
        height=320,
        revision="sweep",
        xaxis={"title": "parameters", "exponentformat": "B", **GRID},
        yaxis={"title": f"perplexity on {plain(sweep.text)} (log scale)", "type": "log", **GRID},
    )
    return framed.update_layout(margin={"l": 62, "t": 34, "r": 24})


def _sizes(points: list[SizePoint], name: str) -> go.Scatter:
    return go.Scatter(
        x=[point.parameters for point in points],
        y=[point.perplexity for point in points],
        mode="markers+text",
        text=[f"−{100 * point.removed:.3g} %" for point in points],
        textposition="top center",
        cliponaxis=False,  # the highest point lies at the edge, with its label above
        name=name,
        customdata=[numbers.count(point.parameters) for point in points],
        hovertemplate=f"{name}<br>%{{text}} of the prunable parameters<br>%{{customdata}} parameters<br>"
        "perplexity %{y:,.3r}<extra></extra>",
    )


def pareto_front(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The points that no other is at least as small and as good as, by rising size."""
    front: list[tuple[int, float]] = []
    for parameters, perplexity in sorted(points):
        if not front or perplexity < front[-1][1]:
            front.append((parameters, perplexity))
    return front


def _predictions(predicted: list[tuple[int, float]]) -> go.Scatter:
    """Open diamonds, so that what was not cut is told by its shape."""
    return go.Scatter(
        x=[parameters for parameters, _ in predicted],
        y=[perplexity for _, perplexity in predicted],
        mode="markers",
        name="predicted behind masks",
        marker={"symbol": "diamond-open", "size": 8, "color": GREY},
        customdata=[numbers.count(parameters) for parameters, _ in predicted],
        hovertemplate="predicted behind masks, not cut<br>%{customdata} parameters<br>perplexity %{y:,.3r}"
        "<extra></extra>",
    )


def _marks(points: list[Point], values: list[float], name: str) -> go.Scatter:
    """A mark for each result, at its number of parameters and one of its perplexities."""
    return go.Scatter(
        x=[point.parameters for point in points],
        y=values,
        text=[f"#{point.number}" for point in points],
        textposition="top center",
        name=name,
        marker={"size": 11},
        customdata=[numbers.count(point.parameters) for point in points],
        hovertemplate=f"%{{text}} {name}<br>%{{customdata}} parameters<br>perplexity %{{y:,.3r}}<extra></extra>",
    )
