"""Steps 5 and 6: try behind masks, prune, measure, generate."""

import time
from dataclasses import dataclass, replace

import gradio as gr

import transact as ta
from ui.context import AppContext
from ui.events.panels import Panels, parts
from ui.events.runner import explained, long_step, say, watched
from ui.pages import answers, cut, measure
from ui.server import limits
from ui.state.session import BUNDLED, Result, Session, Tried
from ui.text_sources import text_source
from ui.text_sources.text_source import TextSource
from ui.views.verdict import mood_of, verdict
from ui.work import job_steps, measuring, pruning
from ui.work.measuring import WhatIf

_SHOW = """() => {{
  if (document.querySelector("#message .wrong")) return;
  document.getElementById("part-results-button")?.click();
  document.querySelector("{0} .headline")?.scrollIntoView({{block: "nearest"}});
}}"""
"""Opens the results, unless something went wrong."""
_SHOW_TRIED, _SHOW_RESULT = _SHOW.format("#tried"), _SHOW.format("#result-table")


@dataclass(frozen=True)
class PruneForm:
    """What stands in the fields, as the page sends it; nothing is checked yet."""

    measure_on: str
    pasted: str | None
    repair: str
    search: bool | None
    prompt: str | None


def connect(context: AppContext, panels: Panels) -> None:
    """Wire trying, cutting and writing."""
    panel, cut = panels.measure, panels.cut
    cut.repair.change(on_repair, cut.repair, cut.search, **panels.light)
    cut.measure_on.change(on_measure_text, cut.measure_on, cut.pasted, **panels.light)
    inputs = [cut.measure_on, cut.pasted, panel.prompt]
    at_the_end = [*parts(panel), *parts(panels.answers), cut.verdict]
    tried = long_step(context, panels, cut.try_button.click, on_try, inputs, at_the_end=at_the_end)
    tried.success(None, js=_SHOW_TRIED)
    measured = long_step(context, panels, cut.measure.click, on_measure, inputs, at_the_end=panels.all)
    measured.success(None, js=_SHOW_RESULT)
    inputs = [cut.measure_on, cut.pasted, cut.repair, cut.search, panel.prompt]  # as in `PruneForm`
    pruned = long_step(context, panels, cut.prune.click, on_prune, inputs, at_the_end=panels.all)
    pruned.success(None, js=_SHOW_RESULT)
    long_step(context, panels, panel.generate.click, on_generate, panel.prompt, at_the_end=[panel.dense, panel.pruned])


def on_try(context: AppContext, panels: Panels, measure_on, pasted, prompt, request: gr.Request):
    owner = context.visitor(request)
    try:
        session, text = plan_and_text(context, owner, measure_on, pasted)
        prompt = prompt_text(prompt)
    except Exception as error:
        yield explained(panels, error)
        return

    def finish(what_if: WhatIf) -> dict:
        tried = Tried(session.need_plan(), what_if.text, what_if.dense, what_if.masked, what_if.answers)
        after = context.sessions.update(owner, lambda old: replace(old, tried=tried))
        shown = {**measure.paint_tried(panels.measure, what_if), **answers.paint(panels.answers, after, answers.TRIED)}
        return {**shown, panels.cut.verdict: verdict(after)}

    yield from watched(
        context, panels, owner, "Trying behind masks",
        lambda watch: measuring.what_if(
            context.registry, session, text, watch, prompt=prompt, with_probes=session.key == BUNDLED
        ),
        finish, kind="try", steps=job_steps.trying(context.registry, session.scored, text, **_wanted(session, prompt)),
    )  # fmt: skip


