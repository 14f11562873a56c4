"""Steps 1 and 2: pre-flight, load, choose text, score."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import gradio as gr

from ui.context import AppContext
from ui.errors import WrongInput
from ui.events import texts
from ui.events.panels import Panels
from ui.events.runner import bound, explained, long_step, quick, say, watched
from ui.events.texts import OwnText
from ui.pages import calibration, maps, model
from ui.pages.calibration import CalibrationForm
from ui.server import limits
from ui.state import plan_of_choice
from ui.state.options import DATASET, PASTE, UPLOAD
from ui.state.session import BUNDLED, ModelKey, Sampling, Scored, Session
from ui.text_sources import text_source, uploads
from ui.text_sources.text_source import TextRequest, TextSource
from ui.work import gallery, scoring
from ui.work.forecast import Step
from ui.work.jobs import FILES, MODEL
from ui.work.registry import Registry, is_streamed
from ui.work.scoring import Run
from ui.work.watch import Watch


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the model and the text."""
    named = [panels.model.select, panels.model.revision, panels.model.dtype]
    for control in named:
        long_step(
            context, panels, control.change, on_model_named, named, meanwhile=[panels.model.card],
            trigger_mode="always_last", **panels.light,
        )  # fmt: skip
    long_step(context, panels, panels.model.load.click, on_load, named, at_the_end=panels.all)
    long_step(context, panels, panels.model.weights.click, on_weights, None, at_the_end=panels.all)
    _connect_text(context, panels)
    own = panels.calibration
    drawn = [panels.maps.heads, panels.maps.channels]
    long_step(context, panels, own.score.click, on_score, own.inputs, meanwhile=drawn, at_the_end=panels.all)


def _connect_text(context: AppContext, panels: Panels) -> None:
    """Wire the fields of the text, and the estimate of what scoring it takes."""
    own = panels.calibration
    shown = [own.text, own.file, own.column, own.dataset_fields, own.held_out]
    source = bound(on_source, context, panels)
    own.source.input(source, [own.source, own.text, own.file], shown, **panels.light)
    typed = bound(on_typed, context, panels)
    own.text.input(typed, own.source, [own.source, own.held_out], trigger_mode="always_last", **panels.light)
    # one at a time for all visitors, apart from the sliders: reading a file may take seconds, so may its tokenizer
    form = bound(on_form, context, panels)
    estimated = {"fn": form, "inputs": own.inputs, "outputs": panels.all, "trigger_mode": "always_last"}
    estimated |= panels.one_at_a_time
    upload, removed = bound(on_upload, context, panels), bound(on_file_removed, context, panels)
    own.file.upload(upload, own.file, panels.all, **panels.one_at_a_time).then(**estimated)
    own.file.clear(removed, None, panels.all, **panels.light).then(**estimated)
    controls = own.source, own.column, own.num_samples, own.seq_len, own.seed, own.taylor, own.held_out
    gr.on([control.change for control in controls], **estimated)


def on_model_named(context: AppContext, panels: Panels, source, revision, dtype, request: gr.Request):
    try:
        key = model.key_of(source, revision, dtype)
    except WrongInput as error:
        yield _refused(panels, error)
        return
    if not key.source or key == context.sessions.get(context.visitor(request)).key:
        yield {panels.model.card: model.loaded_card(context.sessions.get(context.visitor(request)))}
        return
    owner = card_owner(context.visitor(request))
    context.jobs.stop(owner)
    if not key.has_weights:
        yield _gallery_card(panels, key)
        return

    def show(card) -> dict:
        session = context.sessions.get(context.visitor(request))
        is_loaded_by_now = session.key == key
        if is_loaded_by_now:
            return {panels.model.card: model.loaded_card(session)}
        return {panels.model.card: model.preflight_card(card, streamed=is_streamed(card))}

    yield from watched(
        context, panels, owner, f"Reading the configuration of {key.source}",
        lambda watch: context.registry.preflight(key, watch),
        show, failed=lambda error: _refused(panels, error), kind="preflight", line=None,
    )  # fmt: skip


