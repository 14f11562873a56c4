"""The strip that never scrolls away: savings, the message line, progress and Stop."""

from dataclasses import dataclass

import gradio as gr

from ui import activity, savings
from ui.session import Session


@dataclass(frozen=True)
class StatusPanel:
    savings: gr.HTML
    message: gr.HTML
    progress: gr.HTML
    stop: gr.Button


def build(session: Session) -> StatusPanel:
    with gr.Column(elem_id="status"):
        strip = gr.HTML(savings.strip(session.plan), elem_id="savings", js_on_load=None)
        with gr.Row(elem_id="activity"):
            progress = gr.HTML(activity.idle(), elem_id="progress", js_on_load=None)
            stop = gr.Button("Stop", elem_id="stop-button", size="sm", interactive=False, min_width=64, scale=0)
        message = gr.HTML("", elem_id="message", js_on_load=None)
    return StatusPanel(strip, message, progress, stop)


def paint(panel: StatusPanel, session: Session) -> dict:
    return {panel.savings: savings.strip(session.plan)}
