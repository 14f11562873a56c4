"""Steps 5 and 6: try behind masks, prune, measure, generate."""

import time
from dataclasses import dataclass, fields, replace

import gradio as gr

import transact as ta
from ui.context import AppContext
from ui.errors import WrongInput
from ui.events import texts
from ui.events.panels import Panels, parts
from ui.events.runner import bound, explained, long_step, quick, say, watched
from ui.events.texts import OwnText
from ui.pages import answers, measure
from ui.pages.cut import MeasureForm
from ui.server import limits
from ui.state.measuring_size import size_of
from ui.state.options import HELD_OUT, PASTE, SIZES
from ui.state.session import BUNDLED, Result, Scored, Tried
from ui.text_sources import text_source, uploads
from ui.text_sources.text_source import TextRequest
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

    repair: str
    search: bool | None
    prompt: str | None


MEASURED = len(fields(MeasureForm))
_CUTTING = len(fields(PruneForm))
DATASET_ROWS = 200
"""Of a dataset that is measured on."""


def connect(context: AppContext, panels: Panels) -> None:
    """Wire trying, cutting, measuring and writing, and the fields of the text that is measured on."""
    panel, own = panels.measure, panels.cut
    own.repair.change(on_repair, own.repair, own.search, **panels.light)
    _connect_text(context, panels)
    inputs = [panel.prompt, *own.measured_on]
    at_the_end = [*parts(panel), *parts(panels.answers), own.verdict]
    tried = long_step(context, panels, own.try_button.click, on_try, inputs, at_the_end=at_the_end)
    tried.success(None, js=_SHOW_TRIED)
    measured = long_step(context, panels, own.measure.click, on_measure, inputs, at_the_end=panels.all)
    measured.success(None, js=_SHOW_RESULT)
    inputs = [own.repair, own.search, panel.prompt, *own.measured_on]  # the first as in `PruneForm`
    pruned = long_step(context, panels, own.prune.click, on_prune, inputs, at_the_end=panels.all)
    pruned.success(None, js=_SHOW_RESULT)
    long_step(context, panels, panel.generate.click, on_generate, panel.prompt, at_the_end=[panel.dense, panel.pruned])


def _connect_text(context: AppContext, panels: Panels) -> None:
    """Wire the fields of a text of one's own to measure on."""
    own = panels.cut
    shown = [own.pasted, own.file, own.column, own.dataset_fields]
    own.measure_on.change(bound(on_measure_text, context, panels), [own.measure_on, own.file], shown, **panels.light)
    outputs = [own.column, panels.status.message]
    own.file.upload(bound(on_upload, context, panels), own.file, outputs, **panels.one_at_a_time)
    own.file.clear(bound(on_file_removed, context, panels), None, outputs, **panels.light)


def on_try(context: AppContext, panels: Panels, prompt, request: gr.Request, *values):
    owner = context.visitor(request)
    try:
        session = context.sessions.get(owner)
        session.need_plan()
        asked = Asked.of(MeasureForm(*values), session.need_scored(), prompt)
    except Exception as error:
        yield explained(panels, error)
        return
    text = yield from texts.in_hand(context, panels, owner, asked.text)
    if text is None:
        return

    def finish(what_if: WhatIf) -> dict:
        tried = Tried(
            session.need_plan(), what_if.text, what_if.dense, what_if.masked, what_if.answers, what_if.protocol
        )
        after = context.sessions.update(owner, lambda old: replace(old, tried=tried))
        shown = {**measure.paint_tried(panels.measure, what_if), **answers.paint(panels.answers, after, answers.TRIED)}
        return {**shown, panels.cut.verdict: verdict(after)}

    yield from watched(
        context, panels, owner, "Trying behind masks",
        lambda watch: measuring.what_if(context.registry, session, text, watch, **asked.how), finish, kind="try",
        steps=job_steps.trying(context.registry, session.scored, text, **asked.wanted),
    )  # fmt: skip


