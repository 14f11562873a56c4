"""Standard tasks, run on the latest result beside the dense model."""

from dataclasses import replace

import gradio as gr

from ui.context import AppContext
from ui.events.panels import Panels
from ui.events.runner import explained, long_step, say, watched
from ui.pages import tasks
from ui.state.session import TasksRun
from ui.work import tasks as work


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the button."""
    own = panels.tasks
    long_step(
        context, panels, own.start.click, on_run, [own.names, own.documents], at_the_end=[own.table], preprocess=False
    )


def on_run(context: AppContext, panels: Panels, names, documents, request: gr.Request):
    owner = context.visitor(request)
    try:
        chosen, count = work.checked(names, documents)
        result = context.sessions.get(owner).need_result()
    except Exception as error:
        yield explained(panels, error)
        return

    def finish(run: TasksRun) -> dict:
        session = context.sessions.update(owner, lambda old: replace(old, tasks=run))
        return {**tasks.paint(panels.tasks, session), **say(panels, "The tasks are answered.", "good")}

    yield from watched(
        context, panels, owner, "Standard tasks",
        lambda watch: work.run(context.registry, owner, result, chosen, count, watch), finish, kind="tasks",
    )  # fmt: skip
