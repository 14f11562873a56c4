"""Two calibration texts side by side: which units each of them uses, and how far the choice depends on it."""

from dataclasses import dataclass
from html import escape

import gradio as gr
import numpy as np

import transact as ta
from transact.wording import counted
from ui import figures
from ui.format import labels, numbers
from ui.state.session import Scored, Session
from ui.text_sources import text_source
from ui.views.result_table import row, scrolled_table

_EMPTY = "Choose a second text and score it: what differs will stand here"


@dataclass(frozen=True)
class ContrastPanel:
    source: gr.Dropdown
    score: gr.Button
    summary: gr.HTML
    unit: gr.HTML
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
    unit = gr.HTML(unit_line(session), elem_id="contrast-unit", js_on_load=None)
    plots = _plots(session)
    drawn = []
    for pair in (("difference-heads", "difference-channels"), ("correlation-plot", "overlap-plot")):
        with gr.Row():
            for scale, name in zip((4, 5), pair, strict=True):
                with gr.Column(scale=scale, min_width=320):
                    drawn.append(
                        gr.Plot(plots[len(drawn)], show_label=False, elem_id=name, elem_classes=_classes(name))
                    )
    return ContrastPanel(source, score, summary, unit, *drawn)


def paint(panel: ContrastPanel, session: Session) -> dict:
    return {
        panel.summary: summary_line(session),
        **paint_unit(panel, session),
        **dict(zip(panel.plots, _plots(session), strict=True)),
    }


def paint_unit(panel: ContrastPanel, session: Session) -> dict:
    return {panel.unit: unit_line(session)}


PAINTS = {"all": paint, "plan": paint, "selection": paint_unit}


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


def unit_line(session: Session) -> str:
    """What the selected unit does on each of the two texts."""
    unit = session.view.selection
    if _comparison(session) is None:
        return ""
    if unit.head is None and not unit.channels:
        return '<p class="empty">Click a head or a channel: what it does on each text will stand here.</p>'
    name = f"head {unit.head}" if unit.head is not None else f"channel {unit.channels[0]}"
    rows = "".join(_of_text(scored, session) for scored in (session.scored, session.second))
    return scrolled_table(
        "This unit on two texts",
        (f"Layer {unit.layer}, {name}", "Score", "Rank in its layer", "Size of its activation"),
        [rows],
    )


def _of_text(scored: Scored, session: Session) -> str:
    """One text's row. The size is the root of the mean square over tokens, which does not grow with the text."""
    unit, scores = session.view.selection, scored.scores[session.choice.metric]
    statistics = scored.statistics
    if unit.head is not None:
        place, all_scores = unit.head, scores.heads[unit.layer]
        width = len(scores.attention_channels[unit.layer][unit.head])
        squares = statistics.attention[unit.layer].square_sums.reshape(-1, width)[unit.head].sum()
    else:
        place, all_scores = unit.channels[0], scores.mlp_channels[unit.layer]
        squares = statistics.mlp[unit.layer].square_sums[place]
    rank = 1 + int((all_scores > all_scores[place]).sum())
    return row(
        scored.text.name, counted(scored.num_tokens, "token"), numbers.figure(float(all_scores[place])),
        f"{rank:,} of {len(all_scores):,}", numbers.figure(float(squares / statistics.num_tokens) ** 0.5),
    )  # fmt: skip


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
