"""Which tokens a head attends to: a row a query, a column a key."""

from html import escape

import numpy as np
import plotly.graph_objects as go

from ui.figures.frame import COLOUR_BAR, laid_out
from ui.format import numbers

_LEAST_TOP = 0.1
"""The colours end there at least, so that even attention to everything does not look sharp."""
_AROUND, _PER_TOKEN, _LOWEST, _TALLEST = 130, 15, 240, 560
"""Pixels of the figure: beside the cells, of a row, and its limits."""
_LONGEST_TOKEN = 14


def attention_figure(weights: np.ndarray, tokens: tuple[str, ...]) -> go.Figure:
    """The attention of one head: `weights` [query, key], the share of a query's attention that goes to the key."""
    count = len(tokens)
    names = [token_name(token) for token in tokens]
    seen = np.tril(np.ones_like(weights, dtype=bool))
    top = top_of_scale(weights)
    hover = [
        [f"“{names[query]}” gives {numbers.percent(weights[query, key], 1)} of its attention to “{names[key]}”"
         for key in range(count)]
        for query in range(count)
    ]  # fmt: skip
    figure = go.Figure(
        go.Heatmap(
            z=np.where(seen, weights, np.nan).astype(np.float32),
            customdata=np.array(hover, dtype=object),
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            xgap=1,
            ygap=1,
            colorscale="viridis",
            zmin=0,
            zmax=top,
            colorbar={
                **COLOUR_BAR,
                "title": {"text": f"share of attention (to {numbers.percent(top)})", "side": "right"},
                "tickformat": ".0%",
            },
        )
    )
    ticks = {"tickmode": "array", "tickvals": list(range(count)), "ticktext": names}
    return laid_out(
        figure,
        height=min(_TALLEST, max(_LOWEST, _AROUND + _PER_TOKEN * count)),
        revision=f"attention {count}",
        xaxis={"title": "attends to (key)", "tickangle": -60, "range": [-0.5, count - 0.5], **ticks},
        yaxis={"title": "token (query)", "range": [count - 0.5, -0.5], **ticks},
    )


def top_of_scale(weights: np.ndarray) -> float:
    """Where the colours end: the highest share that does not go to the first token.

    Many heads rest on the first token with nearly all they have, beside which nothing else would be seen.
    """
    others = np.tril(weights)[1:, 1:]
    return float(max(others.max(initial=0.0), _LEAST_TOP))


def token_name(token: str) -> str:
    """A token as a label: line breaks and spaces are tokens as well. Plotly would draw tags in it."""
    shown = token.strip() or token.replace("\n", "↵").replace(" ", "␣") or "∅"
    shown = shown if len(shown) <= _LONGEST_TOKEN else f"{shown[: _LONGEST_TOKEN - 1]}…"
    return escape(shown, quote=False).replace("$", "&#36;")
