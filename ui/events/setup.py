"""Steps 1 and 2: pre-flight, load, choose text, score, stop."""

from dataclasses import replace

import gradio as gr

from ui import texts, workbench
from ui.errors import WrongInput
from ui.events.desk import HEAVY, LIGHT, Desk, Panels, explained, quick, say, visitor, watched
from ui.pages import calibration, model
from ui.registry import Registry
from ui.session import BUNDLED, ModelKey, Sampling, Session
from ui.texts import TextSource

MAX_SAMPLES, MAX_SEQ_LEN = 4096, 8192


def connect(desk: Desk, panels: Panels) -> None:
    """Wire the sidebar and Stop."""

    def on_model_named(source, revision, dtype, request: gr.Request):
        key = model.key_of(source, revision, dtype)
        if not key.source or key == desk.sessions.get(visitor(request)).key:
            yield {panels.model.card: model.loaded_card(desk.sessions.get(visitor(request)))}
            return
        owner = _card_owner(visitor(request))
        desk.jobs.stop(owner)

        def show(card) -> dict:
            session = desk.sessions.get(visitor(request))
            is_loaded_by_now = session.key == key
            return {panels.model.card: model.loaded_card(session) if is_loaded_by_now else model.preflight_card(card)}

        yield from watched(
            desk, panels, owner, f"Reading the configuration of {key.source}",
            lambda watch: desk.registry.preflight(key),
            show,
            failed=lambda error: {**explained(panels, error), panels.model.card: model.refused_card(str(error))},
            model=False,
        )  # fmt: skip

    def on_load(source, revision, dtype, request: gr.Request):
        key = model.key_of(source, revision, dtype)
        owner = visitor(request)

        def finish(loaded) -> dict:
            scored = desk.first_scored if key == BUNDLED else None
            session = desk.sessions.update(owner, lambda old: workbench.opened(old, key, loaded, scored))
            todo = "" if scored else " Now choose a calibration text and press Score."
            return {**panels.repaint(session), **say(panels, f"{key.source} is in memory.{todo}", "good")}

        yield from watched(
            desk, panels, owner, f"Loading {key.source}",
            lambda watch: workbench.load(desk.registry, key, watch), finish,
        )  # fmt: skip

    def on_source(source, text):
        # what a visitor has typed stays, also when a source is chosen twice or its answer comes late
        typed = bool(text) and not calibration.is_preview(text)
        if source in texts.SAMPLES:
            shown = gr.update(value=calibration.preview(source), visible=True)
        elif source == calibration.PASTE:
            shown = gr.update(visible=True) if typed else gr.update(value="", visible=True)
        else:
            shown = gr.update(visible=False)
        return {
            panels.calibration.text: shown,
            panels.calibration.file: gr.update(visible=source == calibration.UPLOAD),
            panels.calibration.column: gr.update(visible=False),
        }

    def on_typed(source):
        return calibration.PASTE if source in texts.SAMPLES else gr.skip()

    def on_upload(file):
        def act() -> dict:
            names = texts.text_columns(file)
            chosen = names[0] if names else None
            return {panels.calibration.column: gr.update(choices=list(names), value=chosen, visible=len(names) > 1)}

        return quick(panels, act) if file else say(panels, "")

    def on_form(source, text, file, column, num_samples, seq_len, seed, request: gr.Request):
        session = desk.sessions.get(visitor(request))
        try:
            text, sampling = read_form(source, text, file, column, num_samples, seq_len, seed)
            run = workbench.estimate(desk.registry, session, text, sampling)
        except Exception as error:
            return {panels.calibration.estimate: calibration.scored_line(session), **_if_unexpected(panels, error)}
        if run is None:
            return {panels.calibration.estimate: calibration.scored_line(session)}
        return {panels.calibration.estimate: calibration.estimate_line(*run)}

    def on_score(source, text, file, column, num_samples, seq_len, seed, request: gr.Request):
        owner = visitor(request)
        try:
            text, sampling = read_form(source, text, file, column, num_samples, seq_len, seed)
            session = desk.sessions.get(owner)
            key = loaded_key(session, desk.registry)
        except Exception as error:
            yield explained(panels, error)
            return

        def finish(scored) -> dict:
            def change(old: Session) -> Session:
                return workbench.planned(replace(old, scored=scored)) if old.key == scored.key else old

            session = desk.sessions.update(owner, change)
            return {
                **panels.repaint(session),
                **say(panels, f"Scored {scored.num_tokens:,} tokens in {scored.seconds:.1f} s.", "good"),
            }

        yield from watched(
            desk, panels, owner, f"Scoring on {text.name}",
            lambda watch: workbench.score(desk.registry, key, text, sampling, watch), finish,
        )  # fmt: skip

    def on_stop(request: gr.Request):
        # the job itself says that it stops and has stopped: an answer from here could overtake its last word
        owner = visitor(request)
        for job in (owner, _card_owner(owner)):
            desk.jobs.stop(job)
        return gr.update(interactive=False)

    named = [panels.model.select, panels.model.revision, panels.model.dtype]
    form = panels.calibration
    for control in named:
        control.change(on_model_named, named, panels.all, trigger_mode="always_last", **LIGHT)
    panels.model.load.click(on_load, named, panels.all, **HEAVY)
    shown = [form.text, form.file, form.column]
    form.source.input(on_source, [form.source, form.text], shown, **LIGHT)
    form.text.input(on_typed, form.source, form.source, trigger_mode="always_last", **LIGHT)
    form.file.upload(on_upload, form.file, panels.all, **LIGHT)
    for control in (form.source, form.column, form.num_samples, form.seq_len, form.seed):
        control.change(on_form, form.inputs, panels.all, trigger_mode="always_last", **LIGHT)
    form.score.click(on_score, form.inputs, panels.all, **HEAVY)
    panels.status.stop.click(on_stop, None, panels.status.stop, queue=False, **LIGHT)


def read_form(source, text, file, column, num_samples, seq_len, seed) -> tuple[TextSource, Sampling]:
    """The calibration form as typed values; what stands in the text box is what is run."""
    sampling = Sampling(
        _whole(num_samples, "Sequences", 1, MAX_SAMPLES),
        _whole(seq_len, "Tokens each", 2, MAX_SEQ_LEN),
        _whole(seed, "Seed", 0, 2**31 - 1),
    )
    typed = (text or "").strip()
    if source == calibration.UPLOAD:
        if not file:
            raise WrongInput("No file has been uploaded yet; upload one, paste text or choose a bundled sample.")
        return texts.uploaded(file, column, sampling.seq_len), sampling
    if source == calibration.PASTE or (typed and not calibration.is_preview(typed)):
        return texts.pasted(typed, sampling.seq_len), sampling
    return texts.sample(source), sampling


def loaded_key(session: Session, registry: Registry) -> ModelKey:
    """The model that the visitor has loaded. Raises `WrongInput` where there is none."""
    if session.spec is None:
        raise WrongInput("No model is loaded yet; choose one and press Load.")
    return session.key


def _whole(value, name: str, low: int, high: int) -> int:
    if value is None or value != int(value) or not low <= value <= high:
        given = "nothing" if value is None else f"{value:g}"
        raise WrongInput(f"“{name}” is {given}; give a whole number from {low:,} to {high:,}.")
    return int(value)


def _card_owner(session_hash: str) -> str:
    """Reading a configuration is a job of its own, beside the visitor's other one."""
    return f"{session_hash}/card"


def _if_unexpected(panels: Panels, error: Exception) -> dict:
    """An incomplete form is no mistake until Score is pressed."""
    return {} if isinstance(error, WrongInput) else explained(panels, error)
