"""The redundancy map: perplexity over a grid of attention × MLP sparsity, drawn as it fills."""

from dataclasses import dataclass
from html import escape

import gradio as gr

from transact.wording import counted
from ui import figures
from ui.format import labels
from ui.state.session import Session

_EMPTY = "Press the button: every point is measured behind masks, nothing is cut"


@dataclass(frozen=True)
class RedundancyPanel:
    draw: gr.Button
    plot: gr.Plot
    note: gr.HTML


def build(session: Session) -> RedundancyPanel:
    with gr.Row(elem_classes="bottom"):
        gr.HTML(
            "<h3>Redundancy map</h3><p>How much of both parts can go before the text suffers? Click a cell to set the "
            "sliders to it.</p>",
            js_on_load=None,
        )
        draw = gr.Button("Draw the map", elem_id="map-button", size="sm", scale=0, min_width=140)
    plot = gr.Plot(show_label=False, elem_id="redundancy-plot", elem_classes="linked")
    note = gr.HTML(note_line(session), elem_id="redundancy-note", js_on_load=None)
    return RedundancyPanel(draw, plot, note)


def paint(panel: RedundancyPanel, session: Session) -> dict:
    return {panel.plot: _plot(session), panel.note: note_line(session)}


PAINTS = {"all": paint, "below": paint, "results": paint}


def note_line(session: Session) -> str:
    """What the map was measured on."""
    grid = session.redundancy
    if grid is None or not grid.points:
        return ""
    return (
        f'<p class="note-line">{len(grid.points)} of {counted(grid.total, "point")}, chosen by '
        f"<b>{escape(labels.metric(grid.metric))}</b> on {escape(grid.scored.text.name)}; perplexity behind masks on "
        f"{counted(grid.num_samples, 'sequence')} of {escape(grid.text.name)}, as a multiple of the dense model's.</p>"
    )


def _plot(session: Session):
    grid = session.redundancy
    if grid is None or not grid.points:
        return figures.empty_figure(_EMPTY, height=160)
    return figures.redundancy_figure(grid.points, session.spec)
