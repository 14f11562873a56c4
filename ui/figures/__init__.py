"""Pure functions from values to Plotly figures.

Text colour comes from the style sheet, so one figure reads in light and in dark. What is removed is grey and
hatched, never marked by colour alone. Arrays travel as numpy, which Plotly sends as base64.
"""

from ui.figures.attention import attention_figure
from ui.figures.contrast import (
    channel_differences_figure,
    correlation_figure,
    head_differences_figure,
    overlap_figure,
)
from ui.figures.frame import NOT_SCORED, empty_figure
from ui.figures.frontier import frontier_figure
from ui.figures.layer import (
    cumulative_shares,
    distribution_figure,
    head_channels_figure,
    layer_channels_figure,
    layer_heads_figure,
)
from ui.figures.maps import NORMALISATIONS, channels_figure, heads_figure
from ui.figures.overlay import Overlay, channels_overlay, heads_overlay, removed_runs
from ui.figures.pareto import Point, pareto_figure, pareto_front, sweep_figure
from ui.figures.probes import probes_figure
from ui.figures.recovery import recovery_figure
from ui.figures.redundancy import redundancy_cell, redundancy_figure
from ui.figures.trust import agreement_figure, stability_figure

__all__ = [
    "NORMALISATIONS",
    "NOT_SCORED",
    "Overlay",
    "Point",
    "agreement_figure",
    "attention_figure",
    "channel_differences_figure",
    "channels_figure",
    "channels_overlay",
    "correlation_figure",
    "cumulative_shares",
    "distribution_figure",
    "empty_figure",
    "frontier_figure",
    "head_channels_figure",
    "head_differences_figure",
    "heads_figure",
    "heads_overlay",
    "layer_channels_figure",
    "layer_heads_figure",
    "overlap_figure",
    "pareto_figure",
    "pareto_front",
    "probes_figure",
    "recovery_figure",
    "redundancy_cell",
    "redundancy_figure",
    "removed_runs",
    "stability_figure",
    "sweep_figure",
]
