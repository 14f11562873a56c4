"""When a page opens: a reloaded tab finds its work again, and a link restores the settings that it holds."""

from dataclasses import replace

import gradio as gr

from ui.context import AppContext
from ui.events.panels import Panels
from ui.events.runner import explained, long_step, say, under_way, watched
from ui.pages import calibration
from ui.state import session, settings_link
from ui.state.session import BUNDLED, Sampling, Session
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


def connect(context: AppContext, panels: Panels, page: gr.Blocks) -> gr.events.Dependency:
    """Wire the page's load event, and return it for what is to come after it."""

    def on_named(tab, request: gr.Request):
        # a browser that keeps nothing sends none, and must not share its work with all others that send none
        named = isinstance(tab, str) and len(tab) in _TAB_CHARACTERS
        context.sessions.adopt(request.session_hash, tab if named else None)

    def on_arrival(request: gr.Request):
        owner = context.visitor(request)
        returning = owner != request.session_hash
        try:
            session = context.sessions.get(owner)
        except Exception as error:
            yield explained(panels, error)
            return
        yield panels.repaint_below(session)
        try:
            wanted = settings_link.settings(request.query_params)
        except Exception as error:
            yield explained(panels, error)
            return
        if returning:
            yield {**panels.repaint(session), **fields(session)}
        elif wanted is not None:
            yield filled(owner, wanted)

    def on_settled(request: gr.Request):
        owner = context.visitor(request)
        returning = owner != request.session_hash
        if returning:
            yield from under_way(context, panels, owner)
            return
        try:
            session, wanted = context.sessions.get(owner), settings_link.settings(request.query_params)
        except Exception:  # it was said when the page opened
            return
        if wanted is not None and is_here(wanted):
            yield from restore(owner, session, wanted)

    def fields(session: Session) -> dict:
        """The sidebar's fields as they belong to a session."""
        chosen = {
            panels.model.select: session.key.source,
            panels.model.revision: session.key.revision or "",
            panels.model.dtype: session.key.dtype,
        }
        scored = session.scored
        return chosen if scored is None else {**chosen, **form(scored.text, scored.sampling)}

    def form(text: TextSource | None, sampling: Sampling) -> dict:
        """The text's fields; a text of one's own has to be given again."""
        own = panels.calibration
        known = {}
        if text is not None and text.origin == "sample":
            known = {own.source: text.name, own.text: calibration.preview(text.name)}
        elif text is not None and text.dataset is not None:
            known = {
                own.source: calibration.DATASET,
                own.dataset_fields: gr.update(visible=True),
                own.text: gr.update(visible=False),
                own.dataset: text.dataset.name,
                own.config: text.dataset.config or "",
                own.split: text.dataset.split,
                own.dataset_column: text.dataset.column or "",
            }
        settings = {own.num_samples: sampling.num_samples, own.seq_len: sampling.seq_len, own.seed: sampling.seed}
        return {**known, **settings}

    def is_here(wanted: session.Settings) -> bool:
        return wanted.key == BUNDLED or context.registry.in_memory(wanted.key) is not None

    def filled(owner: str, wanted: session.Settings) -> dict:
        """The fields as a link says; where its model has to be loaded first, its settings wait for that."""
        fields = {
            panels.model.select: wanted.key.source,
            panels.model.revision: wanted.key.revision or "",
            panels.model.dtype: wanted.key.dtype,
            **form(text_source.sample(wanted.text) if wanted.text else None, wanted.sampling),
        }
        if is_here(wanted):
            return fields
        context.sessions.update(owner, lambda old: replace(old, pending=wanted))
        note = f"The link is about {wanted.key.source}: press Load, then Score; its ratios and locks are set then."
        return {**fields, **say(panels, note)}

    def restore(owner: str, session: Session, wanted: session.Settings):
        text = text_source.sample(wanted.text or "mixed")
        yield from watched(
            context, panels, owner, "Restoring the link's settings",
            lambda watch: scoring.restored(context.registry, session, wanted, text, watch),
            lambda change: arrived(owner, change, wanted), kind="restore",
        )  # fmt: skip

    def arrived(owner: str, change, wanted: session.Settings) -> dict:
        session = context.sessions.update(owner, change)
        missing = "" if wanted.text else " Its text was the sender's own, so a bundled one stands in for it."
        return {**panels.repaint(session), **say(panels, f"The settings are those of the link.{missing}", "good")}

    page.load(on_named, gr.Textbox(visible=False), None, js=TAB, queue=False, **panels.light)
    shown = page.load(on_arrival, None, panels.all, js=_DRAWN, **panels.heavy)
    return long_step(context, panels, shown.then, on_settled, None, at_the_end=panels.all)
