"""Settings put into the queue, and worked off by one job."""

import time
from dataclasses import replace

import gradio as gr

import transact as ta
from transact.wording import counted
from ui.context import AppContext
from ui.errors import NotYet
from ui.events import texts
from ui.events.measure import Asked
from ui.events.panels import Panels
from ui.events.runner import bound, explained, long_step, quick, say, watched
from ui.pages import compare, queue
from ui.pages.cut import MeasureForm
from ui.server import limits
from ui.state.session import Queued, Result, Session
from ui.work import batch

MAX_QUEUE = 8


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the list and its three buttons."""
    own, cut = panels.queue, panels.cut
    listed = [own.listed, own.start, own.clear, panels.status.message]
    own.add.click(bound(on_add, context, panels), [cut.repair, cut.search], listed, **panels.light)
    own.clear.click(bound(on_clear, context, panels), None, listed, **panels.light)
    inputs = [panels.measure.prompt, *cut.measured_on]
    shown = [panels.compare.table, panels.compare.pareto]
    long_step(context, panels, own.start.click, on_start, inputs, meanwhile=shown, at_the_end=panels.all)


def on_add(context: AppContext, panels: Panels, repair, search, request: gr.Request) -> dict:
    def add(session: Session) -> Session:
        session.key.need_weights()
        plan, chosen = session.need_plan(), limits.one_of("repair", repair, ta.COMPENSATIONS)
        if len(session.queue) >= MAX_QUEUE:
            raise NotYet(f"{MAX_QUEUE} settings wait already, as many as the queue takes; have them cut first.")
        queued = Queued(session.need_scored(), session.choice, plan, chosen, bool(search))
        if _identity(queued) in map(_identity, session.queue):
            raise NotYet("This setting is in the queue already; move a slider, then add another.")
        return replace(session, queue=(*session.queue, queued))

    return _changed(context, panels, request, add)


def on_clear(context: AppContext, panels: Panels, request: gr.Request) -> dict:
    return _changed(context, panels, request, lambda session: replace(session, queue=()))


def on_start(context: AppContext, panels: Panels, prompt, request: gr.Request, *values):
    owner = context.visitor(request)
    try:
        session = context.sessions.get(owner)
        if not session.queue:
            raise NotYet("The queue is empty; press Add to queue first.")
        asked = Asked.of(MeasureForm(*values), session.need_scored(), prompt)
    except Exception as error:
        yield explained(panels, error)
        return
    text = yield from texts.in_hand(context, panels, owner, asked.text)
    if text is None:
        return
    began = time.monotonic()

    def keep(results: tuple[Result, ...]) -> Session:
        done = session.queue[: len(results)]

        def change(old: Session) -> Session:
            for result in results:
                old = old if old.result(result.number) is result else old.with_result(result)
            return replace(old, queue=tuple(queued for queued in old.queue if queued not in done))

        return context.sessions.update(owner, change)

    def show(results: tuple[Result, ...]) -> dict:
        painted = compare.paint(panels.compare, keep(results))
        return {part: painted[part] for part in (panels.compare.table, panels.compare.pareto)}

    def finish(results: list[Result]) -> dict:
        after = keep(tuple(results))
        note = _outcome(results, left=len(session.queue) - len(results), seconds=time.monotonic() - began)
        return {**panels.repaint(after, "results"), **panels.repaint(after, "marks"), **say(panels, *note)}

    yield from watched(
        context, panels, owner, "Cutting the queue",
        lambda watch: batch.work_off(context.registry, session, text, watch, **asked.how),
        finish, partly=show, kind="queue", steps=batch.steps(context.registry, session, text, **asked.wanted),
    )  # fmt: skip


def _identity(queued: Queued) -> tuple[str, str, bool]:
    return queued.plan.digest, queued.repair, queued.search


def _outcome(results: list[Result], *, left: int, seconds: float) -> tuple[str, str]:
    """What came of the queue, and in which mood that is said."""
    first, last = results[0].number, results[-1].number
    ready = f"Result {first} is ready" if first == last else f"Results {first} to {last} are ready"
    unmeasured = results[-1].report is None
    if not left and not unmeasured:
        return f"{ready}: cut and measured in {seconds:.0f} s.", "good"
    stays = f", and {counted(left, 'setting')} still in the queue" if left else ""
    return f"Stopped. {ready}{', the last one not measured' if unmeasured else ''}{stays}.", "plain"


def _changed(context: AppContext, panels: Panels, request: gr.Request, change) -> dict:
    owner = context.visitor(request)
    return quick(panels, lambda: queue.paint(panels.queue, context.sessions.update(owner, change)))
