"""Step 6, continued: train back what the cut has lost, in shots or after one."""

from dataclasses import dataclass
from html import escape

import gradio as gr

from ui import figures
from ui.format import numbers
from ui.server import limits
from ui.state.session import Session
from ui.work.recovery import SEQUENCES, Estimate

_EMPTY = "Press the button: loss and perplexity are drawn as they come"
_LOSSES = [("What the dense model predicts (distillation)", "distillation"), ("The text itself", "language_model")]
_TEXTS = [("What the dense model writes by itself", True), ("The calibration text", False)]


@dataclass(frozen=True)
class RecoverPanel:
    shots: gr.Slider
    shot_tokens: gr.Number
    recovery_tokens: gr.Number
    learning_rate: gr.Number
    loss: gr.Radio
    own_text: gr.Radio
    estimate: gr.HTML
    start: gr.Button
    plot: gr.Plot
    note: gr.HTML

    @property
    def inputs(self) -> list:
        return [self.shots, self.shot_tokens, self.recovery_tokens, self.learning_rate, self.loss, self.own_text]


def build(session: Session) -> RecoverPanel:
    gr.HTML(
        "<h3>Train back what was lost (recovery)</h3><p>Cuts as the controls above say, with the repair chosen there, "
        "in one shot or several, and trains after each. Weights change; their number does not.</p>",
        js_on_load=None,
    )
    with gr.Row(elem_classes="bottom"):
        shots = gr.Slider(
            1, limits.MAX_SHOTS, value=1, step=1, label="Shots", info="Cuts, each scored on the model as it is then",
            buttons=[], elem_id="recover-shots",
        )  # fmt: skip
        shot_tokens = gr.Number(
            0, label="Tokens between the shots", precision=0, elem_id="recover-shot-tokens", min_width=150
        )
        recovery_tokens = gr.Number(
            60_000, label="Tokens after the last shot", precision=0, elem_id="recover-tokens", min_width=150
        )
        learning_rate = gr.Number(0.001, label="Learning rate (peak)", elem_id="recover-rate", min_width=130)
    with gr.Row():
        loss = gr.Radio(_LOSSES, value="distillation", label="Learn (loss)", elem_id="recover-loss")
        own_text = gr.Radio(_TEXTS, value=True, label="Train on", elem_id="recover-text")
    with gr.Row(elem_classes="bottom"):
        estimate = gr.HTML("", elem_id="recover-estimate", js_on_load=None)
        start = gr.Button("Cut and train", elem_id="recover-button", size="sm", scale=0, min_width=140)
    plot = gr.Plot(show_label=False, elem_id="recover-plot")
    note = gr.HTML(note_line(session), elem_id="recover-note", js_on_load=None)
    return RecoverPanel(
        shots, shot_tokens, recovery_tokens, learning_rate, loss, own_text, estimate, start, plot, note
    )  # fmt: skip


def paint(panel: RecoverPanel, session: Session) -> dict:
    return {panel.plot: _plot(session), panel.note: note_line(session)}


PAINTS = {"all": paint, "below": paint, "results": paint}


def estimate_line(estimate: Estimate) -> str:
    """What pressing the button will take, before it is pressed."""
    time = "" if estimate.seconds is None else f", about {numbers.duration(estimate.seconds)} of training here"
    return (
        f'<p class="estimate">{estimate.tokens:,} tokens{time}, {numbers.size(estimate.bytes)} of memory; beside it '
        "the cut, text that the model writes, and the measuring</p>"
    )


def note_line(session: Session) -> str:
    """What the curves stand for."""
    recovery = session.recovery
    if recovery is None or not recovery.points:
        return ""
    speeds = [point.tokens_per_second for point in recovery.points if point.tokens_per_second]
    speed = f" {speeds[-1]:,.0f} tokens per second." if speeds else ""
    stopped = " Stopped: what was best until then was kept." if recovery.stopped else ""
    return (
        f'<p class="note-line">Perplexity on {SEQUENCES} sequences at most of {escape(recovery.text.name)}; of the '
        f"training after the last shot the weights with the lowest one are kept.{speed}{stopped}</p>"
    )


def _plot(session: Session):
    recovery = session.recovery
    if recovery is None or not recovery.points:
        return figures.empty_figure(_EMPTY, height=160)
    return figures.recovery_figure(recovery.points, recovery.one_shot)
