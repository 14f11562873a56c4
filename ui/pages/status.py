"""The bar that never scrolls away: what is in view, what is going on, and Stop."""

from dataclasses import dataclass
from html import escape

import gradio as gr

from ui.format import numbers
from ui.format.theme import ASSETS
from ui.state.session import Session
from ui.views import progress_line

TITLE = "TransAct Explorer"


@dataclass(frozen=True)
class StatusPanel:
    subject: gr.HTML
    message: gr.HTML
    progress: gr.HTML
    stop: gr.Button


def build(session: Session) -> StatusPanel:
    with gr.Column(elem_id="status"):
        with gr.Row(elem_id="activity"):
            subject = gr.HTML(subject_line(session), elem_id="title", js_on_load=None)
            progress = gr.HTML(progress_line.idle(), elem_id="progress", js_on_load=None)
            stop = gr.Button("Stop", elem_id="stop-button", size="sm", interactive=False, min_width=64, scale=0)
        message = gr.HTML("", elem_id="message", js_on_load=None)
    return StatusPanel(subject, message, progress, stop)


def paint(panel: StatusPanel, session: Session) -> dict:
    return {panel.subject: subject_line(session)}


PAINTS = {"all": paint, "plan": paint}


def subject_line(session: Session) -> str:
    """The model and the text in view."""
    logo = (ASSETS / "logo.svg").read_text(encoding="utf-8")
    if session.spec is None:
        shown = "no model is loaded"
    else:
        name = session.key.name + ("" if session.key.has_weights else " without its weights")
        text = "not scored yet"
        if session.scored is not None:
            text = f"scored on {'a part of ' if session.scored.is_part else ''}{session.scored.text.name}"
        shown = f"{name}, {numbers.count(session.spec.num_parameters)} parameters · {text}"
    return f"<header>{logo}<div><h1>{TITLE}</h1><p>{escape(shown)}</p></div></header>"
