"""What the heads attend to: read once a sentence, and shown again at every click on a head."""

from collections.abc import Iterator
from dataclasses import replace

import gradio as gr

import transact as ta
from ui.context import AppContext
from ui.events.measure import prompt_text
from ui.events.panels import Panels
from ui.events.runner import bound
from ui.pages import attention
from ui.server import error_messages
from ui.state.session import Attention, Session
from ui.work import attention as work
from ui.work.jobs import LIVE
from ui.work.watch import Finished

_JOB = "attention"


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the sentence, and the first click on a head."""
    own = panels.attention
    read = bound(on_sentence, context, panels)
    for event in (own.text.submit, own.text.blur, panels.maps.link.change):
        event(read, own.text, [own.summary, own.plot], trigger_mode="always_last", **panels.heavy)


def on_sentence(context: AppContext, panels: Panels, text, request: gr.Request) -> Iterator[dict]:
    """Nothing changes where no head is selected, or the sentence has been read already: a click repaints by itself."""
    own, visitor = panels.attention, context.visitor(request)
    owner, unchanged = f"{visitor}/{_JOB}", {own.summary: gr.skip()}
    try:
        session, text = context.sessions.get(visitor), prompt_text(text)
        shown = attention.current(session)
        if session.view.selection.head is None or (shown is not None and shown.text == text):
            yield unchanged
            return
        context.jobs.stop(owner)
        job = context.jobs.run(
            owner, "Reading the sentence", lambda watch: work.attention(context.registry, session, text, watch),
            kind="attention", line=LIVE,
        )  # fmt: skip
        for event in job:
            if isinstance(event, Finished):
                yield attention.paint_head(own, context.sessions.update(visitor, _with(event.value)))
    except ta.Cancelled:  # by a later sentence, which is shown
        yield unchanged
    except Exception as error:
        yield attention.paint_reason(own, error_messages.sentence(error))


def _with(found: Attention):
    def change(old: Session) -> Session:
        return replace(old, attention=found) if old.key == found.key else old

    return change
