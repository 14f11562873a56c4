"""The short way: a size and a time."""

import time
from collections.abc import Callable
from dataclasses import replace

import gradio as gr

import transact as ta
from ui.context import AppContext
from ui.events import texts
from ui.events.measure import MEASURED, Asked, with_result
from ui.events.panels import Panels
from ui.events.runner import bound, explained, long_step, watched
from ui.pages import goal
from ui.pages.cut import MeasureForm
from ui.state.session import Result
from ui.views import progress_line
from ui.work import compression


def connect(context: AppContext, panels: Panels) -> None:
    """Wire what is expected, which also follows the scores, and the work."""
    own = panels.goal
    for control in (*own.inputs, panels.cut.savings):
        _expected_on(context, panels, control.change)
    inputs = [panels.measure.prompt, *panels.cut.measured_on, *own.inputs]
    shown = [own.advice, own.frontier, own.expected]
    probed = long_step(context, panels, own.probe.click, on_probe, None, at_the_end=shown)
    _expected_on(context, panels, probed.then)
    long_step(context, panels, own.go.click, on_go, inputs, at_the_end=panels.all, preprocess=False)


def expected_after(context: AppContext, panels: Panels, event: gr.events.Dependency) -> None:
    """Show what the form leads to once that event is over."""
    _expected_on(context, panels, event.then)


def _expected_on(context: AppContext, panels: Panels, listener: Callable[..., gr.events.Dependency]) -> None:
    own, newest = panels.goal, {"trigger_mode": "always_last", "preprocess": False, **panels.light}
    listener(bound(on_form, context, panels), own.inputs, own.expected, **newest)


def on_form(context: AppContext, panels: Panels, request: gr.Request, *values) -> dict:
    try:
        session = context.sessions.get(context.visitor(request))
        if session.scored is None:
            return {panels.goal.expected: ""}
        aim = compression.goal(session, *values)
        expected = compression.expected(context.registry, session, aim)
        predicted = compression.predicted(session, aim, expected)
    except ta.TransactError as error:
        return {panels.goal.expected: progress_line.refusal(str(error))}
    return {panels.goal.expected: goal.expected_line(expected, predicted)}


def on_probe(context: AppContext, panels: Panels, request: gr.Request):
    owner = context.visitor(request)
    try:
        session = context.sessions.get(owner)
        session.need_scored()
    except Exception as error:
        yield explained(panels, error)
        return

    def finish(probed) -> dict:
        return goal.paint(panels.goal, context.sessions.update(owner, lambda old: replace(old, probed=probed)))

    yield from watched(
        context, panels, owner, "Probing",
        lambda watch: compression.probe(context.registry, session, watch), finish, kind="probe",
    )  # fmt: skip


def on_go(context: AppContext, panels: Panels, prompt, request: gr.Request, *values):
    owner = context.visitor(request)
    try:
        session = context.sessions.get(owner)
        asked = Asked.of(MeasureForm(*values[:MEASURED]), session.need_scored(), prompt)
        aim = compression.goal(session, *values[MEASURED:])
        compression.expected(context.registry, session, aim)  # refuses a size that cannot be reached
    except Exception as error:
        yield explained(panels, error)
        return
    text = yield from texts.in_hand(context, panels, owner, asked.text)
    if text is None:
        return
    began = time.monotonic()

    def work(watch) -> Result:
        return compression.compress_and_measure(context.registry, session, aim, text, watch, **asked.how)

    def finish(result: Result) -> dict:
        return with_result(context, panels, owner, result, f"made and measured in {time.monotonic() - began:.0f} s")

    yield from watched(context, panels, owner, "Compressing", work, finish, kind="compress")