def on_prune(context: AppContext, panels: Panels, request: gr.Request, *values):
    owner, form = context.visitor(request), PruneForm(*values)
    try:
        session, text = plan_and_text(context, owner, form.measure_on, form.pasted)
        prompt = prompt_text(form.prompt)
        limits.one_of("repair", form.repair, ta.COMPENSATIONS)
    except Exception as error:
        yield explained(panels, error)
        return
    began = time.monotonic()

    def work(watch) -> Result:
        result = pruning.cut(context.registry, session, form.repair, watch, search=bool(form.search))
        return measuring.measure_unless_stopped(
            context.registry, owner, result, text, watch,
            prompt=prompt if prompt.strip() else None, with_probes=session.key == BUNDLED,
        )  # fmt: skip

    def finish(result: Result) -> dict:
        seconds = time.monotonic() - began
        return with_result(context, panels, owner, result, f"cut and measured in {seconds:.0f} s")

    steps = [
        *job_steps.cutting(context.registry, session, form.repair, search=bool(form.search)),
        *job_steps.measuring(context.registry, session.scored, text, **_wanted(session, prompt)),
    ]
    yield from watched(context, panels, owner, "Pruning", work, finish, kind="prune", steps=steps)


def on_measure(context: AppContext, panels: Panels, measure_on, pasted, prompt, request: gr.Request):
    owner = context.visitor(request)
    try:
        session = context.sessions.get(owner)
        result = session.need_result()
        text, prompt = evaluation_text(measure_on, pasted), prompt_text(prompt)
    except Exception as error:
        yield explained(panels, error)
        return
    began = time.monotonic()

    def finish(measured: Result) -> dict:
        seconds = time.monotonic() - began
        return with_result(context, panels, owner, measured, f"measured on {text.name} in {seconds:.0f} s")

    yield from watched(
        context, panels, owner, f"Measuring on {text.name}",
        lambda watch: measuring.measure(
            context.registry, owner, result, text, watch,
            prompt=prompt if prompt.strip() else None, with_probes=session.key == BUNDLED,
        ),
        finish, kind="measure",
        steps=job_steps.measuring(context.registry, result.scored, text, **_wanted(session, prompt)),
    )  # fmt: skip


def with_result(context: AppContext, panels: Panels, owner: str, result: Result, how: str) -> dict:
    """The page with a result that was made or measured; `how`, for the message."""
    after = context.sessions.update(owner, lambda old: old.with_result(result))
    if result.report is None:
        note, mood = f"Result {result.number} is ready: stopped, with the best so far, not measured.", "plain"
    else:
        note = f"Result {result.number} is ready: {how}."
        mood = mood_of(result.report.reference_perplexity, result.report.perplexity)
    return {**panels.repaint(after, "results"), **panels.repaint(after, "marks"), **say(panels, note, mood)}


def on_generate(context: AppContext, panels: Panels, prompt, request: gr.Request):
    owner = context.visitor(request)
    try:
        session = context.sessions.get(owner)
        prompt = prompt_text(prompt)
    except Exception as error:
        yield explained(panels, error)
        return
    yield from watched(
        context, panels, owner, "Writing",
        lambda watch: measuring.generate(context.registry, session, prompt, watch),
        lambda written: {panels.measure.dense: written[0], panels.measure.pruned: written[1] or ""},
        kind="generate",
    )  # fmt: skip


def on_measure_text(measure_on) -> dict:
    return gr.update(visible=measure_on == cut.PASTE)


def on_repair(repair) -> dict:
    return gr.update(visible=any(each.takes_search for each in ta.REPAIRS.values() if each.name == repair))


def plan_and_text(context: AppContext, owner: str, measure_on: str, pasted: str) -> tuple[Session, TextSource]:
    """What measuring a plan needs. Raises `NotYet` without a plan, `WrongInput` without a text."""
    session = context.sessions.get(owner)
    session.need_plan()
    return session, evaluation_text(measure_on, pasted)


def _wanted(session: Session, prompt: str) -> dict:
    """What is measured beside the perplexity, for the time that it takes."""
    return {"writes": bool(prompt.strip()), "with_probes": session.key == BUNDLED}


def prompt_text(prompt) -> str:
    """The prompt as a text; raises `WrongInput` where it is none, or too long."""
    return limits.text("The prompt", prompt or "", limits.MAX_PROMPT_CHARACTERS)


def evaluation_text(measure_on: str, pasted: str) -> TextSource:
    """The text that is measured on, as the controls name it."""
    if measure_on == cut.PASTE:
        return text_source.pasted("" if pasted is None else pasted, measuring.EVALUATION_TOKENS)
    return text_source.evaluation_sample(measure_on)