def on_load(context: AppContext, panels: Panels, source, revision, dtype, request: gr.Request):
    try:
        key = model.key_of(source, revision, dtype)
    except WrongInput as error:
        yield explained(panels, error)
        return
    owner = context.visitor(request)
    if not key.has_weights:
        yield quick(panels, lambda: _from_gallery(context, panels, owner, key))
        return

    def finish(loaded) -> dict:
        scored = context.first_scored if key == BUNDLED else None
        session = context.sessions.update(owner, lambda old: scoring.opened(old, key, loaded, scored))
        todo = "" if scored else " Now choose a calibration text and press Score."
        place = "passes layer by layer from its files" if loaded.is_streamed else "is in memory"
        return {**panels.repaint(session), **say(panels, f"{key.source} {place}.{todo}", "good")}

    fetched = []
    yield from watched(
        context, panels, owner, f"Fetching {key.source}",
        lambda watch: context.registry.fetch(key, watch), lambda _: fetched.append(key) or {},
        kind="fetch", line=FILES,
    )  # fmt: skip
    if fetched:
        yield from watched(
            context, panels, owner, f"Loading {key.source}",
            lambda watch: scoring.load(context.registry, key, watch), finish, kind="load",
            line=MODEL,
        )  # fmt: skip


def on_weights(context: AppContext, panels: Panels, request: gr.Request):
    owner = context.visitor(request)
    try:
        facts = context.sessions.get(owner).need_scored().gallery
        source = None if facts is None else facts.origin.source
        if source is None:
            raise WrongInput("The gallery does not say where the weights are. Give a hub id or a folder under “Model”.")
    except Exception as error:
        yield explained(panels, error)
        return
    yield from on_load(context, panels, source, None, "auto", request)
    if context.sessions.get(owner).key.source == source:
        yield {panels.model.select: source}


def on_source(context: AppContext, panels: Panels, source, text, file) -> dict:
    own = panels.calibration
    # what a visitor has typed stays, also when a source is chosen twice or its answer comes late
    typed = bool(text) and not calibration.is_preview(text)
    if text_source.is_sample(source):
        shown = gr.update(value=calibration.preview(source), visible=True)
    elif source == PASTE:
        shown = gr.update(visible=True) if typed else gr.update(value="", visible=True)
    else:
        shown = gr.update(visible=False)
    held_out = gr.update(visible=texts.is_own(source))
    return {own.text: shown, own.held_out: held_out, **texts.visible(own, source, file)}


def on_typed(context: AppContext, panels: Panels, source) -> dict:
    own = panels.calibration
    pasted = {own.source: PASTE} if text_source.is_sample(source) else {}
    return {**pasted, own.held_out: gr.update(visible=True)}


def on_upload(context: AppContext, panels: Panels, file) -> dict:
    own = panels.calibration
    return quick(panels, lambda: texts.columns_to_choose_from(own, uploads.text_columns(file)) if file else {})


def on_file_removed(context: AppContext, panels: Panels) -> dict:
    # no message: it could replace a later one
    return texts.columns_to_choose_from(panels.calibration, ())


def on_form(context: AppContext, panels: Panels, request: gr.Request, *values) -> dict:
    session = context.sessions.get(context.visitor(request))
    unknown = {panels.calibration.estimate: calibration.scored_line(session)}
    try:
        text, sampling = read_form(CalibrationForm(*values))
        if not isinstance(text, TextSource):
            return unknown
        run = scoring.estimate(context.registry, session, text, sampling)
    except Exception as error:
        return {**unknown, **_if_unexpected(panels, error)}
    return unknown if run is None else {panels.calibration.estimate: calibration.estimate_line(run)}


def on_score(context: AppContext, panels: Panels, request: gr.Request, *values):
    owner = context.visitor(request)
    try:
        text, sampling = read_form(CalibrationForm(*values))
        session = context.sessions.get(owner)
        key = loaded_key(session, context.registry)
    except Exception as error:
        yield explained(panels, error)
        return

    text = yield from texts.in_hand(context, panels, owner, text)
    if text is None:
        return
    yield from _scored(
        context, panels, owner, sampling, lambda: scoring.estimate(context.registry, session, text, sampling),
        lambda watch: scoring.score(context.registry, key, text, sampling, watch, in_parts=True),
    )  # fmt: skip


