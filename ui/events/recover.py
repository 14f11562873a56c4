"""Step 6, continued: recovery training."""

import time
from collections.abc import Callable
from dataclasses import replace

import gradio as gr
from gradio.components import Component

import transact as ta
from ui.context import AppContext
from ui.events import texts
from ui.events.measure import MEASURED, Asked
from ui.events.panels import Panels
from ui.events.runner import bound, explained, long_step, say, watched
from ui.pages import recover
from ui.pages.cut import MeasureForm
from ui.state.session import Recovery, Result, Session
from ui.views import progress_line
from ui.work import job_steps, recovery
from ui.work.recovery import Form


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the form's estimate, which also follows the plan, and the training."""
    form = _form(panels)
    for control in (*form, panels.cut.savings):
        _estimate_on(context, panels, control.change)
    inputs = [panels.measure.prompt, *panels.cut.measured_on, *form]
    long_step(
        context, panels, panels.recover.start.click, on_start, inputs,
        meanwhile=[panels.recover.note, panels.recover.plot], at_the_end=panels.all, preprocess=False,
    )  # fmt: skip


def estimate_after(context: AppContext, panels: Panels, event: gr.events.Dependency) -> None:
    """Show the form's estimate once that event is over."""
    _estimate_on(context, panels, event.then)


def on_form(context: AppContext, panels: Panels, request: gr.Request, *values) -> dict:
    try:
        session = context.sessions.get(context.visitor(request))
        if session.plan is None:
            return {panels.recover.estimate: ""}
        estimate = recovery.estimate(context.registry, session, recovery.training(session, Form(*values)))
    except ta.TransactError as error:
        return {panels.recover.estimate: progress_line.refusal(str(error))}
    return {panels.recover.estimate: recover.estimate_line(estimate)}


def on_start(context: AppContext, panels: Panels, prompt, request: gr.Request, *values):
    owner = context.visitor(request)
    try:
        session = context.sessions.get(owner)
        session.need_plan()
        asked = Asked.of(MeasureForm(*values[:MEASURED]), session.need_scored(), prompt)
        training = recovery.training(session, Form(*values[MEASURED:]))
    except Exception as error:
        yield explained(panels, error)
        return
    text = yield from texts.in_hand(context, panels, owner, asked.text)
    if text is None:
        return
    began = time.monotonic()

    def work(watch) -> Result:
        return recovery.recover_and_measure(context.registry, session, training, text, watch, **asked.how)

    def show(curves: Recovery) -> dict:
        def change(old: Session) -> Session:
            return replace(old, recovery=curves) if old.key == curves.scored.key else old

        return recover.paint(panels.recover, context.sessions.update(owner, change))

    def finish(result: Result) -> dict:
        show(result.recovery)
        after = context.sessions.update(owner, lambda old: old.with_result(result))
        how = "cut, trained and measured"
        if result.report is None:
            how = "stopped, with the best so far, not measured"
        note = f"Result {result.number} is ready: {how}, in {time.monotonic() - began:.0f} s."
        return {**panels.repaint(after, "results"), **panels.repaint(after, "marks"), **say(panels, note, "good")}

    steps = [
        *job_steps.training(context.registry, session, training),
        *job_steps.measuring(context.registry, session.scored, text, **asked.wanted),
    ]
    yield from watched(context, panels, owner, "Recovery", work, finish, partly=show, kind="recover", steps=steps)


def _form(panels: Panels) -> list[Component]:
    """What training depends on, in the order of `Form`."""
    return [*panels.recover.inputs, panels.cut.repair, panels.cut.search]


def _estimate_on(context: AppContext, panels: Panels, listener: Callable[..., gr.events.Dependency]) -> None:
    handler = bound(on_form, context, panels)
    newest = {"trigger_mode": "always_last", "preprocess": False, **panels.light}
    listener(handler, _form(panels), panels.recover.estimate, **newest)
