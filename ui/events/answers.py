"""Whose answers are shown, and to what."""

import gradio as gr

from ui.context import AppContext
from ui.events.panels import Panels, parts
from ui.events.runner import bound, quick
from ui.pages import answers


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the two choices."""
    own = panels.answers
    chosen = [own.of, own.kind]
    shown = [*parts(own), panels.status.message]
    gr.on([each.input for each in chosen], bound(on_choice, context, panels), chosen, shown, **panels.light)


def on_choice(context: AppContext, panels: Panels, of, kind, request: gr.Request) -> dict:
    session = context.sessions.get(context.visitor(request))
    number = of if isinstance(of, int) else None
    return quick(
        panels, lambda: answers.paint(panels.answers, session, number, kind if isinstance(kind, str) else None)
    )
