"""The strip that never scrolls away: savings, what is going on, and the three actions on the plan."""

from dataclasses import dataclass

import gradio as gr

from ui.state.session import Session
from ui.views import progress_line, savings


@dataclass(frozen=True)
class StatusPanel:
    savings: gr.HTML
    message: gr.HTML
    progress: gr.HTML
    stop: gr.Button
    try_button: gr.Button
    prune: gr.Button


def build(session: Session) -> StatusPanel:
    with gr.Column(elem_id="status"):
        strip = gr.HTML(savings.strip(session.plan), elem_id="savings", js_on_load=None)
        with gr.Row(elem_id="activity"):
            progress = gr.HTML(progress_line.idle(), elem_id="progress", js_on_load=None)
            stop = gr.Button("Stop", elem_id="stop-button", size="sm", interactive=False, min_width=64, scale=0)
            try_button = gr.Button("Try, cut nothing", elem_id="try-button", size="sm", min_width=120, scale=0)
            prune = gr.Button(
                "Prune and measure", elem_id="prune-button", size="sm", variant="primary", min_width=140, scale=0
            )
        message = gr.HTML("", elem_id="message", js_on_load=None)
    return StatusPanel(strip, message, progress, stop, try_button, prune)


def paint(panel: StatusPanel, session: Session) -> dict:
    return {panel.savings: savings.strip(session.plan)}


PAINTS = {"all": paint, "marks": paint, "plan": paint}
