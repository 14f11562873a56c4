"""The tasks that the bundled model learnt, before and after."""

import plotly.graph_objects as go

from ui.figures.frame import ACCENT, GRID, LEGEND_ABOVE, SECOND, laid_out


def probes_figure(probes: tuple[tuple[str, float, float], ...]) -> go.Figure:
    """A line from the dense to the pruned accuracy of every kind. `probes`: (kind, dense, pruned)."""
    kinds = [kind for kind, _, _ in probes]
    figure = go.Figure()
    for kind, before, after in probes:
        figure.add_shape(type="line", x0=before, x1=after, y0=kind, y1=kind, line={"color": "#8b93a1", "width": 3})
    for name, values, colour, symbol in (
        ("dense", [before for _, before, _ in probes], SECOND, "star"),
        ("pruned", [after for _, _, after in probes], ACCENT, "circle"),
    ):
        figure.add_trace(
            go.Scatter(
                x=values,
                y=kinds,
                name=name,
                mode="markers",
                marker={"symbol": symbol, "size": 12, "color": colour},
                hovertemplate=f"%{{y}}, {name}: %{{x:.0%}} right<extra></extra>",
            )
        )
    figure.update_layout(showlegend=True, legend=LEGEND_ABOVE)
    return laid_out(
        figure,
        height=80 + 34 * len(kinds),
        revision="probes",
        xaxis={"title": "tasks solved", "tickformat": ".0%", "range": [-0.04, 1.04], **GRID},
        yaxis={"autorange": "reversed"},
    ).update_layout(margin={"t": 30, "l": 80})