def _scored(
    context: AppContext, panels: Panels, owner: str, asked: Sampling, estimate: Callable[[], Run | None],
    work: Callable[[Watch], Scored],
) -> Iterator[dict]:  # fmt: skip
    """Scores in the maps while text passes, and all that follows them at the end."""
    before, shown = context.sessions.get(owner), None
    try:
        run = estimate()
    except Exception as error:
        yield explained(panels, error)
        return
    steps = [] if run is None else [Step("Scoring", run.seconds)]

    def keep(scored: Scored) -> Session:
        nonlocal shown
        last, shown = shown, scored
        return context.sessions.update(owner, lambda old: plan_of_choice.rescored(old, scored, instead_of=last))

    def finish(scored: Scored) -> dict:
        session = keep(scored)
        if scored.is_part:
            sentence, mood = f"Stopped after {scored.num_tokens:,} tokens: the scores are of these.", "plain"
        else:
            noted = calibration.notes(scored.text, scored.calibration.notes)
            sentence, mood = " ".join((*_amount(scored, asked), *noted)), "good"
        return {**panels.repaint(session), **say(panels, sentence, mood)}

    def failed(error: Exception) -> dict:
        session = context.sessions.update(owner, lambda old: plan_of_choice.taken_back(old, shown, before))
        return {**panels.repaint(session), **explained(panels, error)}

    yield from watched(
        context, panels, owner, "Scoring", work, finish, failed=failed,
        partly=lambda scored: maps.paint_maps(panels.maps, keep(scored)), kind="score", steps=steps,
    )  # fmt: skip


def read_form(form: CalibrationForm) -> tuple[TextRequest, Sampling]:
    """The calibration form as typed values; what stands in the text box is what is run.

    Raises `WrongInput` for a value that is not allowed.
    """
    sampling = Sampling(
        limits.counted("num_samples", "“Sequences”", form.num_samples),
        limits.counted("page_seq_len", "“Tokens each”", form.seq_len),
        limits.counted("seed", "“Seed”", form.seed),
        taylor=bool(form.taylor),
        held_out=limits.share_held_out(form.held_out),
    )
    limits.tokens(sampling.num_samples, sampling.seq_len)
    typed = _trimmed(form.text)
    own = OwnText(
        typed, form.file, form.column, form.dataset, form.config, form.split, form.dataset_column
    )  # fmt: skip
    rows = math.ceil(sampling.num_samples / (1 - sampling.held_out))
    if form.source in (DATASET, UPLOAD, PASTE):
        return own.request(form.source, seq_len=sampling.seq_len, rows=rows), sampling
    if typed and not calibration.is_preview(typed):
        return own.request(PASTE, seq_len=sampling.seq_len, rows=rows), sampling
    return text_source.sample(form.source), replace(sampling, held_out=0.0)


def _amount(scored: Scored, asked: Sampling) -> list[str]:
    """How much was read and how much held out; where a text was too short for that, that it was."""
    read = f"Scored {scored.num_tokens:,} tokens{calibration.held_out_words(scored)}, in {scored.seconds:.1f} s."
    if not asked.held_out or scored.sampling.held_out:
        return [read]
    return [read, "The text is too short to hold a part of it out; a bundled one measures."]


def loaded_key(session: Session, registry: Registry) -> ModelKey:
    """The model that the visitor has loaded. Raises `WrongInput` where there is none, `NotYet` without its weights."""
    if session.spec is None:
        raise WrongInput("No model is loaded yet; choose one and press Load.")
    session.key.need_weights()
    return session.key


def _from_gallery(context: AppContext, panels: Panels, owner: str, key: ModelKey) -> dict:
    """A model of the gallery in view, with all that is known of it."""
    facts = gallery.scored(key)
    session = context.sessions.update(owner, lambda old: scoring.opened_from_gallery(old, facts))
    note = f"{key.name} is open without its weights: look, plan and compare; load the weights to cut."
    return {**panels.repaint(session), **say(panels, note, "good")}


def _gallery_card(panels: Panels, key: ModelKey) -> dict:
    """The card of a model of the gallery that is chosen and not open yet, or why it cannot be."""
    try:
        facts = gallery.scored(key).gallery
    except Exception as error:
        return _refused(panels, error)
    return {panels.model.card: model.gallery_card(facts, "Opens at once, without its weights; press Load")}


def _trimmed(value: str | None) -> str:
    return (value or "").strip()


def card_owner(session_hash: str) -> str:
    """Reading a configuration is a job of its own, beside the visitor's other one."""
    return f"{session_hash}/card"


def _refused(panels: Panels, error: Exception) -> dict:
    """Why the named model cannot be used, in the message line and on its card."""
    return {**explained(panels, error), panels.model.card: model.refused_card(str(error))}


def _if_unexpected(panels: Panels, error: Exception) -> dict:
    """An incomplete form is no mistake until Score is pressed."""
    return {} if isinstance(error, WrongInput) else explained(panels, error)
