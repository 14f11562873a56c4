"""What all figures share: colours, axes, and the figure that says what to do to fill it."""

from html import escape

import plotly.graph_objects as go

ACCENT = "#4f46e5"
GREY = "#8b93a1"
SECOND = "#c2700a"
SELECTED = "#e8590c"
COLOUR_BAR = {"thickness": 10, "outlinewidth": 0, "xpad": 4}
LEGEND_ABOVE = {"orientation": "h", "y": 1.2, "x": 0}
NOT_SCORED = "No scores yet: choose a calibration text and press Score"
GRID = {"showgrid": True, "gridcolor": "rgba(139,147,161,0.25)"}
_LONGEST_NAME = 40
_MARGIN = {"l": 46, "r": 8, "t": 8, "b": 44}


def plain(name: str) -> str:
    """A name that somebody else chose, for a title or label: Plotly would draw tags in it, links among them."""
    shown = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    return escape(" ".join(shown.split()), quote=False).replace("$", "&#36;")


def empty_figure(sentence: str, *, height: int) -> go.Figure:
    """A figure that says what to do to fill it."""
    figure = go.Figure()
    figure.add_annotation(text=sentence, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    return laid_out(figure, height=height, revision=sentence, xaxis={"visible": False}, yaxis={"visible": False})


def laid_out(figure: go.Figure, *, height: int, revision: str, xaxis: dict, yaxis: dict) -> go.Figure:
    """The house frame; `revision` keeps a visitor's zoom for as long as it stays the same."""
    plain = {"showgrid": False, "zeroline": False, "fixedrange": False, "automargin": True}
    figure.update_layout(
        template="none",
        height=height,
        margin=_MARGIN,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12, "color": GREY},
        xaxis={**plain, **xaxis},
        yaxis={**plain, **yaxis},
        dragmode=False,  # a finger that scrolls the page must not zoom; the tool bar still does
        uirevision=revision,
        hoverlabel={"font": {"family": "system-ui, sans-serif"}},
        modebar={"remove": ["select2d", "lasso2d", "autoScale2d"], "orientation": "v"},
    )
    return figure
