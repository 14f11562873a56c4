"""The fields beside the plan are remembered as they change, so that link and code hold them before anything is cut."""

from dataclasses import replace

import gradio as gr

from ui.context import AppContext
from ui.errors import WrongInput
from ui.events.panels import Panels
from ui.events.runner import bound
from ui.pages import takeaway
from ui.state.options import Options


def connect(context: AppContext, panels: Panels) -> None:
    """Wire every field of `Options`."""
    controls, shown = _fields(panels), panels.takeaway
    gr.on(
        [control.change for control in controls], bound(on_options, context, panels), controls,
        [shown.code, shown.commands, shown.link], trigger_mode="always_last", preprocess=False, **panels.light,
    )  # fmt: skip


def on_options(context: AppContext, panels: Panels, request: gr.Request, *values) -> dict:
    owner = context.visitor(request)
    try:
        chosen = Options(*values).checked()
    except WrongInput:  # half typed, or refused where it is used
        chosen = context.sessions.get(owner).options
    session = context.sessions.update(owner, lambda old: replace(old, options=chosen))
    return takeaway.paint_lines(panels.takeaway, session)


def shown_as(panels: Panels, options: Options) -> dict:
    """The fields as the options say."""
    return dict(zip(_fields(panels), vars(options).values(), strict=True))


def _fields(panels: Panels) -> list:
    """In the order of `Options`."""
    cut = panels.cut
    return [cut.repair, cut.search, cut.measure_on, cut.size, *panels.goal.inputs]
