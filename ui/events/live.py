"""Live text: it follows the sliders, the locks and the selection, and waits for no other job."""

import time
from collections.abc import Callable, Iterator

import gradio as gr

import transact as ta
from ui.context import AppContext
from ui.events.measure import prompt_text
from ui.events.panels import Panels
from ui.events.runner import bound
from ui.pages import live
from ui.server import error_messages, limits
from ui.work import live as work
from ui.work.jobs import LIVE
from ui.work.watch import Finished

_UNTOLD_SECONDS = 0.5
"""Writing that takes longer is told, as what stands there is out of date."""


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the prompt, and all after which something else is masked."""
    own = panels.live
    for event in (own.prompt.submit, own.prompt.blur, own.masked.input, panels.maps.link.change):
        follow(context, panels, event)


def follow(context: AppContext, panels: Panels, event: Callable[..., gr.events.Dependency]) -> None:
    """Write anew after that event; of several in a row the last counts."""
    own = panels.live
    shown = [own.dense_text, own.masked_text, own.next_words]
    event(
        bound(on_change, context, panels), [own.prompt, own.masked], shown, trigger_mode="always_last", **panels.heavy
    )


def on_change(context: AppContext, panels: Panels, prompt, masked, request: gr.Request) -> Iterator[dict]:
    own, owner = panels.live, f"{context.visitor(request)}/{LIVE}"
    began, waiting = time.monotonic(), False
    context.jobs.stop(owner)
    try:
        session = context.sessions.get(context.visitor(request))
        prompt = prompt_text(prompt)
        limits.one_of("masked", masked, (work.PLAN, work.UNIT))
        job = context.jobs.run(
            owner, "Writing", lambda watch: work.live(context.registry, session, prompt, masked, watch),
            kind="live", line=LIVE,
        )  # fmt: skip
        for event in job:
            if isinstance(event, Finished):
                yield live.paint(own, event.value)
            elif not waiting and time.monotonic() - began > _UNTOLD_SECONDS:
                waiting = True
                yield live.paint_waiting(own)
    except ta.Cancelled:  # by a later change, which writes
        yield {own.dense_text: gr.skip()}
    except Exception as error:
        yield live.paint_reason(own, error_messages.sentence(error))
