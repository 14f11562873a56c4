"""When a page opens: a reloaded tab finds its work again, and a link restores the settings that it holds."""

from dataclasses import replace

import gradio as gr

from ui.context import AppContext
from ui.events import goal, live, options, recover
from ui.events.panels import Panels
from ui.events.runner import bound, explained, long_step, say, under_way, watched
from ui.pages import calibration
from ui.state import settings_link
from ui.state.options import DATASET, HELD_OUT, MIXED
from ui.state.session import BUNDLED, ModelKey, Sampling, Session, Settings
from ui.text_sources import text_source
from ui.text_sources.text_source import TextSource
from ui.work import scoring

TAB = """() => {
  const made = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16)).join("-");
  try {
    const tab = sessionStorage.getItem("transact-tab") || made();
    sessionStorage.setItem("transact-tab", tab);
    return tab;
  } catch {
    return null;
  }
}"""
"""A name that only this browser tab knows; it outlives a reload, and another tab has another. It is sent before
anything can be pressed."""
_DRAWN = """async () => {
  const drawn = () => document.querySelector("#channels-plot .heatmaplayer image");
  for (let waited = 0; waited < 3000 && !drawn(); waited += 50) await new Promise((go) => setTimeout(go, 50));
}"""
"""Waits until the maps are drawn, so that nothing comes between a visitor and these."""

_TAB_CHARACTERS = range(31, 48)
"""What sixteen bytes come to, as `TAB` writes them; names are remembered, so that none may be a book."""


def connect(context: AppContext, panels: Panels, page: gr.Blocks) -> None:
    """Wire the page's load event, and what follows it."""
    named, arrival = bound(on_named, context, panels), bound(on_arrival, context, panels)
    page.load(named, gr.Textbox(visible=False), None, js=TAB, queue=False, **panels.light)
    shown = page.load(arrival, None, panels.all, js=_DRAWN, **panels.heavy)
    settled = long_step(context, panels, shown.then, on_settled, None, at_the_end=panels.all)
    recover.estimate_after(context, panels, settled)
    goal.expected_after(context, panels, settled)
    live.follow(context, panels, settled.then)


def on_named(context: AppContext, panels: Panels, tab, request: gr.Request) -> None:
    # a browser that stores nothing sends no name; such browsers must not share their work
    named = isinstance(tab, str) and len(tab) in _TAB_CHARACTERS
    context.sessions.adopt(request.session_hash, tab if named else None)


def on_arrival(context: AppContext, panels: Panels, request: gr.Request):
    owner = context.visitor(request)
    returning = owner != request.session_hash
    try:
        session = context.sessions.get(owner)
    except Exception as error:
        yield explained(panels, error)
        return
    yield panels.repaint(session, "below")
    try:
        settings = settings_link.settings(request.query_params)
    except Exception as error:
        yield explained(panels, error)
        return
    if returning:
        yield {**panels.repaint(session), **_fields_of(panels, session)}
    elif settings is not None:
        yield _filled(context, panels, owner, settings)


def on_settled(context: AppContext, panels: Panels, request: gr.Request):
    owner = context.visitor(request)
    returning = owner != request.session_hash
    if returning:
        yield from under_way(context, panels, owner)
        return
    try:
        session, settings = context.sessions.get(owner), settings_link.settings(request.query_params)
    except Exception:  # already shown when the page opened
        return
    if settings is not None and _has_model(context, settings):
        yield from _restore(context, panels, owner, session, settings)


def _fields_of(panels: Panels, session: Session) -> dict:
    """The rail's fields as they belong to a session."""
    fields, scored = _model_fields(panels, session.key), session.scored
    fields |= options.shown_as(panels, replace(session.options, measure_on=session.measure_on))
    return fields if scored is None else {**fields, **_text_fields(panels, scored.text, scored.sampling)}


def _model_fields(panels: Panels, key: ModelKey) -> dict:
    return {
        panels.model.select: key.source,
        panels.model.revision: key.revision or "",
        panels.model.dtype: key.dtype,
    }


def _text_fields(panels: Panels, text: TextSource | None, sampling: Sampling) -> dict:
    """The text's fields; a text of one's own has to be given again."""
    own = panels.calibration
    known = {}
    if text is not None and text.origin == "sample":
        known = {own.source: text.name, own.text: calibration.preview(text.name)}
    elif text is not None and text.dataset is not None:
        known = {
            own.source: DATASET,
            own.dataset_fields: gr.update(visible=True),
            own.text: gr.update(visible=False),
            own.dataset: text.dataset.name,
            own.config: text.dataset.config or "",
            own.split: text.dataset.split,
            own.dataset_column: text.dataset.column or "",
        }
    numbers = {own.num_samples: sampling.num_samples, own.seq_len: sampling.seq_len, own.seed: sampling.seed}
    numbers[own.taylor] = sampling.taylor
    if text is None or not text.is_bundled:
        numbers[own.held_out] = gr.update(value=round(100 * sampling.held_out, 4), visible=text is not None)
    return {**known, **numbers}


def _has_model(context: AppContext, settings: Settings) -> bool:
    """Whether a link's model is in memory, or open at once."""
    return (
        settings.key == BUNDLED or not settings.key.has_weights or context.registry.in_memory(settings.key) is not None
    )


def _filled(context: AppContext, panels: Panels, owner: str, settings: Settings) -> dict:
    """The fields as a link says; where its model has to be loaded first, its settings wait for that."""
    text = text_source.sample(settings.text) if settings.text else None
    fields = {**_model_fields(panels, settings.key), **_text_fields(panels, text, settings.sampling)}
    held_out = settings.options.measure_on == HELD_OUT  # of a text that the link does not carry
    fields |= options.shown_as(panels, replace(settings.options, measure_on=MIXED) if held_out else settings.options)
    context.sessions.update(owner, lambda old: replace(old, options=settings.options))
    if _has_model(context, settings):
        return fields
    context.sessions.update(owner, lambda old: replace(old, pending=settings))
    note = f"The link is about {settings.key.source}: press Load, then Score; its ratios and locks are set then."
    return {**fields, **say(panels, note)}


def _restore(context: AppContext, panels: Panels, owner: str, session: Session, settings: Settings):
    """The settings of a link, whose text is scored first."""
    text = text_source.sample(settings.text or "mixed")

    def finish(change) -> dict:
        restored = context.sessions.update(owner, change)
        missing = "" if settings.text else " Its text was the sender's own, so a bundled one stands in for it."
        return {**panels.repaint(restored), **say(panels, f"The settings are those of the link.{missing}", "good")}

    yield from watched(
        context, panels, owner, "Restoring the link's settings",
        lambda watch: scoring.restored(context.registry, session, settings, text, watch), finish, kind="restore",
    )  # fmt: skip
