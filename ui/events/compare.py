"""Step 7: two results side by side, settings brought back, and the redundancy map."""

from dataclasses import replace

import gradio as gr

from ui.context import AppContext
from ui.errors import NotYet
from ui.events import texts
from ui.events.measure import evaluation_text, prompt_text
from ui.events.panels import Panels, parts
from ui.events.runner import bound, explained, long_step, quick, say, watched
from ui.events.selection import value_of
from ui.pages import compare, redundancy
from ui.pages.cut import MeasureForm
from ui.state import plan_of_choice, selection
from ui.state.session import Moment, Redundancy, Result, Session
from ui.work import job_steps, measuring, two_texts


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the pair of results, the way back to a result's settings, and the map."""
    pair = [panels.compare.first, panels.compare.second]
    for chosen in pair:
        chosen.input(bound(on_pair, context, panels), pair, panels.all, **panels.light)
    panels.compare.table.select(bound(on_rows, context, panels), None, panels.all, **panels.light)
    written = [*pair, panels.compare.prompt]
    long_step(context, panels, panels.compare.write.click, on_write, written, at_the_end=parts(panels.compare))
    restore = bound(on_restore, context, panels)
    panels.compare.restore.click(restore, panels.compare.first, panels.all, **panels.light)
    text = panels.cut.measured_on
    shown = [panels.redundancy.plot, panels.redundancy.note]
    long_step(context, panels, panels.redundancy.draw.click, on_map, text, meanwhile=shown)


def on_pair(context: AppContext, panels: Panels, first, second, request: gr.Request) -> dict:
    session = context.sessions.get(context.visitor(request))
    return quick(panels, lambda: compare.paint_marked(panels.compare, session, first, second))


def on_rows(context: AppContext, panels: Panels, event: gr.EventData, request: gr.Request) -> dict:
    """Two rows of the table; the lists follow."""
    session, own = context.sessions.get(context.visitor(request)), panels.compare

    def act() -> dict:
        pair = [selection.result_number(f"#{value_of(event, name)}") for name in ("first", "second")]
        known = [None if session.result(number) is None else number for number in pair]
        return {**compare.paint_pair(own, session, *known), **dict(zip((own.first, own.second), known, strict=True))}

    return quick(panels, act)


def on_write(context: AppContext, panels: Panels, first, second, prompt, request: gr.Request):
    owner = context.visitor(request)
    try:
        session, prompt = context.sessions.get(owner), prompt_text(prompt)
        pair = session.result(first), session.result(second)
        if None in pair:
            raise NotYet("Two results are needed; choose them in the table or in the lists.")
    except Exception as error:
        yield explained(panels, error)
        return
    yield from watched(
        context, panels, owner, "Writing",
        lambda watch: two_texts.two_texts(context.registry, owner, pair, prompt, watch),
        lambda written: compare.paint_texts(panels.compare, prompt, pair, written), kind="generate",
    )  # fmt: skip


def on_restore(context: AppContext, panels: Panels, number, request: gr.Request) -> dict:
    def act() -> dict:
        owner = context.visitor(request)
        result = context.sessions.get(owner).result(number)
        if result is None:
            raise NotYet("No first result is chosen; prune something, then choose it in the list.")
        session = context.sessions.update(owner, lambda old: _as_for(result, old))
        note = f"The controls stand as for result {number}."
        return {**panels.repaint(session, "plan"), **say(panels, note, "good")}

    return quick(panels, act)


def on_map(context: AppContext, panels: Panels, request: gr.Request, *values):
    owner = context.visitor(request)
    try:
        session = context.sessions.get(owner)
        session.need_plan()
        asked = evaluation_text(MeasureForm(*values), session.need_scored())
    except Exception as error:
        yield explained(panels, error)
        return
    text = yield from texts.in_hand(context, panels, owner, asked)
    if text is None:
        return

    def show(grid: Redundancy) -> dict:
        def change(old: Session) -> Session:
            return replace(old, redundancy=grid) if old.key == grid.scored.key else old

        return redundancy.paint(panels.redundancy, context.sessions.update(owner, change))

    yield from watched(
        context, panels, owner, "Mapping the redundancy",
        lambda watch: measuring.redundancy(context.registry, session, text, watch),
        show, partly=show, stopped="Stopped. The points measured so far stay in the map.", kind="map",
        steps=job_steps.mapping(context.registry, session.scored, text),
    )  # fmt: skip


def _as_for(result: Result, session: Session) -> Session:
    """The session with its controls and its plan as they were for a result. Raises `NotYet` for another model's."""
    if result.scored.key != session.key:
        raise NotYet(f"Result {result.number} is of {result.scored.key.source}; load that model first.")
    back = plan_of_choice.moved_to(session, Moment(result.scored, result.choice))
    return replace(back, plan=result.plan)  # the controls alone would not give what a search chose
