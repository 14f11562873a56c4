"""How long each long step should take here, on its button, as the settings and the scores are now."""

from collections.abc import Callable

import gradio as gr

import transact as ta
from ui.context import AppContext
from ui.events.panels import Panels
from ui.events.runner import bound
from ui.format import numbers
from ui.pages import queue
from ui.state.measuring_size import size_of
from ui.state.options import HELD_OUT
from ui.state.session import BUNDLED, Session
from ui.text_sources import text_source
from ui.text_sources.text_source import TextSource
from ui.work import batch, job_steps
from ui.work.forecast import Step

LEAST_SECONDS = 5.0
"""What takes less is not told."""


def connect(context: AppContext, panels: Panels) -> None:
    """Wire what the times depend on: the plan and the scores, the fields, and every result."""
    cut, shown = panels.cut, list(_buttons(panels))
    fields = [cut.repair, cut.search, cut.measure_on, cut.size, panels.takeaway.gguf_type]
    follows = [cut.savings, panels.measure.table, panels.queue.listed, *fields]
    gr.on(
        [control.change for control in follows], bound(on_change, context, panels), fields, shown,
        trigger_mode="always_last", preprocess=False, **panels.light,
    )  # fmt: skip


def on_change(context: AppContext, panels: Panels, request: gr.Request, *values) -> dict:
    session = context.sessions.get(context.visitor(request))
    steps = _steps(context, session, *values)
    known, shown = session.scored is not None and session.key.has_weights, {}
    for name, button in zip(steps, _buttons(panels), strict=True):
        try:
            seconds = job_steps.seconds(steps[name]()) if known else None
        except (ta.TransactError, KeyError, TypeError):  # refused where it is pressed
            seconds = None
        name = queue.title(session) if button is panels.queue.start else button.value
        shown[button] = gr.update(value=_label(name, seconds))
    return shown


def _buttons(panels: Panels) -> tuple[gr.Button, ...]:
    """In the order of `_steps`."""
    cut, take = panels.cut, panels.takeaway
    return (
        cut.try_button, cut.prune, cut.measure, panels.redundancy.draw, panels.trust.check, take.checkpoint, take.gguf,
        panels.queue.start,
    )  # fmt: skip


def _steps(context: AppContext, session: Session, *fields) -> dict[str, Callable[[], list[Step]]]:
    """What each button's job consists of; the fields as `connect` lists them."""
    repair, search, measure_on, size, gguf_type = fields
    registry, probes = context.registry, session.key == BUNDLED
    measured = {"writes": True, "with_probes": probes}

    def text() -> TextSource:
        """A text of one's own that is not read yet tells no time."""
        held_out = session.need_scored().held_out
        return held_out if measure_on == HELD_OUT and held_out else text_source.evaluation_sample(measure_on)

    if session.scored is not None:
        measured["size"] = size_of(size, session.scored)

    def of_latest(steps: Callable[..., list[Step]], *values) -> list[Step]:
        return steps(registry, session.need_result(), *values)

    return {
        "try": lambda: job_steps.trying(registry, session.need_scored(), text(), **measured),
        "prune": lambda: [
            *job_steps.cutting(registry, session, repair, search=bool(search)),
            *job_steps.measuring(registry, session.need_scored(), text(), **measured),
        ],
        "measure": lambda: job_steps.measuring(registry, session.need_result().scored, text(), **measured),
        "map": lambda: job_steps.mapping(registry, session.need_scored(), text()),
        "stability": lambda: job_steps.checking_stability(registry, session.need_scored()),
        "checkpoint": lambda: of_latest(job_steps.checkpoint),
        "gguf": lambda: of_latest(job_steps.gguf, gguf_type),
        "queue": lambda: batch.steps(registry, session, text(), **measured),
    }


def _label(name: str, seconds: float | None) -> str:
    if seconds is None or seconds < LEAST_SECONDS:
        return name
    return f"{name} ({numbers.about(seconds)})"
