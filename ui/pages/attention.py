"""What does this head attend to? Its attention on a sentence, as a map of tokens."""

from dataclasses import dataclass
from html import escape

import gradio as gr
import numpy as np

from transact.wording import counted
from ui import figures
from ui.format import numbers
from ui.state.session import BUNDLED, Attention, Session

_OF_STORIES = "Once upon a time there was a little fox. The fox met a crow and she sang to it."
_OF_ANY = "The keys that the man left on the old table were gone when he came back for them."
_CHOOSE = "Click a head in a map: which tokens it attends to will stand here"


@dataclass(frozen=True)
class AttentionPanel:
    text: gr.Textbox
    summary: gr.HTML
    plot: gr.Plot


def build(session: Session) -> AttentionPanel:
    text = gr.Textbox(
        default_text(session), label="Sentence", info="Enter shows it; the first 40 tokens are read", max_lines=3,
        elem_id="attention-text",
    )  # fmt: skip
    summary = gr.HTML(summary_line(session), elem_id="attention-summary", js_on_load=None)
    plot = gr.Plot(_plot(session), show_label=False, elem_id="attention-plot")
    return AttentionPanel(text, summary, plot)


def paint(panel: AttentionPanel, session: Session) -> dict:
    """Also the sentence, where it is one for another model."""
    text = gr.skip() if current(session) else default_text(session)
    return {panel.text: text, **paint_head(panel, session)}


def paint_head(panel: AttentionPanel, session: Session) -> dict:
    return {panel.summary: summary_line(session), panel.plot: _plot(session)}


PAINTS = {"all": paint, "selection": paint_head}


def paint_reason(panel: AttentionPanel, sentence: str) -> dict:
    """Why nothing is shown."""
    return {
        panel.summary: f'<p class="empty">{escape(sentence)}</p>',
        panel.plot: figures.empty_figure("Nothing is shown", height=60),
    }


def default_text(session: Session) -> str:
    """A sentence of the kind that the model was trained on."""
    return _OF_STORIES if session.key == BUNDLED else _OF_ANY


def current(session: Session) -> Attention | None:
    """The patterns that are there of the model in view."""
    return session.attention if session.attention is not None and session.attention.key == session.key else None


def summary_line(session: Session) -> str:
    """Where the head's attention goes in plain words: to the first token, the one before, and the token itself."""
    weights = _weights(session)
    if weights is None:
        return ""
    count, unit = len(weights), session.view.selection
    if count < 3:
        return '<p class="note-line">A longer sentence says more: this one has no more than two tokens.</p>'
    rows = np.arange(2, count)  # the second token's one before is the first
    first, before, itself = (float(weights[rows, columns].mean()) for columns in (0, rows - 1, rows))
    return (
        f'<p class="note-line">Layer {unit.layer}, <b>head {unit.head}</b>, on {counted(count, "token")}: of its '
        f"attention <b>{numbers.percent(first)}</b> goes to the first token, <b>{numbers.percent(before)}</b> to the "
        f"token before, <b>{numbers.percent(itself)}</b> to the token itself (mean over the rows from the third on). A "
        "row is the token that looks (query), a column what it looks at (key); nothing looks ahead.</p>"
    )


def _weights(session: Session) -> np.ndarray | None:
    """[query, key] of the selected head."""
    unit, attention = session.view.selection, current(session)
    if unit.head is None or attention is None:
        return None
    return attention.patterns.layers[unit.layer][unit.head].numpy()


def _plot(session: Session):
    weights = _weights(session)
    if weights is None:
        return figures.empty_figure(_CHOOSE, height=120)
    return figures.attention_figure(weights, session.attention.patterns.tokens)
