"""Two calibration texts side by side: which units each of them uses, and how far the choice depends on it."""

from dataclasses import dataclass
from html import escape

import gradio as gr
import numpy as np

import transact as ta
from ui import figures
from ui.format import labels
from ui.state.session import Session
from ui.text_sources import text_source

_EMPTY = "Choose a second text and score it: what differs will stand here"


@dataclass(frozen=True)
class ContrastPanel:
    source: gr.Dropdown
    score: gr.Button
    summary: gr.HTML
    heads: gr.Plot
    channels: gr.Plot
    correlation: gr.Plot
    overlap: gr.Plot

    @property
    def plots(self) -> tuple[gr.Plot, ...]:
        return self.heads, self.channels, self.correlation, self.overlap


def build(session: Session) -> ContrastPanel:
    with gr.Row(elem_classes="bottom"):
        source = gr.Dropdown(
            [(label, name) for name, label in text_source.SAMPLES.items()],
            value="addition",
            label="Second calibration text",
            info="Read with the same settings as the first",
            elem_id="second-select",
            scale=3,
        )
        score = gr.Button("Score the second text", elem_id="second-button", scale=1, min_width=160)
    summary = gr.HTML(summary_line(session), elem_id="contrast-summary", js_on_load=None)
    plots = _plots(session)
    drawn = []
    for row in (("difference-heads", "difference-channels"), ("correlation-plot", "overlap-plot")):
        with gr.Row():
            for scale, name in zip((4, 5), row, strict=True):
                with gr.Column(scale=scale, min_width=320):
                    drawn.append(
                        gr.Plot(plots[len(drawn)], show_label=False, elem_id=name, elem_classes=_classes(name))
                    )
    return ContrastPanel(source, score, summary, *drawn)


def paint(panel: ContrastPanel, session: Session) -> dict:
    return {panel.summary: summary_line(session), **dict(zip(panel.plots, _plots(session), strict=True))}


PAINTS = {"all": paint, "plan": paint}


def summary_line(session: Session) -> str:
    """The two texts in one sentence."""
    compared = _comparison(session)
    if compared is None:
        return ""
    heads, channels = float(np.mean(compared.head_correlations)), float(np.mean(compared.channel_correlations))
    return (
        f'<p class="note-line"><b>{escape(session.second.text.name)}</b> against '
        f"<b>{escape(session.scored.text.name)}</b>, by {escape(labels.metric(session.choice.metric))}: the "
        f"ranking of heads agrees to <b>{heads:.2f}</b> and that of channels to <b>{channels:.2f}</b> (Spearman's rank "
        "correlation, mean over the layers; 1 is the same order, 0 none in common).</p>"
    )


def _classes(name: str) -> str | None:
    """Clicks select a unit where the figure shows units or layers."""
    return None if name == "overlap-plot" else "linked"


def _comparison(session: Session) -> ta.CalibrationComparison | None:
    metric = session.choice.metric
    if session.second is None or session.scored is None or metric not in session.second.scores:
        return None
    return ta.compare_calibrations(session.scored.scores[metric], session.second.scores[metric])


def _plots(session: Session):
    compared = _comparison(session)
    if compared is None:
        return (figures.empty_figure(_EMPTY, height=160),) * 4
    landscape = session.scored.landscape(session.choice.metric)
    names = (session.scored.text.name, session.second.text.name)
    return (
        figures.head_differences_figure(compared, names),
        figures.channel_differences_figure(compared, landscape, names),
        figures.correlation_figure(compared),
        figures.overlap_figure(compared),
    )
