"""Pure functions from values to Plotly figures.

Text colour comes from the style sheet, so one figure reads in light and in dark. What is removed is grey and
hatched, never told by colour alone. Arrays travel as numpy, which Plotly sends as base64.
"""

from ui.figures.frame import NOT_SCORED, empty_figure
from ui.figures.layer import layer_channels_figure, layer_heads_figure
from ui.figures.maps import (
    NORMALISATIONS,
    Outlines,
    channel_marks,
    channels_figure,
    head_marks,
    heads_figure,
    removed_runs,
)
from ui.figures.pareto import pareto_figure

__all__ = [
    "NORMALISATIONS",
    "NOT_SCORED",
    "Outlines",
    "channel_marks",
    "channels_figure",
    "empty_figure",
    "head_marks",
    "heads_figure",
    "layer_channels_figure",
    "layer_heads_figure",
    "pareto_figure",
    "removed_runs",
]
