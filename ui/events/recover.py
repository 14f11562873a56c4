"""Step 6, continued: recovery training."""

import time
from dataclasses import replace

import gradio as gr

import transact as ta
from ui.context import AppContext
from ui.events.measure import plan_and_text, prompt_text
from ui.events.panels import Panels
from ui.events.runner import explained, long_step, say, watched
from ui.pages import recover
from ui.state.session import BUNDLED, Recovery, Result, Session
from ui.work import recovery
from ui.work.recovery import Form


def connect(context: AppContext, panels: Panels, arrived: gr.events.Dependency) -> None:
    """Wire the form's estimate, which also follows the plan, and the training."""

    def on_form(shots, between, after, rate, loss, own, repair, search, request: gr.Request):
        try:
            session = context.sessions.get(context.visitor(request))
            if session.plan is None:
                return {panels.recover.estimate: ""}
            chosen = recovery.training(session, Form(shots, between, after, rate, loss, own, repair, search))
            found = recovery.estimate(context.registry, session, chosen)
        except ta.TransactError as error:
            return {panels.recover.estimate: recover.refusal(str(error))}
        return {panels.recover.estimate: recover.estimate_line(found)}

    def on_start(measure_on, pasted, prompt, shots, between, after, rate, loss, own, repair, search,
                 request: gr.Request):  # fmt: skip
        owner = context.visitor(request)
        try:
            session, text = plan_and_text(context, owner, measure_on, pasted)
            prompt = prompt_text(prompt)
            chosen = recovery.training(session, Form(shots, between, after, rate, loss, own, repair, search))
        except Exception as error:
            yield explained(panels, error)
            return
        began = time.monotonic()

        def work(watch) -> Result:
            return recovery.recover_and_measure(
                context.registry, session, chosen, text, watch,
                prompt=prompt if prompt.strip() else None, with_probes=session.key == BUNDLED,
            )  # fmt: skip

        def show(found: Recovery) -> dict:
            def change(old: Session) -> Session:
                return replace(old, recovery=found) if old.key == found.scored.key else old

            return recover.paint(panels.recover, context.sessions.update(owner, change))

        def finish(result: Result) -> dict:
            show(result.recovery)
            after = context.sessions.update(owner, lambda old: old.with_result(result))
            how = "cut, trained and measured"
            if result.report is None:
                how = "stopped, with the best so far, not measured"
            note = f"Result {result.number} is ready: {how}, in {time.monotonic() - began:.0f} s."
            return {**panels.repaint_results(after), **panels.repaint_marks(after), **say(panels, note, "good")}

        yield from watched(context, panels, owner, "Recovery", work, finish, partly=show, kind="recover")

    form = [*panels.recover.inputs, panels.measure.repair, panels.measure.search]
    newest = {"trigger_mode": "always_last", "preprocess": False, **panels.light}
    arrived.then(on_form, form, panels.recover.estimate, **newest)
    for control in (*form, panels.status.savings):
        control.change(on_form, form, panels.recover.estimate, **newest)
    given = [panels.measure.measure_on, panels.measure.pasted, panels.measure.prompt, *form]
    long_step(
        context, panels, panels.recover.start.click, on_start, given,
        meanwhile=[panels.recover.note, panels.recover.plot], at_the_end=panels.all, preprocess=False,
    )  # fmt: skip
