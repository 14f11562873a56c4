"""Loss and perplexity while a pruned model is trained, shot by shot."""

import plotly.graph_objects as go

import transact as ta
from ui.figures.frame import ACCENT, GREY, GRID, SECOND, laid_out
from ui.format import numbers


def recovery_figure(points: tuple[ta.RecoveryPoint, ...], one_shot: float | None = None) -> go.Figure:
    """Perplexity (left) and training loss (right) against trained tokens; dense model and one-shot cut as lines.

    Perplexities are multiples of the dense model's, as it is measured on fewer sequences here than results are.

    `one_shot`: perplexity of cutting all at once; None where the first cut is just that.
    """
    along, shots = _tokens_so_far(points)
    measured = [(x, point.perplexity) for x, point in zip(along, points, strict=True) if point.phase != "dense"]
    dense = next((point.perplexity for point in points if point.phase == "dense"), None)
    unit, sign = ("perplexity", "") if dense is None else ("perplexity, times the dense", "× ")
    measured = [(x, value / (dense or 1)) for x, value in measured if value is not None]
    losses = [(x, point.loss) for x, point in zip(along, points, strict=True) if point.loss is not None]
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=[x for x, _ in losses],
            y=[value for _, value in losses],
            mode="lines",
            name="training loss (right)",
            yaxis="y2",
            line={"color": GREY, "width": 1},
            hovertemplate="%{x:,.0f} tokens<br>loss %{y:,.3r}<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[x for x, _ in measured],
            y=[value for _, value in measured],
            mode="lines+markers",
            name="perplexity",
            line={"color": ACCENT, "width": 2},
            hovertemplate=f"%{{x:,.0f}} tokens<br>perplexity {sign}%{{y:,.3r}}<extra></extra>",
        )
    )
    if dense is not None:
        _level(figure, along[-1], 1.0, f"dense {sign}{numbers.figure(1.0)}", SECOND, "dash")
    if measured:
        untrained = measured[0][1] if one_shot is None else one_shot / (dense or 1)
        _level(figure, along[-1], untrained, f"one shot, not trained {sign}{numbers.figure(untrained)}", GREY, "dot")
    for x, name in shots:
        figure.add_vline(x=x, line={"color": GREY, "width": 1}, annotation_text=name, annotation_textangle=-90)
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.14, "x": 0})
    figure.update_layout(yaxis2={"title": "loss", "overlaying": "y", "side": "right", "showgrid": False})
    framed = laid_out(
        figure,
        height=320,
        revision="recovery",
        xaxis={"title": "tokens trained on", "exponentformat": "B", **GRID},
        yaxis={"title": f"{unit} (log scale)", "type": "log", **GRID},
    )
    return framed.update_layout(margin={"l": 62, "t": 34, "r": 62})


def _level(figure: go.Figure, until: int, value: float, words: str, colour: str, dash: str) -> None:
    """A perplexity that does not change, named in the legend."""
    figure.add_trace(
        go.Scatter(
            x=[0, max(until, 1)],
            y=[value, value],
            mode="lines",
            name=words,
            line={"color": colour, "width": 1.5, "dash": dash},
            hoverinfo="skip",
        )
    )


def _tokens_so_far(points: tuple[ta.RecoveryPoint, ...]) -> tuple[list[int], list[tuple[int, str]]]:
    """Tokens before each point, all phases together; and where each shot's cut stands."""
    along, shots, before, phase, reached = [], [], 0, "", 0
    for point in points:
        if point.phase != phase:
            before, phase, reached = before + reached, point.phase, 0
            if point.phase.startswith("shot"):
                shots.append((before, point.phase.rpartition(" of ")[0]))
        reached = max(reached, point.tokens)
        along.append(before + point.tokens)
    return along, shots