def on_prune(context: AppContext, panels: Panels, request: gr.Request, *values):
    owner, form = context.visitor(request), PruneForm(*values[:_CUTTING])
    try:
        session = context.sessions.get(owner)
        session.need_plan()
        asked = Asked.of(MeasureForm(*values[_CUTTING:]), session.need_scored(), form.prompt)
        limits.one_of("repair", form.repair, ta.COMPENSATIONS)
    except Exception as error:
        yield explained(panels, error)
        return
    text = yield from texts.in_hand(context, panels, owner, asked.text)
    if text is None:
        return
    began = time.monotonic()

    def work(watch) -> Result:
        result = pruning.cut(context.registry, session, form.repair, watch, search=bool(form.search))
        return measuring.measure_unless_stopped(context.registry, owner, result, text, watch, **asked.how)

    def finish(result: Result) -> dict:
        seconds = time.monotonic() - began
        return with_result(context, panels, owner, result, f"cut and measured in {seconds:.0f} s")

    steps = [
        *job_steps.cutting(context.registry, session, form.repair, search=bool(form.search)),
        *job_steps.measuring(context.registry, session.scored, text, **asked.wanted),
    ]
    yield from watched(context, panels, owner, "Pruning", work, finish, kind="prune", steps=steps)


def on_measure(context: AppContext, panels: Panels, prompt, request: gr.Request, *values):
    owner = context.visitor(request)
    try:
        result = context.sessions.get(owner).need_result()
        asked = Asked.of(MeasureForm(*values), result.scored, prompt)
    except Exception as error:
        yield explained(panels, error)
        return
    text = yield from texts.in_hand(context, panels, owner, asked.text)
    if text is None:
        return
    began = time.monotonic()

    def finish(measured: Result) -> dict:
        seconds = time.monotonic() - began
        return with_result(context, panels, owner, measured, f"measured on {text.name} in {seconds:.0f} s")

    yield from watched(
        context, panels, owner, f"Measuring on {text.name}",
        lambda watch: measuring.measure(context.registry, owner, result, text, watch, **asked.how),
        finish, kind="measure",
        steps=job_steps.measuring(context.registry, result.scored, text, **asked.wanted),
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


def on_measure_text(context: AppContext, panels: Panels, measure_on, file) -> dict:
    own = panels.cut
    return {own.pasted: gr.update(visible=measure_on == PASTE), **texts.visible(own, measure_on, file)}


def on_upload(context: AppContext, panels: Panels, file) -> dict:
    own = panels.cut
    return quick(panels, lambda: texts.columns_to_choose_from(own, uploads.text_columns(file)) if file else {})


def on_file_removed(context: AppContext, panels: Panels) -> dict:
    return texts.columns_to_choose_from(panels.cut, ())


def on_repair(repair) -> dict:
    return gr.update(visible=any(each.takes_search for each in ta.REPAIRS.values() if each.name == repair))


def prompt_text(prompt) -> str:
    """The prompt as a text; raises `WrongInput` where it is none, or too long."""
    return limits.text("The prompt", prompt or "", limits.MAX_PROMPT_CHARACTERS)


@dataclass(frozen=True)
class Asked:
    """What is to be measured, checked: the text, in hand or still to be fetched, and `how`, as `measuring` takes it."""

    text: TextRequest
    how: dict

    @property
    def wanted(self) -> dict:
        """The same, for the time that it takes."""
        how = self.how
        return {"writes": how["prompt"] is not None, "with_probes": how["with_probes"], "size": how["size"]}

    @classmethod
    def of(cls, form: MeasureForm, scored: Scored, prompt) -> "Asked":
        """Raises `WrongInput` for a field that holds what cannot be."""
        limits.one_of("size", form.size, SIZES)
        written = prompt_text(prompt)
        how = {
            "prompt": written if written.strip() else None,
            "with_probes": scored.key == BUNDLED,
            "size": size_of(form.size, scored),
        }
        return cls(evaluation_text(form, scored), how)


def evaluation_text(form: MeasureForm, scored: Scored) -> TextRequest:
    """The text that is measured on, as the controls name it; what is held out, of the text that scored."""
    if form.measure_on == HELD_OUT:
        if scored.held_out is None:
            raise WrongInput(f"Nothing of {scored.text.name} was held out. Choose another text to measure on.")
        return scored.held_out
    if texts.is_own(form.measure_on):
        own = OwnText(form.pasted, form.file, form.column, form.dataset, form.config, form.split, form.dataset_column)
        return own.request(form.measure_on, seq_len=text_source.EVALUATION_TOKENS, rows=DATASET_ROWS)
    return text_source.evaluation_sample(form.measure_on)
