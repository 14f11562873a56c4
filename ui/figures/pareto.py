"""Every result as a point of perplexity against parameters."""

import plotly.graph_objects as go

from ui.figures.frame import ACCENT, GREY, GRID, SECOND, laid_out


def pareto_figure(points: list[tuple[str, int, float, str]], dense: tuple[int, float] | None) -> go.Figure:
    """Perplexity against parameters. `points`: (label, parameters, perplexity, kind "random" or "scored")."""
    figure = go.Figure()
    for kind, symbol, colour in (("scored", "circle", ACCENT), ("random", "x", GREY)):
        chosen = [point for point in points if point[3] == kind]
        if chosen:
            figure.add_trace(
                go.Scatter(
                    x=[point[1] for point in chosen],
                    y=[point[2] for point in chosen],
                    text=[point[0] for point in chosen],
                    mode="markers+text",
                    textposition="top center",
                    name="random (the floor)" if kind == "random" else "pruned by score",
                    marker={"symbol": symbol, "size": 11, "color": colour},
                    hovertemplate="%{text}<br>%{x:.4s} parameters<br>perplexity %{y:.4g}<extra></extra>",
                )
            )
    if dense is not None:
        figure.add_trace(
            go.Scatter(
                x=[dense[0]],
                y=[dense[1]],
                mode="markers+text",
                text=["dense"],
                textposition="top center",
                name="dense",
                marker={"symbol": "star", "size": 14, "color": SECOND},
                hovertemplate="dense<br>%{x:.4s} parameters<br>perplexity %{y:.4g}<extra></extra>",
            )
        )
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12, "x": 0})
    framed = laid_out(
        figure,
        height=320,
        revision="pareto",
        xaxis={"title": "parameters", "tickformat": ".3s", **GRID},
        yaxis={"title": "perplexity (log scale)", "type": "log", **GRID},
    )
    return framed.update_layout(margin={"l": 62, "t": 34, "r": 24})
