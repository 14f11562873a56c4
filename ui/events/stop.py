"""Stop: the visitor's job is told to end; the library checks for it at every layer, and `Watch` raises `Cancelled`."""

import gradio as gr

from ui.context import AppContext
from ui.events.load_and_score import card_owner
from ui.events.panels import Panels
from ui.events.runner import bound


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the button; what the page says afterwards is up to the job's own event (`runner.watched`)."""
    stop = bound(on_stop, context, panels)
    panels.status.stop.click(stop, None, panels.status.stop, queue=False, **panels.light)


def on_stop(context: AppContext, panels: Panels, request: gr.Request) -> dict:
    # the job itself shows that it stops and has stopped: an answer of this event's could arrive after its last one
    owner = context.visitor(request)
    for job in (owner, card_owner(owner)):
        context.jobs.stop(job)
    return gr.update(interactive=False)
